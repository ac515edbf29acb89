"""Rooms: membership as a scope, and broadcasts that wait for nobody.

    lobby = Room("lobby")

    @app.websocket("/lobby")
    async def talk(ws: Connection) -> None:
        async with lobby.join(ws):
            async for message in ws:
                lobby.broadcast(message, exclude=ws)

Theory of operation
-------------------
A broadcast encodes its message once and offers it to each member in one synchronous pass, so all members of a
room see all broadcasts in the same order. A member whose outbox has room takes the frame at once. One whose
outbox is full keeps the message in a *backlog* of its own, which its connection empties as the socket takes
bytes; what is in no outbox yet can still be dropped without tearing anything. A backlog that exceeds the
room's `SlowPolicy`, in bytes or in seconds, makes its member *slow*, and the policy says what then happens:
to this member alone.

Between a room and its members stands an `Engine`: publish, subscribe, presence. The default one delivers in
this process; one that spans processes can take its place without a change to any handler.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol
from weakref import WeakValueDictionary

import attrs
import trio

from wsframework.connection import Connection
from wsframework.errors import CloseFrame
from wsframework.transport import BytesLike, EncodedMessage, encode

__all__ = ["Engine", "LocalEngine", "Member", "Room", "RoomStatistics", "Rooms", "SlowPolicy"]

_member_numbers = itertools.count(1)


@attrs.frozen(kw_only=True)
class SlowPolicy:
    """When a room's member counts as slow, and what happens to it then.

    Attributes:
        action: `"close"` ends the member's connection with 1013; `"drop_newest"` skips the message that does
            not fit; `"drop_oldest"` makes room for it by forgetting the oldest that wait.
        max_bytes: payload bytes that may wait in a member's backlog, besides `Limits.outbox_bytes`. 1 MiB.
        max_seconds: how long the oldest of them may wait. 10 s: a page that comes back from the background
            has caught up by then.
    """

    action: Literal["close", "drop_newest", "drop_oldest"] = attrs.field(
        default="close", validator=attrs.validators.in_(("close", "drop_newest", "drop_oldest"))
    )
    max_bytes: int = attrs.field(default=1024 * 1024, validator=attrs.validators.gt(0))
    max_seconds: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))


@attrs.frozen
class RoomStatistics:
    """A room's counters at one moment.

    Attributes:
        members: members now.
        broadcasts: messages published since the room was made.
        deliveries: copies handed to members' outboxes or backlogs.
        dropped: copies that a slow member did not get.
        closed: members closed because they were slow.
    """

    members: int
    broadcasts: int
    deliveries: int
    dropped: int
    closed: int


Deliver = Callable[[EncodedMessage, Collection[object]], int]
"""Hand a message to a room's members in this process, but for the excluded; how many it reached."""


class Engine(Protocol):
    """What carries rooms: here in one process, elsewhere perhaps through a broker.

    No method waits. An engine that reaches other processes queues what it sends them, bounded, in tasks of
    its own.
    """

    def subscribe(self, room: str, deliver: Deliver) -> None:
        """The room has its first member here: deliver what is published to it."""

    def unsubscribe(self, room: str) -> None:
        """The room's last member here has left."""

    def publish(self, room: str, message: EncodedMessage, exclude: Collection[object]) -> int:
        """Deliver to all members everywhere, in one order for each publisher; how many it reached here."""

    def enter(self, room: str, member: int, data: Any) -> None:
        """A member has come, or its data have changed."""

    def leave(self, room: str, member: int) -> None:
        """A member has gone."""

    def present(self, room: str) -> list[Any]:
        """Return the data of all members everywhere, in the order in which they came."""


class LocalEngine:
    """The engine of a single process."""

    def __init__(self) -> None:
        self._deliver: dict[str, Deliver] = {}
        self._present: dict[str, dict[int, Any]] = {}

    def subscribe(self, room: str, deliver: Deliver) -> None:
        """Remember where the room's members are."""
        self._deliver[room] = deliver

    def unsubscribe(self, room: str) -> None:
        """Forget the room."""
        self._deliver.pop(room, None)
        self._present.pop(room, None)

    def publish(self, room: str, message: EncodedMessage, exclude: Collection[object]) -> int:
        """Deliver at once."""
        deliver = self._deliver.get(room)
        return 0 if deliver is None else deliver(message, exclude)

    def enter(self, room: str, member: int, data: Any) -> None:
        """Remember the member's data."""
        self._present.setdefault(room, {})[member] = data

    def leave(self, room: str, member: int) -> None:
        """Forget them."""
        self._present.get(room, {}).pop(member, None)

    def present(self, room: str) -> list[Any]:
        """Return the data of all members."""
        return list(self._present.get(room, {}).values())


class Member:
    """One connection's membership of one room; what `async with room.join(ws)` gives.

    Attributes:
        ws: the member's connection.
        room: the room.
        id: unique among the members of this process's rooms.
        dropped: messages this member did not get because it was slow.
    """

    __slots__ = ("_backlog", "_backlog_bytes", "_data", "dropped", "id", "room", "ws")

    def __init__(self, room: Room, ws: Connection, data: Any) -> None:
        self.room = room
        self.ws = ws
        self.id = next(_member_numbers)
        self.dropped = 0
        self._data = data
        self._backlog: deque[tuple[float, EncodedMessage]] | None = None
        self._backlog_bytes = 0

    def __repr__(self) -> str:
        return f"<Member {self.id} of {self.room.name!r}: {self.ws!r}>"

    @property
    def data(self) -> Any:
        """What the program wants others to know of this member: presence. Set it to change it."""
        return self._data

    @data.setter
    def data(self, data: Any) -> None:
        self._data = data
        # One that has left stays so: a task of its may outlive the membership and know nothing of its end.
        if self.room._members.get(self.ws) is self:
            self.room._engine.enter(self.room.name, self.id, data)

    @property
    def backlog_bytes(self) -> int:
        """Payload bytes that wait for room in this member's outbox."""
        return self._backlog_bytes

    def _take(self, message: EncodedMessage) -> bool:
        """Take a broadcast for which the outbox has no room: into the backlog, or not at all."""
        ws = self.ws
        if ws._closed is not None:
            return False
        if self._backlog is None:
            self._backlog = deque()
            ws._add_backlog(self)
        return self._keep(message, self._backlog)

    def _keep(self, message: EncodedMessage, backlog: deque[tuple[float, EncodedMessage]]) -> bool:
        policy = self.room.slow
        now = trio.current_time()
        size = len(message.payload)
        while backlog and self._is_slow(now, size):
            if policy.action == "drop_newest":
                self._drop()
                return False
            if policy.action == "close":
                self.room._closed += 1
                self.ws._start_close(CloseFrame(1013, "too slow for this room"), "a slow member of a room")
                self._backlog = None
                self._backlog_bytes = 0
                return False
            _, oldest = backlog.popleft()
            self._backlog_bytes -= len(oldest.payload)
            self._drop()
        backlog.append((now, message))
        self._backlog_bytes += size
        return True

    def _is_slow(self, now: float, size: int) -> bool:
        assert self._backlog
        policy = self.room.slow
        return self._backlog_bytes + size > policy.max_bytes or now - self._backlog[0][0] > policy.max_seconds

    def _drop(self) -> None:
        self.dropped += 1
        self.room._dropped += 1

    def _made_room(self) -> bool:
        """Move messages from the backlog to the outbox; True when none is left."""
        backlog = self._backlog
        while backlog:
            if not self.ws._offer(backlog[0][1], len(backlog[0][1].payload)):
                return False
            _, message = backlog.popleft()
            self._backlog_bytes -= len(message.payload)
        self._backlog = None
        self._backlog_bytes = 0
        return True


class Room:
    """A set of connections that get the same broadcasts.

    Args:
        name: what an engine knows the room by.
        slow: what happens to members that do not keep up.
        engine: what carries the room; a `LocalEngine` of its own by default.

    Attributes:
        name: as given.
        slow: as given.
    """

    def __init__(
        self, name: str = "", *, slow: SlowPolicy | None = None, engine: Engine | None = None
    ) -> None:
        self.name = name
        self.slow = slow or SlowPolicy()
        self._engine = engine or LocalEngine()
        self._members: dict[Connection, Member] = {}
        self._broadcasts = 0
        self._deliveries = 0
        self._dropped = 0
        self._closed = 0

    def __repr__(self) -> str:
        return f"<Room {self.name!r}: {len(self._members)} members>"

    @property
    def members(self) -> tuple[Member, ...]:
        """The members in this process, in the order in which they came."""
        return tuple(self._members.values())

    def present(self) -> list[Any]:
        """Return the data of all members, wherever they are, in the order in which they came."""
        return self._engine.present(self.name)

    def statistics(self) -> RoomStatistics:
        """Return the room's counters."""
        return RoomStatistics(
            len(self._members), self._broadcasts, self._deliveries, self._dropped, self._closed
        )

    @asynccontextmanager
    async def join(self, ws: Connection, data: Any = None) -> AsyncIterator[Member]:
        """Be a member for as long as the `async with` block lasts, however it ends.

        Args:
            ws: the connection that gets the room's broadcasts.
            data: what others may know of this member, see `Member.data`.

        Raises:
            RuntimeError: the connection is already a member.

        Cancellation:
            Leaving waits for nothing, so it cannot be cancelled.
        """
        if ws in self._members:
            raise RuntimeError(f"{ws!r} is already a member of the room {self.name!r}")
        member = Member(self, ws, data)
        if not self._members:
            self._engine.subscribe(self.name, self._deliver)
        self._members[ws] = member
        self._engine.enter(self.name, member.id, data)
        try:
            yield member
        finally:
            del self._members[ws]
            self._engine.leave(self.name, member.id)
            if not self._members:
                self._engine.unsubscribe(self.name)

    def broadcast(
        self, message: str | BytesLike, *, exclude: Connection | Member | Iterable[Connection | Member] = ()
    ) -> int:
        """Send one message to every member, waiting for nobody.

        It is encoded once, and is in every member's outbox or backlog when this returns; so what one task
        broadcasts, every member gets in the same order.

        Args:
            message: `str` for Text, bytes-like for Binary.
            exclude: members, or their connections, that shall not get it: the sender itself, say.

        Returns:
            How many members of this process it reached. Those that are closing or too slow are not counted.

        Raises:
            TypeError: the message is neither `str` nor bytes-like.
            UnicodeEncodeError: the text holds a lone surrogate.
        """
        encoded = encode(message)
        self._broadcasts += 1
        return self._engine.publish(self.name, encoded, _connections(exclude))

    def _deliver(self, message: EncodedMessage, exclude: Collection[object]) -> int:
        reached = 0
        size = len(message.payload)
        # A copy would cost as much as the deliveries: closing a slow member does not touch the dict, because
        # membership ends in the member's own task.
        for ws, member in self._members.items():
            if exclude and ws in exclude:
                continue
            # Nearly always the outbox has room; `_take` deals with the rest.
            if (member._backlog is None and ws._offer(message, size)) or member._take(message):
                reached += 1
        self._deliveries += reached
        return reached


def _connections(
    exclude: Connection | Member | Iterable[Connection | Member],
) -> Collection[Connection]:
    if isinstance(exclude, Connection):
        return (exclude,)
    if isinstance(exclude, Member):
        return (exclude.ws,)
    return {entry.ws if isinstance(entry, Member) else entry for entry in exclude}


class Rooms:
    """Rooms by name: made on first use, gone with the last member.

    Args:
        slow: what happens to members that do not keep up, in every room.
        engine: what carries the rooms; a `LocalEngine` by default.
    """

    def __init__(self, *, slow: SlowPolicy | None = None, engine: Engine | None = None) -> None:
        self._slow = slow or SlowPolicy()
        self._engine = engine or LocalEngine()
        # A room lives as long as somebody holds it, which its members' scopes do.
        self._rooms: WeakValueDictionary[str, Room] = WeakValueDictionary()

    def __getitem__(self, name: str) -> Room:
        """Return the room of that name, made now if there is none."""
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = Room(name, slow=self._slow, engine=self._engine)
        return room

    def __contains__(self, name: object) -> bool:
        """Whether a room of that name has members."""
        room = self._rooms.get(name) if isinstance(name, str) else None
        return room is not None and bool(room._members)

    def __iter__(self) -> Iterator[Room]:
        """Iterate over the rooms that have members."""
        return iter([room for room in self._rooms.values() if room._members])

    def __len__(self) -> int:
        """Return how many rooms have members."""
        return sum(1 for _ in self)
