"""Close connections that have reached `Limits.connection_age`, so that their clients come back elsewhere.

Clients that stay connected for days never reach a server that was added since. Each connection is drained by
itself: its handler sees `ws.draining` for a moment, and then its client gets Close 1012 and may reconnect at
once. One sweep for all connections costs each of them an entry in a dictionary; a timer of its own, which
stays in the heap after a short connection's end, would cost more.
"""

from __future__ import annotations

import functools
import random

from wsframework.closes import CloseFrame
from wsframework.connection import Connection
from wsframework.observer import Observer
from wsframework.timers import Timers

__all__ = ["Aging"]

JITTER = 0.1
"""By how much the age of each connection differs from the limit, at most: clients that came together, after a
restart, do not leave together."""

NOTICE_SECONDS = 1.0
"""How long a handler sees `ws.draining` before the Close frame; a tenth of the age if that is less."""

_SWEEP_SECONDS = 1.0
"""How often connections are looked at; as often as the notice is long if that is shorter."""

_AGED = CloseFrame(1012, "the connection has reached its maximum age")


class Aging(Observer):
    """Learns of a server's connections as its observer, and closes those that are too old.

    Args:
        age: how long a connection may be open, in seconds, more or less.
        timers: the server's.
    """

    def __init__(self, age: float, timers: Timers) -> None:
        self._age = age
        self._timers = timers
        self._notice = min(NOTICE_SECONDS, age / 10)
        self._period = min(_SWEEP_SECONDS, self._notice)
        self._due: dict[Connection, float] = {}
        self._sweeping = False

    def connection_opened(self, connection: Connection, handler: str) -> None:
        """Remember when it is due."""
        self._due[connection] = self._timers.now() + self._age * random.uniform(1 - JITTER, 1 + JITTER)
        if not self._sweeping:
            self._sweeping = True
            self._timers.after(self._period, self._sweep)

    def connection_closed(self, connection: Connection, handler: str) -> None:
        """Forget it."""
        self._due.pop(connection, None)

    def _sweep(self) -> None:
        now = self._timers.now()
        due = [connection for connection, at in self._due.items() if at <= now]
        for connection in due:
            del self._due[connection]
            endpoint = connection.endpoint
            endpoint.drain()
            # Not all of a sweep in one instant.
            delay = self._notice + random.uniform(0, self._period)
            self._timers.after(delay, functools.partial(endpoint.start_close, _AGED, _AGED.reason))
        self._sweeping = bool(self._due)
        if self._sweeping:
            self._timers.after(self._period, self._sweep)
