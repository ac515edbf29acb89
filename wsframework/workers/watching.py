"""Find workers that hang: whose event loop shows no life, or that do not end when they should."""

from __future__ import annotations

import logging
import signal
import time

import attrs
import trio

from wsframework.records import record
from wsframework.server.crowd import Phase
from wsframework.workers.crew import Failure, Worker
from wsframework.workers.page import Page
from wsframework.workers.supervisor import Supervisor

__all__ = ["STUCK_SECONDS", "all_fresh", "watch_workers"]

STUCK_SECONDS = 30.0
"""How long an event loop may be blocked. No client waits so long, and gunicorn has the same default."""

FRESH_SECONDS = 5.0
"""The age up to which a heartbeat is fresh to a service manager's watchdog: ten are lost by then. A program
that blocks its event loop for a second or two still works."""

_LOOK_SECONDS = 0.5

_BLOCKED = "its event loop is blocked, or the process is stopped"

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

    A worker that starts has more time, for its imports and lifespans: `Supervisor.start_seconds`.

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
            elif worker.state == "starting":
                pulse.looks += 1
                if stuck_seconds is not None and supervisor.start_seconds is not None:
                    limit = supervisor.start_seconds
                    _judge(worker, pulse.looks, limit, f"it has not started within {limit:.0f} seconds")
            elif Phase.SERVING <= figures.phase <= Phase.DRAINING:
                pulse.looks += 1
                if stuck_seconds is not None:
                    _judge(worker, pulse.looks, stuck_seconds, _BLOCKED)
            if trio.current_time() > worker.ends_by:
                worker.ends_by = float("inf")
                record(logging.ERROR, "worker.stuck", worker=number, pid=worker.pid, error="it does not end")
                worker.send_signal(signal.SIGKILL)


def all_fresh(supervisor: Supervisor, page: Page) -> bool:
    """Whether the event loop of every worker whose server runs has shown life lately."""
    oldest = time.monotonic() - FRESH_SECONDS
    every = [page.read(worker.slot) for worker in supervisor.workers.values()]
    return all(
        figures.heartbeat >= oldest for figures in every if Phase.SERVING <= figures.phase <= Phase.DRAINING
    )


def _judge(worker: Worker, looks: int, seconds: float, why: str) -> None:
    if looks == round(seconds / _LOOK_SECONDS):
        worker.failure = worker.failure or Failure(why)
        record(
            logging.ERROR,
            "worker.stuck",
            worker=worker.number,
            pid=worker.pid,
            seconds=seconds,
            error=why,
        )
        # With faulthandler, the worker writes where each of its threads is.
        worker.send_signal(signal.SIGABRT)
    elif looks == round((seconds + _ABORT_SECONDS) / _LOOK_SECONDS):
        worker.send_signal(signal.SIGKILL)
