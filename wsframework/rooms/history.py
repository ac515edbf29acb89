"""The messages that a `LocalEngine` keeps, with bounds for each room and for all rooms together.

Theory of operation
-------------------
All messages that are kept have numbers of one sequence, whatever their room. So a position is one number, and
a room that has no messages left needs no memory. The messages after a number in a room are complete if no
newer one was forgotten there: `_Log.forgotten` is the newest number that the room has forgotten, and
`_forgotten` the newest that any room without messages has forgotten. For most rooms the second is too large,
so at worst an answer that is complete counts as "not complete".
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice
from threading import Lock

from wsframework.rooms.engine import History, Position, Replay, RoomMessage

__all__ = ["Histories"]

_LONGEST_NUMBER = 20
"""Digits of the number in a position: enough for 2**64 messages."""

_MOST_AT_ONCE = 1000
"""Messages of one `Replay`: the default of `History.messages`, and a millisecond's work."""


class _Log:
    """The messages that are kept of one room."""

    __slots__ = ("bytes", "entries", "forgotten", "room", "seconds")

    def __init__(self, room: str, forgotten: int, seconds: float) -> None:
        self.room = room
        self.entries: deque[tuple[int, float, RoomMessage]] = deque()
        self.bytes = 0
        self.forgotten = forgotten
        self.seconds = seconds

    def count_after(self, number: int) -> int:
        """Return how many messages are newer than this number, in time linear in the result."""
        count = 0
        for kept, _, _ in reversed(self.entries):
            if kept <= number:
                break
            count += 1
        return count


class Histories:
    """Messages of many rooms.

    Its methods may be called from any thread.

    Args:
        epoch: a random text that no other object has; positions begin with it.
        total: the bounds over all rooms together.
        clock: returns monotonic seconds.
    """

    def __init__(self, epoch: str, total: History, clock: Callable[[], float] = time.monotonic) -> None:
        self._epoch = epoch
        self._total = total
        self._clock = clock
        self._lock = Lock()
        self._logs: dict[str, _Log] = {}
        # Where each message is, from the oldest to the newest.
        self._order: OrderedDict[int, _Log] = OrderedDict()
        self._bytes = 0
        self._newest = 0
        self._forgotten = 0

    @property
    def messages(self) -> int:
        """How many messages are kept."""
        return len(self._order)

    @property
    def bytes(self) -> int:
        """Their payload bytes."""
        return self._bytes

    @property
    def rooms(self) -> int:
        """How many rooms have messages here."""
        return len(self._logs)

    def __contains__(self, room: str) -> bool:
        """Whether messages of the room are kept."""
        return room in self._logs

    def position(self) -> Position:
        """Return the position of the newest message."""
        return f"{self._epoch}.{self._newest}"

    def add(self, room: str, message: RoomMessage, history: History | None) -> Position:
        """Give a message its position, and keep it if the room has a history."""
        with self._lock:
            self._newest = number = self._newest + 1
            now = self._clock()
            log = self._logs.get(room)
            if history is not None:
                if log is None:
                    log = self._logs[room] = _Log(room, self._forgotten, history.seconds)
                log.seconds = history.seconds
                log.entries.append((number, now, message))
                log.bytes += len(message.payload)
                self._order[number] = log
                self._bytes += len(message.payload)
                while len(log.entries) > history.messages or log.bytes > history.bytes:
                    self._forget(log)
                self._forget_older(log, now - history.seconds)
            elif log is not None:
                # Of two rooms of this name, only one keeps its messages, so its history now has a gap.
                while log.entries:
                    self._forget(log)
                log.forgotten = number
            self._keep_within_total(now)
            if log is not None:
                self._drop_if_empty(log)
            return f"{self._epoch}.{number}"

    def replay(self, room: str, after: Position, history: History | None) -> Replay:
        """Return the messages after a position in a room."""
        with self._lock:
            position = self.position()
            log = self._logs.get(room)
            if log is not None:
                self._forget_older(log, self._clock() - log.seconds)
            number = self._number(after)
            forgotten = self._forgotten if log is None else log.forgotten
            known = log is not None or history is not None
            complete = known and number is not None and forgotten <= number <= self._newest
            messages: list[tuple[Position, RoomMessage]] = []
            more = False
            if complete and log is not None and number is not None:
                following = log.count_after(number)
                more = following > _MOST_AT_ONCE
                start = len(log.entries) - following
                messages = [
                    (f"{self._epoch}.{kept}", message)
                    for kept, _, message in islice(log.entries, start, start + _MOST_AT_ONCE)
                ]
            if log is not None:
                self._drop_if_empty(log)
            return Replay(messages, messages[-1][0] if more else position, complete, more)

    def _number(self, position: Position) -> int | None:
        epoch, _, number = position.rpartition(".")
        if epoch != self._epoch or not (number.isascii() and number.isdigit()):
            return None
        return int(number) if len(number) <= _LONGEST_NUMBER else None

    def _keep_within_total(self, now: float) -> None:
        total, order = self._total, self._order
        while order:
            log = next(iter(order.values()))
            _, kept_at, _ = log.entries[0]
            if (
                len(order) <= total.messages
                and self._bytes <= total.bytes
                and kept_at >= now - min(total.seconds, log.seconds)
            ):
                return
            self._forget(log)
            self._drop_if_empty(log)

    def _forget_older(self, log: _Log, moment: float) -> None:
        while log.entries and log.entries[0][1] < moment:
            self._forget(log)

    def _forget(self, log: _Log) -> None:
        """Forget the oldest message of a room."""
        number, _, message = log.entries.popleft()
        log.bytes -= len(message.payload)
        log.forgotten = number
        del self._order[number]
        self._bytes -= len(message.payload)

    def _drop_if_empty(self, log: _Log) -> None:
        if not log.entries:
            self._forgotten = max(self._forgotten, log.forgotten)
            self._logs.pop(log.room, None)
