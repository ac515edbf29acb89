"""What an engine counts."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

__all__ = ["Counters", "RedisStatistics"]


class Counters:
    """What the parts of an engine count.

    Attributes:
        replayed: messages that came from a history.
        duplicates: messages that came again and were dropped.
        gaps: losses that were reported, by reason.
        lost: broadcasts that were given up.
    """

    def __init__(self) -> None:
        self.replayed = 0
        self.duplicates = 0
        self.gaps: dict[str, int] = {}
        self.lost = 0

    def gave_up(self) -> None:
        """Count a broadcast that was given up."""
        self.lost += 1


@attrs.frozen
class RedisStatistics:
    """An engine's counters at one moment.

    Attributes:
        up: whether it is connected.
        generation: how many connections it has had.
        queued: messages that Redis has not confirmed.
        queued_bytes: the memory that they take.
        queued_seconds: how long the oldest of them has waited; 0 if there is none.
        lag_seconds: how long messages take from `broadcast` or `publish` in this process until Redis has
            delivered them to it; smoothed like TCP's round-trip time (RFC 6298, section 2), so a change shows
            after some messages. None before the first message.
        lost: broadcasts that were given up.
        deduplicated: messages that were sent again after a lost connection, and were there already.
        replayed: messages that members got from a history, because the connection had been lost.
        duplicates: messages that arrived again and were dropped.
        gaps: losses that were reported to rooms, by reason: `epoch` (Redis lost the room), `regressed` and
            `forked` (it lost its newest messages in a failover), `trimmed` (the history was too short).
        rooms: rooms that have members here.
    """

    up: bool
    generation: int
    queued: int
    queued_bytes: int
    queued_seconds: float
    lag_seconds: float | None
    lost: int
    deduplicated: int
    replayed: int
    duplicates: int
    gaps: Mapping[str, int]
    rooms: int
