"""How long a peer is waited for that makes hardly any progress, in waits that come one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wsframework.timers import Timer, Timers

__all__ = ["Patience"]

_SLOWEST_BYTES_PER_SECOND = 240
"""The same rate as for taking the last bytes of a connection, and for sending a body that is read whole."""


class Patience:
    """Gives a peer up when it has made too little progress in so much time that was spent waiting for it.

    Time in which nobody waits does not count: then it is not the peer who is slow.

    Args:
        seconds: the time.
        timers: measure it.
        progress: returns how many bytes the peer has sent or taken.
        on_over: called when it is given up.
    """

    __slots__ = (
        "_left",
        "_mark",
        "_on_over",
        "_progress",
        "_seconds",
        "_since",
        "_timer",
        "_timers",
        "_waits",
    )

    def __init__(
        self, seconds: float, timers: Timers, progress: Callable[[], int], on_over: Callable[[], None]
    ) -> None:
        self._seconds = self._left = seconds
        self._timers = timers
        self._progress = progress
        self._on_over = on_over
        self._mark = progress()
        self._timer: Timer | None = None
        self._waits = 0
        self._since = 0.0  # when the waiting began that `_left` has not counted yet

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block."""
        self._waits += 1
        if self._timer is None:
            self._wait_on()
        try:
            yield
        finally:
            self._waits -= 1
            if not self._waits and self._timer is not None:
                self._timer.cancel()
                self._timer = None
                self._left = max(0.0, self._left - (self._timers.now() - self._since))
                self._judge()

    def _wait_on(self) -> None:
        self._since = self._timers.now()
        self._timer = self._timers.after(self._left, self._look)

    def _judge(self) -> bool:
        """Start anew if there was progress; return whether there was."""
        progress = self._progress()
        enough = progress - self._mark >= max(1.0, _SLOWEST_BYTES_PER_SECOND * self._seconds)
        if enough:
            self._left, self._mark = self._seconds, progress
        return enough

    def _look(self) -> None:
        self._timer = None
        if self._judge():
            self._wait_on()
        else:
            self._on_over()
