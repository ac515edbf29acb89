"""Write one record for many similar events, which clients can cause a thousand times a second."""

from __future__ import annotations

from typing import Any

from wsframework.records import record
from wsframework.timers import Timers

__all__ = ["RatedRecord"]

_SECONDS = 10.0
"""At most one record in this time: enough to see that the events continue."""


class RatedRecord:
    """A record that is written at once, and then every ten seconds with the number of events since."""

    def __init__(self, timers: Timers, level: int, event: str) -> None:
        self._timers = timers
        self._level = level
        self._event = event
        self._fields: dict[str, Any] = {}
        self._count = 0
        self._resting = False

    def write(self, **fields: Any) -> None:
        """Write it, or count it; a record that stands for several has the fields of the last one."""
        if self._resting:
            self._fields = fields
            self._count += 1
        else:
            record(self._level, self._event, **fields)
            self._rest()

    def _rest(self) -> None:
        self._resting = True
        self._timers.after(_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._resting = False
        if self._count:
            record(self._level, self._event, **self._fields, count=self._count, seconds=_SECONDS)
            self._count, self._fields = 0, {}
            self._rest()
