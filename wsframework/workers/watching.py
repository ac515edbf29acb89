"""Find workers that hang: whose event loop shows no life, or that do not end when they should."""

from __future__ import annotations

import logging
import signal

import attrs
import trio

from wsframework.records import record
from wsframework.server.crowd import Phase
from wsframework.workers.crew import Worker
from wsframework.workers.page import Page
from wsframework.workers.supervisor import Supervisor

__all__ = ["STUCK_SECONDS", "watch_workers"]

STUCK_SECONDS = 30.0
"""How long an event loop may be blocked. No client waits so long, and gunicorn has the same default."""

_LOOK_SECONDS = 0.5

_ABORT_SECONDS = 2.0
"""How long a worker may take to write its stacks after SIGABRT; one that is stopped never does."""


@attrs.define
class _Pulse:
    """What is known of one worker's heartbeat.

    Attributes:
        heartbeat: the last one.
        looks: how often it has been the same. Looks are counted, and not seconds, because the whole machine
            may have slept.
    """

    heartbeat: float = 0.0
    looks: int = 0


async def watch_workers(supervisor: Supervisor, page: Page, stuck_seconds: float | None) -> None:
    """End workers that hang, until cancelled.

    A worker is watched while its server runs, so its imports and lifespans may take as long as they need.

    Args:
        supervisor: has the workers.
        page: has their heartbeats.
        stuck_seconds: how old a heartbeat may be; None ends no worker for that.
    """
    pulses: dict[int, _Pulse] = {}
    while True:
        await trio.sleep(_LOOK_SECONDS)
        pulses = {number: pulses.get(number, _Pulse()) for number in supervisor.workers}
        for number, worker in list(supervisor.workers.items()):
            pulse = pulses[number]
            figures = page.read(worker.slot)
            if figures.heartbeat != pulse.heartbeat:
                pulse.heartbeat, pulse.looks = figures.heartbeat, 0
            elif Phase.SERVING <= figures.phase <= Phase.DRAINING:
                pulse.looks += 1
                if stuck_seconds is not None:
                    _judge(worker, pulse.looks, stuck_seconds)
            if trio.current_time() > worker.ends_by:
                worker.ends_by = float("inf")
                record(logging.ERROR, "worker.stuck", worker=number, pid=worker.pid, error="it does not end")
                worker.send_signal(signal.SIGKILL)


def _judge(worker: Worker, looks: int, stuck_seconds: float) -> None:
    if looks == round(stuck_seconds / _LOOK_SECONDS):
        why = "its event loop is blocked, or the process is stopped"
        record(
            logging.ERROR,
            "worker.stuck",
            worker=worker.number,
            pid=worker.pid,
            seconds=stuck_seconds,
            error=why,
        )
        # With faulthandler, the worker writes where each of its threads is.
        worker.send_signal(signal.SIGABRT)
    elif looks == round((stuck_seconds + _ABORT_SECONDS) / _LOOK_SECONDS):
        worker.send_signal(signal.SIGKILL)
