"""What an engine counts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from wsframework.records import record, record_failure

__all__ = ["Counters", "Rated", "RedisStatistics"]

_RATED_SECONDS = 10.0
"""At most one record in this time: enough to see that the events continue."""


class Rated:
    """A record of what a stranger can cause a thousand times a second.

    It is written at once, and then every ten seconds with the number of events since.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._write: Callable[..., None] | None = None
        self._count = 0
        self._rests_until = float("-inf")

    def write(self, write: Callable[..., None]) -> None:
        """Write it, or count it; a record that stands for several is the last one, with their `count`."""
        self._write = write
        self._count += 1
        self.go_on()

    def go_on(self) -> None:
        """Write what was counted, if it is time."""
        now = self._clock()
        if self._write is None or now < self._rests_until:
            return
        write, self._write = self._write, None
        count, self._count = self._count, 0
        self._rests_until = now + _RATED_SECONDS
        write(**({} if count == 1 else {"count": count}))


class Counters:
    """What the parts of an engine count.

    Attributes:
        replayed: messages that came from a history.
        duplicates: messages that came again and were dropped.
        gaps: losses that were reported, by reason.
        lost: broadcasts that were given up.
        malformed: messages and values that no engine has written.
    """

    def __init__(self) -> None:
        self.malformed = 0
        self._malformed = Rated()
        self._failures = Rated()
        self.replayed = 0
        self.duplicates = 0
        self.gaps: dict[str, int] = {}
        self.lost = 0

    def gave_up(self) -> None:
        """Count a broadcast that was given up."""
        self.lost += 1

    def skipped(self, room: str, error: object, **fields: Any) -> None:
        """Count what no engine has written, and log it.

        Args:
            room: where it was found.
            error: what is wrong with it.
            fields: more of the record.
        """
        self.malformed += 1
        fields = {"room": room, **fields, "error": str(error)}
        self._malformed.write(lambda **more: record(logging.ERROR, "room.malformed", **fields, **more))

    def failed(self, error: BaseException) -> None:
        """Log what a program's function raised because of a message, which may be a stranger's."""
        self._failures.write(lambda **more: record_failure(error, **more))

    def go_on(self) -> None:
        """Log what was counted meanwhile."""
        self._malformed.go_on()
        self._failures.go_on()


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
        malformed: messages and values in Redis that no engine has written, and that were skipped.
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
    malformed: int
    rooms: int
