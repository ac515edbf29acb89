"""A room: its members, and broadcasts that do not wait.

Members come and go through `entrance`. A message goes from `Room.broadcast` to the engine, and from there to
the members through `seats`.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import AbstractAsyncContextManager
from threading import get_ident
from typing import Any, TypeAlias, cast

import trio

from wsframework.connection import Connection
from wsframework.errors import WrongThread
from wsframework.rooms.addresses import address_of_room, address_of_user
from wsframework.rooms.closing import message_that_closes
from wsframework.rooms.engine import Engine, History, Position, RoomMessage, check_key
from wsframework.rooms.entrance import Entrance
from wsframework.rooms.keys import member_id
from wsframework.rooms.local import LocalEngine
from wsframework.rooms.policy import RoomStatistics, SlowPolicy
from wsframework.rooms.presence import copy_of_json
from wsframework.rooms.roster import PresenceChange
from wsframework.rooms.seats import GapPolicy, Seat, Seats, Stamp, connections_of
from wsframework.transport import BytesLike

__all__ = ["Member", "Room"]

_member_numbers = itertools.count(1)


class Member(Seat):
    """One connection's membership of one room, from `room.join` or `room.enter`.

    Attributes:
        ws: the member's connection.
        room: the room.
        id: unique among the members of all rooms of the engine, in all processes.
        dropped: messages that this member did not get because it was slow.
        missed: True if messages after the position `after` are lost to this member, for example because the
            room no longer keeps them; it then got none of them, or only the first ones. False if it got all
            of them. None without `after`.
    """

    __slots__ = ("_after", "_data", "missed")

    room: Room

    def __init__(
        self,
        room: Room,
        seats: Seats,
        ws: Connection,
        data: Any,
        key: str | int | None,
        after: Position | None,
    ) -> None:
        super().__init__(room, seats, ws, member_id(room.engine.node, next(_member_numbers), key))
        self.missed: bool | None = None
        self._data = copy_of_json(data)
        # It may come from a client and be any JSON.
        self._after = None if after is None else str(after)

    def __repr__(self) -> str:
        return f"<Member {self.id} of {self.room.name!r}: {self.ws!r}>"

    async def __aenter__(self) -> Member:
        await self._enter(bound=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    async def _enter(self, *, bound: bool) -> None:
        self.missed = await self.room._entrance.join(self, self._data, self._after, bound=bound)

    def leave(self) -> None:
        """End the membership now; nothing happens if it has ended.

        Broadcasts that wait for room in the connection's outbox are still delivered.

        Raises:
            WrongThread: this is not the connection's thread.
        """
        self.room._entrance.leave(self)

    @property
    def data(self) -> Any:
        """What others may know of this member (presence), as JSON. Assign to it to change it.

        It is a copy: assign it again after changing a list or dict. An assignment raises `TypeError` for
        anything but JSON, and `WrongThread` in a thread other than the server's.
        """
        return self._data

    @data.setter
    def data(self, data: Any) -> None:
        if get_ident() != self.endpoint.thread:
            raise WrongThread("member.data = …")
        data = copy_of_json(data)
        # A member that has left does not enter again: one of its tasks may outlive the membership.
        if self.room._entrance.is_member(self):
            self.room.engine.enter(self.room._address, self.id, data)
        self._data = data

    @property
    def position(self) -> Position | None:
        """The position of the newest message that was delivered to this member, or dropped.

        `join(ws, after=position)` continues there. None before joining and after leaving, and while the
        engine does not know it yet.
        """
        room = self.room
        return room.engine.position(room._address) if room._entrance.is_member(self) else None

    @property
    def backlog_bytes(self) -> int:
        """Payload bytes of broadcasts that wait for room in the connection's outbox, from all its rooms."""
        waiting = self.endpoint.waiting
        return 0 if waiting is None else waiting.bytes


Recipients: TypeAlias = Connection | Member | Iterable[Connection | Member]
"""Recipients of a room's members, or their connections."""


class Room:
    """A set of connections that get the same broadcasts.

    All methods that change anything raise `WrongThread` in a thread other than the server's. A room may be
    created in any thread: it belongs to the thread of its members, while it has some.

    Several `Room`s of one name on one engine, in one process or in many, act as one room: a broadcast reaches
    the members of all, and `present` lists them all. Each has its own `members` and counters.

    Args:
        name: the room's name in the engine.
        slow: what happens to members that do not keep up.
        engine: what carries the room; a `LocalEngine` of its own by default.
        history: how much is kept for members that reconnect; None for nothing. Rooms of one name should
            agree: with a `LocalEngine`, a message of one that keeps nothing clears the history of the others.
        gap: what happens when the engine reports that messages are lost: `"close"` ends the members'
            connections with 1013, `"ignore"` does nothing, a function is called with the room and the
            reason. A `LocalEngine` loses none.
        stamp: puts positions into messages: `stamp(message, position)` returns what is sent instead. It is
            called once for each message that has a position, whatever the number of members, and again for
            each member that gets the message from the history.
        user: the name is the id of a user. The rooms of users are apart from all others, whatever the names.
            Joining one waits until the engine has subscribed to it, so that a later `close` reaches the
            member in every process. `gap` is always `"close"`, because a `close` may be among the messages
            that are lost.

    Attributes:
        name: as given.
        slow: as given.
        engine: what carries the room.
        history: as given.
    """

    def __init__(
        self,
        name: str = "",
        *,
        slow: SlowPolicy | None = None,
        engine: Engine | None = None,
        history: History | None = None,
        gap: GapPolicy = "close",
        stamp: Stamp | None = None,
        user: bool = False,
    ) -> None:
        if not callable(gap) and gap not in ("close", "ignore"):
            raise ValueError(
                f"gap is 'close', 'ignore' or a function of the room and the reason, not {gap!r}"
            )
        self.name = name
        self.slow = slow or SlowPolicy()
        # Not `engine or …`: an engine may have a length, and be empty.
        self.engine = LocalEngine() if engine is None else engine
        self.history = history
        self._seats = Seats(self.slow, stamp, "close" if user else gap)
        self._address = address_of_user(name) if user else address_of_room(name)
        self._entrance = Entrance(self.engine, self._address, history, self._seats, waits=user)
        self._broadcasts = 0

    @property
    def address(self) -> str:
        """What the engine calls the room: its name, unless it is the room of a user."""
        return self._address

    def __repr__(self) -> str:
        return f"<Room {self.name!r}: {len(self._seats.members)} members>"

    @property
    def members(self) -> tuple[Member, ...]:
        """The members that joined this `Room`, in the order in which they joined."""
        return cast("tuple[Member, ...]", tuple(self._seats.members.values()))

    @property
    def has_members(self) -> bool:
        """Whether there are any."""
        return bool(self._seats.members)

    def present(self) -> list[Any]:
        """Return the data of all members in all processes, in the order in which they joined."""
        return list(self.engine.present(self._address).values())

    @property
    def presence_stale(self) -> bool:
        """Whether `present` may be out of date, because the engine has lost its broker."""
        return self.engine.presence_stale(self._address)

    def watch(self, *, linger: float = 5.0) -> AsyncIterator[PresenceChange]:
        """Return an iterator over the changes of who is present, in all processes.

            async for change in room.watch():
                ...

        The first change has everybody who is present. After that, what happens within 50 ms, or while the
        loop is busy, is one change. Members with one key (`join(ws, key=…)`) count as one, which enters with
        the first of them and leaves with the last. The room need not have members in this process.

        Args:
            linger: for how many seconds a key must have been away before it has left. A page that is loaded
                again, a client that reconnects, and a server that is replaced, are no news if they take less.

        Raises:
            ValueError: `linger` is negative.
            WrongThread: this is not the members' thread.
        """
        if not linger >= 0:
            raise ValueError(f"linger must be 0 or more seconds, not {linger!r}")
        return self._entrance.watch(linger)

    async def count(self) -> int:
        """Return how many members the room has in all processes, also if none of them is here.

        Raises:
            RoomUnavailable: the engine cannot find it out now.

        Cancellation: nothing is left behind.
        """
        return await self.engine.count(self._address)

    def statistics(self) -> RoomStatistics:
        """Return the room's counters."""
        seats = self._seats
        return RoomStatistics(
            len(seats.members), self._broadcasts, seats.deliveries, seats.dropped, seats.closed
        )

    # Membership

    def join(
        self,
        ws: Connection,
        data: Any = None,
        *,
        key: str | int | None = None,
        after: Position | None = None,
    ) -> AbstractAsyncContextManager[Member]:
        """Be a member during the `async with` block, however it ends.

        Broadcasts that still wait for room when it ends are delivered nevertheless, in their order, unless
        they wait for longer than the room's policy allows.

        With `after`, the messages after that position are sent first and the live ones follow; none is lost
        or duplicated between them. If messages are missing from the history, `member.missed` is True, and
        the live messages follow.

        Args:
            ws: the connection that gets the room's broadcasts.
            data: what others may know of this member, see `Member.data`.
            key: who this is, such as the id of a user, in up to 64 characters: `watch` counts all members
                with one key as one. By default each member counts by itself.
            after: the client's last position: from `member.position`, from `room.publish`, or from a
                `stamp`. It may be any text; anything but a position counts as one that is too old.

        Raises:
            RuntimeError: the connection is already a member, or is joining.
            TooManyRooms: it is a member of as many rooms as `Limits.memberships` allows.
            TypeError: the data are not JSON, or the key is neither `str` nor `int`.
            ValueError: the key is empty, too long or not Unicode.
            WrongThread: this is not the connection's thread, or not that of the room's other members.
            RoomUnavailable: with `after`: the engine cannot read the history.
            ConnectionClosed: with `after`: the connection closed while there was still much to send.

        Cancellation:
            Without `after`, joining does not wait for anything. With it, cancelled means not a member; some
            of the missed messages may have been sent. Leaving never waits.
        """
        return Member(self, self._seats, ws, data, key, after)

    async def enter(
        self,
        ws: Connection,
        data: Any = None,
        *,
        key: str | int | None = None,
        after: Position | None = None,
    ) -> Member:
        """Become a member until `member.leave()`, or until the connection is closing.

        It is for programs in which messages of the client say what it subscribes to. Where a block of code is
        as long as the membership, use `join`.

        Args:
            ws: as for `join`.
            data: as for `join`.
            key: as for `join`.
            after: as for `join`.

        Raises:
            ConnectionClosed: the connection is closing.
            Exception: as `join`.

        Cancellation:
            Cancelled means not a member; with `after`, some of the missed messages may have been sent.
        """
        member = Member(self, self._seats, ws, data, key, after)
        if after is None:
            await trio.lowlevel.checkpoint()
        await member._enter(bound=True)
        return member

    # Messages

    @trio.lowlevel.enable_ki_protection
    def broadcast(
        self, message: str | BytesLike, *, exclude: Recipients = (), to: Recipients | None = None
    ) -> int:
        """Send one message to every member, or to some of them, without waiting.

        With a `LocalEngine` it is in every member's outbox or backlog when this returns. Other engines
        queue it, and it can still be lost; use `publish` for messages that must not be lost.

        Every member gets the broadcasts of one task in the order of the calls.

        Args:
            message: `str` for Text, bytes-like for Binary.
            exclude: members, or their connections, that do not get it, such as the sender. They get it
                nevertheless if they rejoin with a position before it.
            to: the only members, or their connections, that get it. They are members in this process. The
                engine does not see such a message: it has no position and is in no history, and it does not
                wait for broadcasts that are on their way through a broker.

        Returns:
            How many members of this process it had reached when this returned: 0 if the engine uses a
            broker. Members that are closing or too slow are not counted.

        Raises:
            TypeError: the message is neither `str` nor bytes-like, or `exclude` or `to` has anything other
                than connections and members.
            UnicodeEncodeError: the text contains a lone surrogate.
            WrongThread: this is not the members' thread.
            RoomUnavailable: the engine cannot take more messages.
        """
        plain, excluded = self._prepared(message, exclude, "room.broadcast")
        if to is not None:
            reached = self._deliver_to(to, plain, excluded)
        else:
            reached = self.engine.broadcast(self._address, plain, excluded, self.history)
        self._broadcasts += 1
        return reached

    def _deliver_to(self, to: Recipients, message: RoomMessage, exclude: Collection[str]) -> int:
        connections = connections_of(to, "to")
        subscription = self._entrance.subscription
        return 0 if subscription is None else subscription.deliver_to(connections, message, exclude)

    @trio.lowlevel.enable_ki_protection
    async def publish(
        self,
        message: str | BytesLike,
        *,
        exclude: Recipients = (),
        key: str | None = None,
    ) -> Position:
        """Send one message to every member, and return when the engine has stored it.

        Args:
            message: `str` for Text, bytes-like for Binary.
            exclude: as for `broadcast`.
            key: 1 to 64 characters, for callers that try again. A second message with the same key in this
                room within 10 minutes is not sent; the first one's position is returned.

        Returns:
            The message's position, for `join(ws, after=position)`.

        Raises:
            TypeError, UnicodeEncodeError, WrongThread: as for `broadcast`.
            ValueError: the key is empty or too long.
            RoomUnavailable: it was not stored, or it is not known whether it was: see
                `RoomUnavailable.unknown`.

        Cancellation:
            With a `LocalEngine`, cancelled means not published. With others it may be stored and delivered
            if it was already sent.
        """
        plain, excluded = self._prepared(message, exclude, "room.publish")
        check_key(key)
        position = await self.engine.publish(self._address, plain, excluded, self.history, key)
        self._broadcasts += 1
        return position

    @trio.lowlevel.enable_ki_protection
    def close(self, code: int = 1000, reason: str = "") -> int:
        """Close the connections of all members in all processes, without waiting.

        Members get the messages that were broadcast before, as far as there is room for them in their
        outboxes. Connections that are joining are closed too, and later ones are not. With an engine that
        uses a broker it is queued, as a broadcast is.

        Args:
            code: 1000 to 1003, 1007 to 1014, or 3000 to 4999.
            reason: at most 123 bytes of UTF-8.

        Returns:
            How many connections of this process were closing when this returned because of it: 0 if the
            engine uses a broker.

        Raises:
            ValueError: the code or the reason may not be sent.
            WrongThread: this is not the members' thread.
            RoomUnavailable: the engine cannot take it.
        """
        message = message_that_closes(code, reason)
        subscription = self._entrance.subscription
        if subscription is not None and get_ident() != subscription.thread:
            raise WrongThread("room.close")
        return self.engine.broadcast(self._address, message, (), self.history)

    def _prepared(
        self, message: str | BytesLike, exclude: Recipients, verb: str
    ) -> tuple[RoomMessage, Collection[str]]:
        entrance = self._entrance
        subscription = entrance.own or entrance.subscription
        if subscription is not None and get_ident() != subscription.thread:
            raise WrongThread(verb)
        plain = RoomMessage.of(message)
        if exclude == ():
            return plain, ()
        connections = connections_of(exclude, "exclude")
        # An iterator may have run the program's code, and members may have joined or left.
        subscription = entrance.subscription
        return plain, () if subscription is None else subscription.ids(connections)
