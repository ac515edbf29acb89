"""One worker, as the parent sees it: from its start to the end of its process."""

from __future__ import annotations

import logging
import signal
from typing import Literal

import attrs
import trio

from wsframework.records import record
from wsframework.workers.channel import Channel
from wsframework.workers.launching import Process, signal_name

__all__ = ["Failure", "Worker"]

State = Literal["starting", "ready", "leaving", "ended"]

_LAST_WORDS_SECONDS = 0.2
"""How long the channel may last after the process: what a process that it has forked holds does not end."""


@attrs.frozen
class Failure:
    """Why a worker does not serve.

    Attributes:
        line: one line.
        details: lines below it, or an empty string.
        mistake: whether it is the user's mistake.
    """

    line: str
    details: str = ""
    mistake: bool = False


class Worker:
    """A worker's process.

    Args:
        number: counted from 1; no two workers of a parent have the same.
        slot: its part of the shared page.
        generation: how many rolling restarts began before it was started.

    Attributes:
        pid: its process.
        started_at: when it was started, by Trio's clock.
        imported: set when it has imported the App, if it waits then; set with `settled` at the latest.
        settled: set when it serves or has ended.
        gone: set when it no longer accepts connections, or is told to stop: one that hangs never says so.
        ended: set when its process has ended.
        reported: whether the parent ends with its failure, and prints that; then its log has no traceback.
        failure: what it said before its end, or how it ended if it has never served.
        running: whether its event loop has begun to run.
        told: whether the parent has told it to stop.
        left: whether it has said that it stops, told or not.
        died: whether its process has ended otherwise than it should.
        status: of its process after its end, as `subprocess` gives it.
    """

    def __init__(self, number: int, slot: int, generation: int, process: Process, channel: Channel) -> None:
        self.number = number
        self.slot = slot
        self.generation = generation
        self.pid = process.pid
        self.started_at = trio.current_time()
        self.imported = trio.Event()
        self.settled = trio.Event()
        self.gone = trio.Event()
        self.ended = trio.Event()
        self.reported = False
        self.failure: Failure | None = None
        self.running = False
        self.told = False
        self.left = False
        self.died = False
        self.status: int | None = None
        self.ends_by = float("inf")
        self._waits = False
        self._ready_at: float | None = None
        self._ends_within = float("inf")
        self._cut_off = False
        self._process = process
        self._channel = channel

    @property
    def state(self) -> State:
        """What it does now."""
        if self.ended.is_set():
            return "ended"
        if self.told or self.gone.is_set():
            return "leaving"
        return "starting" if self._ready_at is None else "ready"

    @property
    def was_ready(self) -> bool:
        """Whether it has served."""
        return self._ready_at is not None

    @property
    def served_seconds(self) -> float:
        """How long it has served until now."""
        return 0.0 if self._ready_at is None else trio.current_time() - self._ready_at

    def proceed(self) -> None:
        """Tell it to serve, if it waits for that."""
        if self._waits:
            self._channel.send("serve")

    def drain(self, *, restarting: bool) -> None:
        """Tell it to stop gracefully; before its event loop runs, it has nothing to end, and is killed.

        Args:
            restarting: whether its clients get Close 1012 instead of 1001: another worker takes them.
        """
        if not self.told:
            self.told = True
            self.ends_by = trio.current_time() + self._ends_within
            self._channel.send("drain", {"restarting": restarting})
            self.gone.set()
        if not self.running:
            self._cut_off = True
            self.send_signal(signal.SIGKILL)

    def stop_now(self) -> None:
        """Tell it to cut its drain short."""
        self.told = True
        self._channel.send("stop", "now")

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        self._process.send_signal(number)

    async def follow(self) -> None:
        """Hear what it says and wait for its end.

        Cancellation: the process is left alone.
        """
        try:
            async with trio.open_nursery() as nursery:
                heard_all = trio.Event()
                nursery.start_soon(self._hear, heard_all)
                self.status = await self._process.wait()
                with trio.move_on_after(_LAST_WORDS_SECONDS):
                    await heard_all.wait()
                nursery.cancel_scope.cancel(reason="the worker has ended")
        finally:
            self._channel.close()
        if not self.was_ready and self.failure is None:
            self.failure = Failure(f"worker {self.number} ended before it was ready: {self.described_status}")
        self.died = self._has_died()
        # In this order: who waits for the first of them may look at the others.
        for event in (self.ended, self.gone, self.imported, self.settled):
            event.set()
        self._log_end()

    @property
    def described_status(self) -> str:
        """How its process ended, in words."""
        name = signal_name(self.status or 0)
        return f"status {self.status}" if name is None else f"killed by {name}"

    def _has_died(self) -> bool:
        if self.status == 0:
            # A process that exits while it serves has failed. Before that, SIGTERM may have told it to stop.
            return self.was_ready and not (self.told or self.left)
        if self.status == -signal.SIGTERM and not self.was_ready:
            return False  # before it can obey this signal
        return not (self.told and (signal_name(self.status or 0) is None or self._cut_off))

    async def _hear(self, heard_all: trio.Event) -> None:
        async for message in self._channel:
            match message:
                case "imported", _:
                    self._waits = True
                    self.imported.set()
                case "running", {"ends_within": int() | float() as seconds}:
                    self.running = True
                    self._ends_within = seconds
                case "ready", _:
                    self._ready_at = trio.current_time()
                    took = round(self._ready_at - self.started_at, 3)
                    record(logging.INFO, "worker.ready", worker=self.number, pid=self.pid, seconds=took)
                    self.imported.set()
                    self.settled.set()
                case "leaving", _:
                    self.left = True
                    self.ends_by = min(self.ends_by, trio.current_time() + self._ends_within)
                    self.gone.set()
                case "failed", {"line": str(line), "details": str(details), "mistake": bool(mistake)}:
                    self.failure = Failure(line, details, mistake)
        heard_all.set()

    def _log_end(self) -> None:
        name = signal_name(self.status or 0)
        status = self.status if name is None else None
        lived = round(trio.current_time() - self.started_at, 3)
        event, level = ("worker.died", logging.ERROR) if self.died else ("worker.ended", logging.INFO)
        failure = self.failure
        record(
            level,
            event,
            worker=self.number,
            pid=self.pid,
            status=status,
            signal=name,
            seconds=lived,
            error=None if failure is None else failure.line,
            stack=None if failure is None or self.reported else failure.details or None,
        )
