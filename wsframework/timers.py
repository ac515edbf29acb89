"""Many deadlines, one task.

The server bounds several waits of a connection: the closing handshake, the grace of a handler whose peer has
left, the last words before a Close. A task for each would cost more than the rest of an idle connection, so a
server has one `Timers`, with a heap of deadlines and a task that sleeps until the next one.

Callbacks are plain internal functions that run in that task. They must not block, and are never user code.
Cancelling a timer is O(1): its entry stays in the heap, without a callback, until its time comes.

Time in which this process did not run does not count for any deadline. While a handler blocks the event loop,
or the process is stopped, the server neither sends nor reads, so it cannot judge a peer. The task therefore
looks at the clock at least every `BEAT_SECONDS`, and when it is late, moves every deadline by the delay.
`forgiven` is the sum of these delays, for clocks that are kept elsewhere.
"""

from __future__ import annotations

import heapq
import logging
import math
import time
from collections.abc import Callable

import trio

from wsframework.records import record

__all__ = ["BEAT_SECONDS", "Timer", "Timers"]

BEAT_SECONDS = 0.25
"""How often the clock is looked at: often enough for timeouts of one second, for a hundred microseconds of
CPU time per second."""

_FIRE_SECONDS = 0.002
"""How long timers that are due together run before other tasks get their turn: to drop a connection takes
30 µs, and thousands may have come in one moment."""

_LATE_SECONDS = 0.1
"""Shorter delays are ignored: a busy machine has them, and no peer's timeout is that short."""


class Timer:
    """One pending callback; `cancel` it when it is no longer wanted.

    Attributes:
        deadline: when it is due, in the seconds of `Timers.now`.
    """

    __slots__ = ("_callback", "deadline")

    def __init__(self, deadline: float, callback: Callable[[], None]) -> None:
        self.deadline = deadline
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget the callback; harmless when it has already run."""
        # The entry stays in the heap for a while, so it must not keep the connection alive.
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
    """All deadlines of one server.

    Args:
        on_blocked: called with the seconds for which the event loop, or the process, stood still.

    Attributes:
        beating: look at the clock every `BEAT_SECONDS`, even when nothing is due: time in which the process
            did not run is then noticed and forgiven. Set it before `run`.
        forgiven: seconds by which deadlines have moved since the start.
        beat_at: `time.monotonic()` of the last look at the clock.
    """

    def __init__(self, *, on_blocked: Callable[[float], None] | None = None) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._sleep = trio.CancelScope()
        self.beating = False
        self._on_blocked = on_blocked
        self._due = math.inf
        self._due_monotonic = math.inf
        self.forgiven = 0.0
        self.beat_at = math.inf

    def now(self) -> float:
        """Return `trio.current_time()` less what was forgiven: the clock of everything that judges a peer."""
        return trio.current_time() - self.forgiven

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once, `seconds` from now."""
        now = trio.current_time()
        timer = Timer(now - self.forgiven + seconds, callback)
        self._count += 1
        heapq.heappush(self._heap, (timer.deadline, self._count, timer))
        if now + seconds < self._sleep.deadline:
            self._sleep.deadline = now + seconds
        return timer

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Fire timers until cancelled; run it in a nursery that lives as long as what is timed.

        Cancellation: timers that are still pending are dropped.
        """
        while True:
            self.look()
            now = self.now()
            self._fire(now)
            deadline = self._heap[0][0] + self.forgiven if self._heap else math.inf
            if self.beating:
                now = trio.current_time()
                deadline = min(deadline, now + BEAT_SECONDS)
                self._due, self.beat_at = now + BEAT_SECONDS, time.monotonic()
                self._due_monotonic = self.beat_at + BEAT_SECONDS
            with trio.CancelScope(deadline=deadline) as self._sleep:
                await trio.sleep_forever()

    def _fire(self, now: float) -> None:
        """Fire what is due, up to `_FIRE_SECONDS`; the rest is due in the next turn."""
        end = 0.0
        while self._heap and self._heap[0][0] <= now:
            heapq.heappop(self._heap)[2].fire()
            clock = time.perf_counter()
            end = end or clock + _FIRE_SECONDS
            if clock > end:
                break

    def look(self) -> None:
        """Look at the clock, and move the deadlines if this process did not run for a while.

        Code that judges a peer by its own clock calls this first, because it may run before the timers' task.
        """
        # Real time as well, because a virtual clock jumps without a delay.
        late = min(trio.current_time() - self._due, time.monotonic() - self._due_monotonic)
        if late < _LATE_SECONDS:
            return
        self._due, self._due_monotonic = trio.current_time(), time.monotonic()
        self.forgiven += late
        if self._on_blocked is not None:
            self._on_blocked(late)
