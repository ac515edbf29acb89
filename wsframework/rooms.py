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
room see all broadcasts in the same order. A member whose outbox has room takes the frame at once. For one
whose outbox is full the message waits in its connection's *backlog*, in one line with what its handler sends
and with the broadcasts of its other rooms. The line belongs to the connection and not to the membership, so
whoever leaves and comes back has the same line, the same account and the same order.

A broadcast that would make the backlog larger than the room's `SlowPolicy` allows, or that has waited for
longer, makes its member *slow*, and the policy says what then happens: to this member alone. The bytes are
looked at when a broadcast gets in line, the seconds by the backlog's timer.

Between a room and its members stands an `Engine`: publish, subscribe, presence. The default one delivers in
this process; one that spans processes can take its place without a change to any handler. An engine knows
rooms by name. Several `Room`s of one name are one to it: it has one `deliver` for all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from threading import get_ident
from typing import Any, Literal, Protocol
from weakref import WeakValueDictionary

import attrs
import trio

from wsframework.backlog import WaitingBroadcast
from wsframework.closes import CloseFrame
from wsframework.connection import Connection
from wsframework.errors import WrongThread
from wsframework.transport import BytesLike, EncodedMessage, encode

__all__ = ["Engine", "LocalEngine", "Member", "Room", "RoomStatistics", "Rooms", "SlowPolicy"]

_member_numbers = itertools.count(1)


@attrs.frozen(kw_only=True)
class SlowPolicy:
    """When a room's member counts as slow, and what happens to it then.

    What waits for one connection is counted together, from whatever rooms it comes; each room compares it
    with its own numbers.

    Attributes:
        action: `"close"` ends the member's connection with 1013; `"drop_newest"` skips the message that does
            not fit; `"drop_oldest"` makes room for it by forgetting the room's oldest that wait. Both drop
            what has waited for too long.
        max_bytes: payload bytes that may wait in a connection's backlog, besides `Limits.outbox_bytes`; a
            larger message may wait alone. 1 MiB.
        max_seconds: how long a message may wait, not counting time in which the server did not run. 10 s: a
            page that comes back from the background has caught up by then.
        max_messages: how many may wait. Each takes about 250 bytes besides its payload, so small ones would
            hold many times `max_bytes` without it, and empty ones any amount. 16,384; NATS clients have such
            a number beside their bytes too.
    """

    action: Literal["close", "drop_newest", "drop_oldest"] = attrs.field(
        default="close", validator=attrs.validators.in_(("close", "drop_newest", "drop_oldest"))
    )
    max_bytes: int = attrs.field(default=1024 * 1024, validator=attrs.validators.gt(0))
    max_seconds: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    max_messages: int = attrs.field(default=16 * 1024, validator=attrs.validators.gt(0))


@attrs.frozen
class RoomStatistics:
    """A room's counters at one moment.

    Attributes:
        members: members now, of this `Room`.
        broadcasts: messages that this `Room` published since it was made.
        deliveries: copies handed to members' outboxes or backlogs.
        dropped: copies that a slow member did not get, or that it no longer got when it had left.
        closed: connections closed because they were slow.
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
    its own. It calls `deliver` in the thread of the server. When `subscribe` or `enter` raises, the member
    has not come, and the engine has kept nothing of it.
    """

    def subscribe(self, room: str, deliver: Deliver) -> None:
        """The room has its first member here: deliver what is published to it.

        It is not called again for that name before `unsubscribe`, however many `Room`s have it.
        """

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


class _Subscription:
    """What an engine delivers to: all `Room`s of one name that have members here."""

    __slots__ = ("engine", "name", "rooms", "thread")

    def __init__(self, engine: Engine, name: str, thread: int) -> None:
        self.engine = engine
        self.name = name
        self.thread = thread
        self.rooms: tuple[Room, ...] = ()

    def deliver(self, message: EncodedMessage, exclude: Collection[object]) -> int:
        if get_ident() != self.thread:
            raise WrongThread("room.broadcast")
        rooms = self.rooms
        if len(rooms) == 1:
            return rooms[0]._deliver(message, exclude)
        return sum([room._deliver(message, exclude) for room in rooms])


_subscriptions: dict[tuple[int, str], _Subscription] = {}
"""By the engine's id and the room's name, as long as there are members. Engines need not be hashable, and
each entry holds its engine, so no other one can have its id."""


class Member:
    """One connection's membership of one room; what `async with room.join(ws)` gives.

    Attributes:
        ws: the member's connection.
        endpoint: its endpoint, for the room.
        room: the room.
        id: unique among the members of this process's rooms.
        dropped: messages this member did not get because it was slow.
    """

    __slots__ = ("_data", "dropped", "endpoint", "id", "room", "ws")

    def __init__(self, room: Room, ws: Connection, data: Any) -> None:
        self.room = room
        self.ws = ws
        self.endpoint = ws.endpoint
        self.id = next(_member_numbers)
        self.dropped = 0
        self._data = data

    def __repr__(self) -> str:
        return f"<Member {self.id} of {self.room.name!r}: {self.ws!r}>"

    async def __aenter__(self) -> Member:
        self.room._enter(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.room._leave(self)

    @property
    def data(self) -> Any:
        """What the program wants others to know of this member: presence. Set it to change it.

        Setting it raises `WrongThread` in another thread than the server's.
        """
        return self._data

    @data.setter
    def data(self, data: Any) -> None:
        if get_ident() != self.ws.endpoint.thread:
            raise WrongThread("member.data = …")
        self.room._update(self, data)
        self._data = data

    @property
    def backlog_bytes(self) -> int:
        """Payload bytes of broadcasts that wait for room in the connection's outbox, from all its rooms."""
        waiting = self.ws.endpoint.waiting
        return 0 if waiting is None else waiting.bytes

    def _take(self, message: EncodedMessage, size: int, due: float) -> bool:
        """Take a broadcast for which the outbox has no room: into the backlog, or not at all."""
        endpoint, room = self.endpoint, self.room
        policy = room.slow
        waiting = endpoint.waiting
        if waiting is not None and waiting.is_full(size, policy.max_bytes, policy.max_messages):
            waiting.offer()
            if not self._make_place(size, policy):
                return False
            # That may have moved the whole line into the outbox.
            if endpoint.offer(message, size):
                return True
        if endpoint.closed is not None:
            return False
        endpoint.open_backlog().add_broadcast(WaitingBroadcast(self, message, size, due), policy.max_seconds)
        return True

    def _make_place(self, size: int, policy: SlowPolicy) -> bool:
        """Do what the policy says if there is no place in line; return whether there is one then."""
        endpoint, room = self.endpoint, self.room
        waiting = endpoint.waiting
        limits = size, policy.max_bytes, policy.max_messages
        if waiting is None or not waiting.is_full(*limits):
            return True
        if policy.action == "close":
            room._close(self)
            return False
        if policy.action == "drop_newest" or not waiting.can_make_place(room, *limits):
            self.drop()
            return False
        while waiting.is_full(*limits):
            waiting.remove_oldest(room).member.drop()
        endpoint.made_room()
        return True

    def overdue(self) -> None:
        """Do what the room's policy says about its oldest broadcast, which has waited for too long."""
        room, waiting = self.room, self.endpoint.waiting
        if room.slow.action == "close":
            room._close(self)
        elif waiting is not None:
            waiting.remove_oldest(room)
            self.drop()

    def drop(self) -> None:
        """Count a broadcast that this member does not get."""
        self.dropped += 1
        self.room._dropped += 1


class Room:
    """A set of connections that get the same broadcasts.

    All methods that change anything raise `WrongThread` in another thread than the server's. A room may be
    made in any thread: it belongs to the thread of its members, while it has some.

    Several rooms of one name on one engine, in one process or in many, are one to those who are in them: a
    broadcast reaches the members of all, and all are present. `members` and the counters are of each `Room`.

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
        # An engine may have a length, and be empty.
        self._engine = LocalEngine() if engine is None else engine
        self._members: dict[Connection, Member] = {}
        self._subscription: _Subscription | None = None
        self._broadcasts = 0
        self._deliveries = 0
        self._dropped = 0
        self._closed = 0

    def __repr__(self) -> str:
        return f"<Room {self.name!r}: {len(self._members)} members>"

    @property
    def members(self) -> tuple[Member, ...]:
        """Those who joined this `Room`, in the order in which they came."""
        return tuple(self._members.values())

    def present(self) -> list[Any]:
        """Return the data of all members, wherever they are, in the order in which they came."""
        return self._engine.present(self.name)

    def statistics(self) -> RoomStatistics:
        """Return the room's counters."""
        return RoomStatistics(
            len(self._members), self._broadcasts, self._deliveries, self._dropped, self._closed
        )

    def join(self, ws: Connection, data: Any = None) -> AbstractAsyncContextManager[Member]:
        """Be a member for as long as the `async with` block lasts, however it ends.

        Broadcasts that still wait for room when it ends are delivered nevertheless, in their order, unless
        they have waited for longer than the room's policy allows.

        Args:
            ws: the connection that gets the room's broadcasts.
            data: what others may know of this member, see `Member.data`.

        Raises:
            RuntimeError: the connection is already a member.
            WrongThread: this is not the connection's thread, or not that of the members there are.

        Cancellation:
            Neither joining nor leaving waits for anything, so neither can be cancelled.
        """
        return Member(self, ws, data)

    # Ctrl-C is held back here: a membership changes whole or not at all, and a broadcast reaches everybody.
    @trio.lowlevel.enable_ki_protection
    def _enter(self, member: Member) -> None:
        ws, engine, thread = member.ws, self._engine, get_ident()
        subscription = self._subscribed()
        if thread != ws.endpoint.thread or (subscription is not None and thread != subscription.thread):
            raise WrongThread("room.join")
        if ws in self._members or (
            subscription is not None and any(ws in room._members for room in subscription.rooms)
        ):
            raise RuntimeError(f"{ws!r} is already a member of the room {self.name!r}")
        if subscription is None:
            subscription = _Subscription(engine, self.name, ws.endpoint.thread)
            engine.subscribe(subscription.name, subscription.deliver)
            _subscriptions[id(engine), subscription.name] = subscription
        if self._subscription is None:
            self._subscription = subscription
            subscription.rooms += (self,)
        self._members[ws] = member
        try:
            engine.enter(subscription.name, member.id, member.data)
        except BaseException:
            self._forget(ws, subscription)
            raise

    @trio.lowlevel.enable_ki_protection
    def _leave(self, member: Member) -> None:
        ws, subscription = member.ws, self._subscription
        if get_ident() != ws.endpoint.thread:
            raise WrongThread("leaving a room")
        if subscription is None or self._members.get(ws) is not member:
            return
        try:
            self._engine.leave(subscription.name, member.id)
        finally:
            self._forget(ws, subscription)

    def _update(self, member: Member, data: Any) -> None:
        # One that has left stays so: a task of its may outlive the membership and know nothing of its end.
        if self._subscription is not None and self._members.get(member.ws) is member:
            self._engine.enter(self._subscription.name, member.id, data)

    def _forget(self, ws: Connection, subscription: _Subscription) -> None:
        del self._members[ws]
        if not self._members:
            self._subscription = None
            subscription.rooms = tuple(room for room in subscription.rooms if room is not self)
            if not subscription.rooms:
                del _subscriptions[id(self._engine), subscription.name]
                self._engine.unsubscribe(subscription.name)

    def _subscribed(self) -> _Subscription | None:
        """Return what the engine delivers to for rooms of this name, if one of them has members."""
        return self._subscription or _subscriptions.get((id(self._engine), self.name))

    @trio.lowlevel.enable_ki_protection
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
            TypeError: the message is neither `str` nor bytes-like, or what is excluded is no member.
            UnicodeEncodeError: the text holds a lone surrogate.
            WrongThread: this is not the members' thread.
        """
        subscription = self._subscription or self._subscribed()
        if subscription is not None and get_ident() != subscription.thread:
            raise WrongThread("room.broadcast")
        encoded = encode(message)
        reached = self._engine.publish(self.name, encoded, _connections(exclude))
        self._broadcasts += 1
        return reached

    def _deliver(self, message: EncodedMessage, exclude: Collection[object]) -> int:
        reached = 0
        size = len(message.payload)
        refused: list[Member] = []
        # A copy would cost as much as the deliveries. Nothing in this loop can change who is a member; what
        # could, such as closing one, comes after it.
        for ws, member in self._members.items():
            if exclude and ws in exclude:
                continue
            # Nearly always the outbox has room.
            if member.endpoint.offer(message, size):
                reached += 1
            else:
                refused.append(member)
        if refused:
            due = trio.current_time() + self.slow.max_seconds
            for member in refused:
                if member._take(message, size, due):
                    reached += 1
        self._deliveries += reached
        return reached

    def _close(self, member: Member) -> None:
        self._closed += 1
        member.endpoint.start_close(CloseFrame(1013, "too slow for this room"), "a slow member of a room")


def _connections(
    exclude: Connection | Member | Iterable[Connection | Member],
) -> Collection[Connection]:
    if exclude == ():
        return ()
    if isinstance(exclude, Connection):
        return (exclude,)
    if isinstance(exclude, Member):
        return (exclude.ws,)
    connections = set()
    for entry in exclude:
        if not isinstance(entry, Connection | Member):
            raise TypeError(f"exclude takes connections and members, not {type(entry).__name__}")
        connections.add(entry.ws if isinstance(entry, Member) else entry)
    return connections


class Rooms:
    """Rooms by name: made on first use, gone with the last member.

    Args:
        slow: what happens to members that do not keep up, in every room.
        engine: what carries the rooms; a `LocalEngine` by default.
    """

    def __init__(self, *, slow: SlowPolicy | None = None, engine: Engine | None = None) -> None:
        self._slow = slow or SlowPolicy()
        self._engine = LocalEngine() if engine is None else engine
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
