"""Many deadlines, one task.

A connection has several waits that are ours to bound: the closing handshake, the grace of a handler whose
peer has left, the last words before a Close. A task for each would cost more than the rest of an idle
connection, so one server has one `Timers`: a heap of deadlines and a task that sleeps until the next one.

Callbacks are plain functions of ours that run in that task; they must not block and are never user code.
Cancelling a timer is O(1): the entry stays in the heap as an empty husk until its time comes.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Callable

import trio

from wsframework.records import record

__all__ = ["Timer", "Timers"]


class Timer:
    """One pending callback; `cancel` it when it is no longer wanted."""

    __slots__ = ("_callback", "deadline")

    def __init__(self, deadline: float, callback: Callable[[], None]) -> None:
        self.deadline = deadline
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget the callback; harmless when it has already run."""
        # The husk stays in the heap for a while, so it must not keep the connection alive.
        self._callback = None

    def fire(self) -> None:
        """Run the callback unless it was cancelled."""
        callback, self._callback = self._callback, None
        if callback is None:
            return
        try:
            callback()
        except Exception as error:
            # One connection's fault must not take every other connection's deadlines with it.
            record(logging.ERROR, "timer.failed", exc_info=error)


class Timers:
    """All deadlines of one server, or of one connection on a foreign host."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._sleep = trio.CancelScope()

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once, `seconds` from now."""
        deadline = trio.current_time() + seconds
        timer = Timer(deadline, callback)
        self._count += 1
        heapq.heappush(self._heap, (deadline, self._count, timer))
        if deadline < self._sleep.deadline:
            self._sleep.deadline = deadline
        return timer

    async def run(self) -> None:
        """Fire timers for ever; run it in a nursery that lives as long as what is timed.

        Cancellation: timers that are still pending are dropped.
        """
        while True:
            now = trio.current_time()
            while self._heap and self._heap[0][0] <= now:
                heapq.heappop(self._heap)[2].fire()
            deadline = self._heap[0][0] if self._heap else math.inf
            with trio.CancelScope(deadline=deadline) as self._sleep:
                await trio.sleep_forever()
