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

from wsframework.server.stacks import Standing, of_running
from wsframework.timers import BEAT_SECONDS, Timers

__all__ = ["LoopWatch"]

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
