"""What is counted of sessions."""

from __future__ import annotations

import attrs

__all__ = ["SessionCounters", "SessionStatistics"]


@attrs.frozen
class SessionStatistics:
    """The counters of a `Sessions` at one moment, in this process.

    Attributes:
        open: sessions that connections have now.
        created: new sessions.
        resumed: sessions that were resumed.
        refused: tokens that did not resume one; a new session was created.
        taken: sessions that another connection has taken, in this process or another one.
    """

    open: int
    created: int
    resumed: int
    refused: int
    taken: int


@attrs.define
class SessionCounters:
    """The same while they count."""

    open: int = 0
    created: int = 0
    resumed: int = 0
    refused: int = 0
    taken: int = 0

    def read(self) -> SessionStatistics:
        """Return what was counted so far."""
        return SessionStatistics(self.open, self.created, self.resumed, self.refused, self.taken)
