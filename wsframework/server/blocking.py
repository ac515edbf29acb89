"""Who blocks the event loop: a thread that looks at its stack while it stands still.

An event loop that does not run cannot say why, and afterwards nothing is left to see. So a thread of its own
looks at the loop's clock a few times a second, and when that has stopped, once at the stack of the loop's
thread. That costs the loop nothing. A stack is read by the interpreter's own means, so code that holds the
interpreter's lock (a C extension) is seen only when it lets go.
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
"""A standstill of the event loop that is worth a record: a person notices it, and so does a ping."""

_LATE_SECONDS = 0.2
"""How late a beat is when the stack is looked at."""


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
        """Return what was seen of the last standstill, once."""
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
                del frame  # it keeps everything alive that the handler holds


class BlockedLoop:
    """Tells of an event loop that stood still, and of who did it, if that was seen."""

    def __init__(self, timers: Timers, observer: Observer) -> None:
        self._timers = timers
        self._observer = observer
        self._watch: LoopWatch | None = None

    def watch(self, watch: LoopWatch | None = None) -> None:
        """From now on see who does it, until `stop`; the timers must be beating."""
        self._watch = watch or LoopWatch(self._timers)

    def stop(self) -> None:
        """End the watch, if there is one."""
        if self._watch is not None:
            self._watch.stop()

    def report(self, seconds: float) -> None:
        """Tell the observers of a standstill that ends now.

        Args:
            seconds: from the last beat that was in time.
        """
        # Always, so that who did a shorter one is not named for the next.
        seen = None if self._watch is None else self._watch.take()
        # It began between the last beat and the one that is late, so on the average half a beat earlier.
        seconds += BEAT_SECONDS / 2
        if seconds < _BLOCKED_SECONDS:
            return
        function, stack = (None, None) if seen is None else (seen.function, seen.stack)
        self._observer.loop_blocked(seconds, function, stack)
