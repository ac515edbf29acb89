"""Servers in several processes that accept from the same listeners: what one of them tells and sees.

A server alone has no `Crowd`, and pays nothing for it. The processes and the memory between them are the
caller's: see `wsframework.workers`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol

import attrs

__all__ = ["Crowd", "Figures", "Phase"]


class Phase(IntEnum):
    """What a server is doing. The heartbeat is to be judged from SERVING to DRAINING only."""

    ABSENT = 0
    """There is no process."""
    STARTING = 1
    """The program is imported, and its lifespans are entered."""
    SERVING = 2
    FULL = 3
    """It has as many connections as it can have alone, by its file descriptors."""
    DRAINING = 4
    """It accepts no more, and ends its connections."""
    STOPPED = 5
    """Every connection is closed; lifespans are left."""


@attrs.frozen(kw_only=True)
class Figures:
    """The counters of one server, which it tells with every heartbeat.

    Attributes:
        websockets: connections that are upgraded and open.
        accepted: connections since the start.
        refused: how many of them were refused.
        messages_received: since the start; may be some seconds old.
        messages_sent: the same for messages that were committed to be sent.
        loop_lag: by how many seconds the event loop ran this heartbeat too late.
    """

    websockets: int = 0
    accepted: int = 0
    refused: int = 0
    messages_received: int = 0
    messages_sent: int = 0
    loop_lag: float = 0.0


class Crowd(Protocol):
    """All servers of the same listeners, as one of them sees them. No method waits, and none raises."""

    def enter(self, phase: Phase) -> None:
        """Tell the others what this server is doing from now on."""

    def tell(self, connections: int) -> None:
        """Tell the others how many connections this server has open."""

    def beat(self, figures: Figures) -> None:
        """Tell that the event loop runs, and this server's counters."""

    def fewest(self) -> int | None:
        """Return the least number of connections that another server has; None if none of them can accept.

        Only servers count that are SERVING and whose heartbeat is fresh.
        """

    def others(self) -> int:
        """Return how many connections all other servers have open, those of stopped processes included."""
