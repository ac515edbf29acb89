"""What waits for room in one connection's outbox: its tasks' sends and its rooms' broadcasts, in one line.

Theory of operation
-------------------
A connection has one line and one account for all the rooms that it enters, leaves and enters again. A message
goes to the end of the line when the outbox has no room for it, or when others wait already; the connection
commits from the front. So the order of the calls is the order on the wire.

What is in line can still be taken out of it without tearing a frame. A send leaves when it is cancelled, a
broadcast when its room's policy drops it. What leaves from the middle stays as an empty entry until it comes
to the front, or until most of the line is empty.

Broadcasts are counted, in bytes and in messages, from the moment they get in line until they leave it. Each
is *overdue* at a moment of its own. One timer for each connection covers the earliest of those moments. The
first broadcast starts it, and an empty line lets it run out, so that a line which fills and empties many
times a second does not leave as many timers behind.

This module does not know the rooms' policies: the room decides, and takes its broadcasts out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Protocol

import trio
from trio.lowlevel import Task

from wsframework.closes import Closed
from wsframework.timers import Timer
from wsframework.transport import EncodedMessage, Transport

__all__ = ["Backlog", "Owner", "Recipient", "WaitingBroadcast", "WaitingSend"]

_EMPTY = -1
"""The size of an entry that has left the line."""

_EMPTY_ENTRIES = 64
"""With fewer empty entries the line is not tidied up."""

_JUDGE_SECONDS = 0.1
"""How often overdue broadcasts of one connection are looked for, after the first: once for many of them."""

_OFFER_SECONDS = 0.01
"""How often a socket that took nothing is asked whether it takes more, before a broadcast finds no place in
line. It is a system call, and a member that does not read must not cost one for every message."""


class Recipient(Protocol):
    """The recipient of a broadcast: a room's member."""

    @property
    def room(self) -> object:
        """The room that the broadcasts come from."""

    def drop(self) -> None:
        """Count a broadcast that was taken out of the line."""

    def overdue(self) -> None:
        """The oldest broadcast of the room has waited for too long: drop it, or close the connection."""


class Owner(Protocol):
    """The owner of a backlog: an `Endpoint`."""

    backlog: Backlog | None
    transport: Transport
    closed: Closed | None

    def made_room(self) -> None:
        """Commit what there is room for."""


class WaitingSend:
    """A message or ping of a task that waits until it is committed."""

    __slots__ = ("opcode", "payload", "size", "task")

    def __init__(self, task: Task, opcode: int, payload: bytes) -> None:
        self.task = task
        self.opcode = opcode
        self.payload = payload
        self.size = len(payload)


class WaitingBroadcast:
    """A room's message that waits for room in the outbox; no task waits with it."""

    __slots__ = ("due", "member", "message", "newer", "size")

    def __init__(self, member: Recipient, message: EncodedMessage, size: int, due: float) -> None:
        self.member = member
        self.message = message
        self.size = size
        self.due = due
        self.newer: WaitingBroadcast | None = None


class _Share:
    """The broadcasts of one room in a line: a chain, from the oldest to the newest."""

    __slots__ = ("bytes", "messages", "newest", "oldest")

    def __init__(self, first: WaitingBroadcast) -> None:
        self.oldest = self.newest = first
        self.bytes = 0
        self.messages = 0


class Backlog:
    """The line of one connection.

    Attributes:
        bytes: payload bytes of the broadcasts in line.
        messages: their number.
    """

    __slots__ = (
        "_line",
        "_live",
        "_moment",
        "_offered_at",
        "_owner",
        "_shares",
        "_timer",
        "bytes",
        "messages",
    )

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._line: deque[WaitingSend | WaitingBroadcast] = deque()
        self._live = 0
        self._shares: dict[object, _Share] = {}
        self._timer: Timer | None = None
        self._moment = math.inf
        self._offered_at = -math.inf
        self.bytes = 0
        self.messages = 0

    @property
    def senders(self) -> int:
        """How many tasks are in line."""
        return self._live - self.messages

    @property
    def is_timed(self) -> bool:
        """Whether its timer is running."""
        return self._timer is not None

    # In and out

    def first(self) -> WaitingSend | WaitingBroadcast | None:
        """Return what is next, or None when nothing is left."""
        line = self._line
        while line and line[0].size == _EMPTY:
            line.popleft()
        return line[0] if line else None

    def pop(self) -> None:
        """Take what `first` returned out of the line."""
        entry = self._line.popleft()
        self._live -= 1
        if type(entry) is WaitingBroadcast:
            self._uncount(entry)

    def add_send(self, entry: WaitingSend) -> None:
        """Put a send at the end."""
        self._line.append(entry)
        self._live += 1

    def remove_send(self, entry: WaitingSend) -> None:
        """Take a send out of any place."""
        entry.size = _EMPTY
        entry.payload = b""
        self._live -= 1
        self._tidy()

    def add_broadcast(self, entry: WaitingBroadcast, seconds: float) -> None:
        """Put a broadcast at the end, `seconds` before its `due`."""
        self._line.append(entry)
        self._live += 1
        room = entry.member.room
        share = self._shares.get(room)
        if share is None:
            share = self._shares[room] = _Share(entry)
        else:
            share.newest.newer = entry
            share.newest = entry
        share.bytes += entry.size
        share.messages += 1
        self.bytes += entry.size
        self.messages += 1
        if entry.due < self._moment:
            self._arm(seconds, entry.due)

    def remove_oldest(self, room: object) -> WaitingBroadcast:
        """Take the oldest broadcast of a room out of any place; there must be one."""
        entry = self._shares[room].oldest
        self._uncount(entry)
        entry.size = _EMPTY
        self._live -= 1
        self._tidy()
        return entry

    def _uncount(self, entry: WaitingBroadcast) -> None:
        room = entry.member.room
        share = self._shares[room]
        assert share.oldest is entry, "what leaves the line is the oldest of its room"
        if entry.newer is None:
            del self._shares[room]
        else:
            share.oldest = entry.newer
        share.bytes -= entry.size
        share.messages -= 1
        self.bytes -= entry.size
        self.messages -= 1

    def _tidy(self) -> None:
        if len(self._line) > 2 * self._live + _EMPTY_ENTRIES:
            self._line = deque(entry for entry in self._line if entry.size != _EMPTY)

    # Judging

    def is_full(self, size: int, max_bytes: int, max_messages: int) -> bool:
        """Whether a broadcast of `size` bytes is too much for those that are in line already."""
        return self.messages > 0 and (self.bytes + size > max_bytes or self.messages >= max_messages)

    def can_make_place(self, room: object, size: int, max_bytes: int, max_messages: int) -> bool:
        """Whether it would fit if all that the room has in line were taken out."""
        share = self._shares.get(room)
        bytes_, messages = (0, 0) if share is None else (share.bytes, share.messages)
        others = self.messages - messages
        return not others or (self.bytes - bytes_ + size <= max_bytes and others < max_messages)

    def offer(self) -> None:
        """Let the socket take what it can before a member counts as slow: it may have had no chance yet."""
        now = trio.current_time()
        if now - self._offered_at < _OFFER_SECONDS:
            return
        # Each time it takes at most one full outbox, into which the line then moves up.
        while self.messages:
            before = self.messages
            self._owner.transport.flush_now()
            if self.messages == before:
                self._offered_at = now
                return

    def _arm(self, seconds: float, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._moment = moment
        self._timer = self._owner.transport.after(seconds, self._judge)

    def _judge(self) -> None:
        """Ask the rooms to decide about what is overdue."""
        # Not the time that it is now: time in which the server did not run is forgiven, and counts for
        # none of those that wait.
        moment, self._moment, self._timer = self._moment, math.inf, None
        owner = self._owner
        owner.transport.flush_now()
        for share in list(self._shares.values()):
            while share.messages and share.oldest.due <= moment:
                share.oldest.member.overdue()
                if owner.closed is not None:
                    return
        owner.made_room()  # for what is behind a broadcast that was too large for the room there is
        if self._shares:
            earliest = min(share.oldest.due for share in self._shares.values())
            # `earliest` is on a clock that shows `moment` now.
            if earliest - moment < _JUDGE_SECONDS:
                earliest = moment + _JUDGE_SECONDS
            if earliest < math.inf:
                self._arm(earliest - moment, earliest)
        elif not self._live and owner.backlog is self:
            owner.backlog = None

    def end(self) -> Iterator[Task]:
        """Empty the line of a connection that has ended, and return the tasks that were in it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._moment = math.inf
        line, self._line = self._line, deque()
        self._shares.clear()
        self._live = self.bytes = self.messages = 0
        return (entry.task for entry in line if type(entry) is WaitingSend and entry.size != _EMPTY)
