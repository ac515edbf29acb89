"""Who may come in: every connection is counted here, from the accepted socket to the end of its handler."""

from __future__ import annotations

from collections import Counter

import trio

from wsframework.config import Limits
from wsframework.request import Address

__all__ = ["Admission"]

_REFUSALS_AT_ONCE = 64
"""Connections over the limit that are told so at the same time: each may take the close timeout, so without a
limit of their own they would be a way around the other. More are closed without a word."""


class Admission:
    """The connections of one server, counted.

    Attributes:
        open: connections now, those in their handshake and handlers in their grace included.
        accepted: connections since the start, those that were refused included.
        refused: of those, closed because there were too many.
    """

    def __init__(self, limits: Limits) -> None:
        self.open = 0
        self.accepted = 0
        self.refused = 0
        self._limits = limits
        self._open_by_address: Counter[str] = Counter()
        self._refusing = 0
        self._empty: trio.Event | None = None

    def admit(self, remote: Address) -> bool:
        """Count a connection in, unless there are too many."""
        self.accepted += 1
        limits = self._limits
        crowded = limits.connections_per_address
        if (limits.connections is not None and self.open >= limits.connections) or (
            crowded is not None and self._open_by_address[remote.host] >= crowded
        ):
            self.refused += 1
            return False
        self.open += 1
        self._open_by_address[remote.host] += 1
        return True

    def depart(self, remote: Address) -> None:
        """Count a connection out again that was admitted."""
        self.open -= 1
        self._open_by_address[remote.host] -= 1
        if not self._open_by_address[remote.host]:
            del self._open_by_address[remote.host]
        if not self.open and self._empty is not None:
            self._empty.set()

    async def wait_empty(self) -> None:
        """Wait until no connection is open; for one task at a time."""
        while self.open:
            self._empty = trio.Event()
            await self._empty.wait()

    def begin_refusal(self) -> bool:
        """Whether one more connection that was not admitted may be told so."""
        if self._refusing >= _REFUSALS_AT_ONCE:
            return False
        self._refusing += 1
        return True

    def end_refusal(self) -> None:
        """It has been told, and is closed."""
        self._refusing -= 1
