"""Find the code that blocks the event loop: a thread reads the loop's stack while the loop is blocked.

A blocked event loop cannot report what blocks it, and afterwards the stack is gone. Therefore a thread reads
the loop's clock a few times a second. When the clock has stopped, it reads the stack of the loop's thread,
once. This costs the loop nothing. Reading a stack needs the interpreter's lock, so a C extension that holds
the lock is seen only when it releases it.
"""

from __future__ import annotations

import sys
import threading
import time

from wsframework.observer import Observer
from wsframework.server.stacks import Standing, of_running
from wsframework.timers import BEAT_SECONDS, Timers

__all__ = ["BlockedLoop", "LoopWatch"]

_BLOCKED_SECONDS = 0.5
"""From this time on a blocked event loop is reported: people notice it, and so do pings."""

_LATE_SECONDS = 0.2
"""The stack is read when a beat is this late."""


class LoopWatch:
    """Watches the event loop of the thread that makes it, until `stop`."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._thread_id = threading.get_ident()
        self._stopped = threading.Event()
        self._seen: Standing | None = None
        threading.Thread(target=self._run, name="wsframework loop watch", daemon=True).start()

    def stop(self) -> None:
        """End the thread, without waiting for it."""
        self._stopped.set()

    def take(self) -> Standing | None:
        """Return what blocked the loop last, if it was seen, and forget it."""
        seen, self._seen = self._seen, None
        return seen

    def _run(self) -> None:
        looked_at = 0.0
        while not self._stopped.wait(BEAT_SECONDS):
            beat_at = self._timers.beat_at
            if time.monotonic() - beat_at > BEAT_SECONDS + _LATE_SECONDS and beat_at != looked_at:
                looked_at = beat_at
                frame = sys._current_frames().get(self._thread_id)
                if frame is not None:
                    self._seen = of_running(frame)
                del frame  # it would keep the handler's variables alive


class BlockedLoop:
    """Reports that the event loop was blocked, with the function that blocked it if it was seen."""

    def __init__(self, timers: Timers, observer: Observer) -> None:
        self._timers = timers
        self._observer = observer
        self._watch: LoopWatch | None = None

    def watch(self, watch: LoopWatch | None = None) -> None:
        """Watch for the function that blocks the loop, until `stop`; the timers must be beating."""
        self._watch = watch or LoopWatch(self._timers)

    def stop(self) -> None:
        """End the watch, if there is one."""
        if self._watch is not None:
            self._watch.stop()

    def report(self, seconds: float) -> None:
        """Tell the observers that the loop was blocked until now.

        Args:
            seconds: since the last beat that was in time.
        """
        # Taken even if the block was short, so that it is not reported with the next one.
        seen = None if self._watch is None else self._watch.take()
        # The block began between the last beat and the late one: on average half a beat after the last.
        seconds += BEAT_SECONDS / 2
        if seconds < _BLOCKED_SECONDS:
            return
        function, stack = (None, None) if seen is None else (seen.function, seen.stack)
        self._observer.loop_blocked(seconds, function, stack)
