"""The members of rooms in this process, and how a message gets to them.

Theory of operation
-------------------
An engine delivers to a `Subscription`, which encodes the message once and offers it to each member in one
synchronous pass, so all members of a room get all messages in the same order. A member whose outbox has room
takes the frame at once. For one whose outbox is full the message waits in its connection's *backlog*, in one
line with what its handler sends and with the broadcasts of its other rooms. The line belongs to the
connection and not to the membership, so a member that leaves and rejoins has the same line, the same account
and the same order.

A message that would make the backlog larger than the room's `SlowPolicy` allows, or that has waited for
longer, makes its member *slow*, and the policy is applied to this member alone. Bytes are checked when a
message gets in line, seconds by the backlog's timer.

An engine knows rooms by name. Several `Room`s of one name are one to it: each has its `Seats`, and they share
a `Subscription`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from threading import get_ident
from typing import Any, Literal, TypeAlias

import trio

from wsframework.backlog import WaitingBroadcast
from wsframework.closes import CloseFrame
from wsframework.connection import Connection
from wsframework.endpoint import Endpoint
from wsframework.errors import WrongThread
from wsframework.rooms.closing import close_frame_in
from wsframework.rooms.engine import Engine, Position, Replay, RoomMessage
from wsframework.rooms.policy import SlowPolicy
from wsframework.rooms.watching import Watch, Watched
from wsframework.transport import EncodedMessage
from wsframework.wire import BINARY, encode_message

__all__ = [
    "GapPolicy",
    "Seat",
    "Seats",
    "Stamp",
    "Subscription",
    "connections_of",
    "messages_of",
    "subscribe",
    "subscription_of",
]

Stamp: TypeAlias = Callable[[str | bytes, Position], str | bytes]
"""Put a position into a message: what it returns is sent instead. It is called once for each message that has
a position, whatever the number of members, and again for each member that gets it from the history."""


GapPolicy: TypeAlias = Literal["close", "ignore"] | Callable[[Any, str], None]
"""What happens when an engine reports that messages are lost. `"close"` ends the members' connections with
1013, so that they reconnect with their last position; `"ignore"` does nothing; a function is called with the
room and the reason, in the server's thread, and cannot wait."""

_FEW = 4
"""Up to this length, a list of ids is searched as fast as a set."""


class Seat:
    """One connection in one room, to which messages are offered.

    Attributes:
        ws: the connection.
        endpoint: its endpoint.
        seats: all seats of the room.
        room: identifies the room in the connection's backlog.
        id: unique among the members of all rooms of the engine, in all processes.
        dropped: messages that it did not get because it was slow.
    """

    __slots__ = ("dropped", "endpoint", "id", "room", "seats", "ws")

    room: object

    def __init__(self, room: object, seats: Seats, ws: Connection, id_: str) -> None:
        self.room = room
        self.seats = seats
        self.ws = ws
        self.endpoint: Endpoint = ws.endpoint
        self.id = id_
        self.dropped = 0

    def take(self, message: EncodedMessage, size: int, due: float) -> bool:
        """Put a message that has no room in the outbox into the backlog; return whether it fits."""
        endpoint, policy = self.endpoint, self.seats.slow
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
        """Apply the policy if there is no place in line; return whether there is one then."""
        endpoint, room = self.endpoint, self.room
        waiting = endpoint.waiting
        limits = size, policy.max_bytes, policy.max_messages
        if waiting is None or not waiting.is_full(*limits):
            return True
        if policy.action == "close":
            self._close_slow()
            return False
        if policy.action == "drop_newest" or not waiting.can_make_place(room, *limits):
            self.drop()
            return False
        while waiting.is_full(*limits):
            waiting.remove_oldest(room).member.drop()
        endpoint.made_room()
        return True

    def overdue(self) -> None:
        """Apply the policy to the room's oldest message in line, which has waited for too long."""
        waiting = self.endpoint.waiting
        if self.seats.slow.action == "close":
            self._close_slow()
        elif waiting is not None:
            waiting.remove_oldest(self.room)
            self.drop()

    def drop(self) -> None:
        """Count a message that this member does not get."""
        self.dropped += 1
        self.seats.dropped += 1

    def _close_slow(self) -> None:
        self.seats.closed += 1
        self.endpoint.start_close(CloseFrame(1013, "too slow for this room"), "a slow member of a room")


class Seats:
    """The members of one `Room`.

    Attributes:
        slow: what happens to members that do not keep up.
        stamp: puts positions into messages, or None.
        gap: what happens when messages are lost.
        members: by connection, in the order in which they joined.
        deliveries, dropped, closed: as in `RoomStatistics`.
    """

    __slots__ = ("closed", "deliveries", "dropped", "gap", "members", "slow", "stamp")

    def __init__(self, slow: SlowPolicy, stamp: Stamp | None, gap: GapPolicy) -> None:
        self.slow = slow
        self.stamp = stamp
        self.gap = gap
        self.members: dict[Connection, Seat] = {}
        self.deliveries = 0
        self.dropped = 0
        self.closed = 0

    def deliver(self, message: EncodedMessage, exclude: Collection[str]) -> int:
        """Offer a message to all members but the excluded; return how many it reached."""
        reached = 0
        size = len(message.payload)
        refused: list[Seat] = []
        # A copy would cost as much as the deliveries. Nothing in this loop can change who is a member; what
        # could, such as closing one, comes after it.
        for member in self.members.values():
            if exclude and member.id in exclude:
                continue
            # Nearly always the outbox has room.
            if member.endpoint.offer(message, size):
                reached += 1
            else:
                refused.append(member)
        if refused:
            due = trio.current_time() + self.slow.max_seconds
            for member in refused:
                if member.take(message, size, due):
                    reached += 1
        self.deliveries += reached
        return reached

    def deliver_to(
        self, connections: Iterable[Connection], message: EncodedMessage, exclude: Collection[str]
    ) -> int:
        """Offer a message to some members only; return how many it reached."""
        members = [self.members[ws] for ws in connections if ws in self.members]
        reached = sum([self._offer(member, message) for member in members if member.id not in exclude])
        self.deliveries += reached
        return reached

    def _offer(self, member: Seat, message: EncodedMessage) -> bool:
        size = len(message.payload)
        return member.endpoint.offer(message, size) or member.take(
            message, size, trio.current_time() + self.slow.max_seconds
        )

    def replay(self, member: Seat, replay: Replay) -> None:
        """Offer what a member has missed."""
        for position, message in messages_of(replay):
            encoded = _encoded(
                message if self.stamp is None else RoomMessage.of(self.stamped(message, position))
            )
            self.deliveries += self._offer(member, encoded)

    def fits(self, replay: Replay) -> bool:
        """Whether a replay takes at most half of what the policy allows in a backlog."""
        size = sum([len(message.payload) for _, message in replay.messages])
        return size <= self.slow.max_bytes // 2 and len(replay.messages) <= self.slow.max_messages // 2

    def stamped(self, message: RoomMessage, position: Position) -> str | bytes:
        """Return a message as members get it."""
        return message.data if self.stamp is None else self.stamp(message.data, position)

    def lost(self, reason: str) -> None:
        """Apply `gap`, because messages were lost."""
        members = list(self.members.values())
        if not members:
            return  # what another `Room` did about the loss has made them leave
        if callable(self.gap):
            # These seats do not refer to their room: they would keep it alive.
            self.gap(members[0].room, reason)
        elif self.gap == "close":
            frame = CloseFrame(1013, "messages of this room were lost")
            self.close(frame, f"messages of a room were lost: {reason}")

    def close(self, frame: CloseFrame, cause: str) -> int:
        """Start to close all members; return how many were not closing yet."""
        open_ones = [member for member in self.members.values() if member.endpoint.closed is None]
        for member in open_ones:
            member.endpoint.start_close(frame, cause)
        self.closed += len(open_ones)
        return len(open_ones)


def messages_of(replay: Replay) -> Iterator[tuple[Position, RoomMessage]]:
    """Return what a member that missed it gets: a message that closed the members was not for this one."""
    return ((position, message) for position, message in replay.messages if message.opcode <= BINARY)


def connections_of(
    some: Connection | Seat | Iterable[Connection | Seat], name: str
) -> Collection[Connection]:
    """Return the connections that an argument stands for.

    Args:
        some: members, or their connections.
        name: of the argument, for the error.

    Raises:
        TypeError: there is something else.
    """
    if isinstance(some, Connection):
        return (some,)
    if isinstance(some, Seat):
        return (some.ws,)
    connections: dict[Connection, None] = {}
    for entry in some:
        if not isinstance(entry, Connection | Seat):
            raise TypeError(f"{name} takes connections and members, not {type(entry).__name__}")
        connections[entry.ws if isinstance(entry, Seat) else entry] = None
    return connections


def _encoded(message: RoomMessage) -> EncodedMessage:
    opcode, payload = message.opcode, message.payload
    return EncodedMessage(opcode, payload, encode_message(opcode, payload))


class Subscription:
    """What an engine delivers to: all `Room`s of one name that have members here, or will have.

    Attributes:
        engine: the engine.
        name: the name that the engine knows.
        thread: the number of the members' thread.
        seats: of the `Room`s that have members.
        joining: connections that will be members once they have got what they missed.
        watched: what watches the members, by how long it lets them linger.
    """

    __slots__ = ("engine", "joining", "name", "seats", "thread", "watched")

    def __init__(self, engine: Engine, name: str, thread: int) -> None:
        self.engine = engine
        self.name = name
        self.thread = thread
        self.seats: tuple[Seats, ...] = ()
        self.joining: set[Connection] = set()
        self.watched: dict[float, Watched] = {}

    def deliver(self, message: RoomMessage, position: Position | None, exclude: Collection[str]) -> int:
        """Deliver a message to all members, as `Subscriber.deliver` says."""
        if get_ident() != self.thread:
            raise WrongThread("room.broadcast")
        opcode, payload = message.opcode, message.payload
        if opcode > BINARY:
            return self._close(message)
        reached = 0
        encoded = EncodedMessage(opcode, payload, encode_message(opcode, payload))
        failure: BaseException | None = None
        for seats in self.seats:
            if seats.stamp is None or position is None:
                reached += seats.deliver(encoded, exclude)
                continue
            try:
                stamped = _encoded(RoomMessage.of(seats.stamped(message, position)))
            except BaseException as error:  # a program's function: the other `Room`s get the message
                failure = failure or error
            else:
                reached += seats.deliver(stamped, exclude)
        if failure is not None:
            raise failure
        return reached

    def _close(self, message: RoomMessage) -> int:
        frame = close_frame_in(message)
        cause = "all members of a room were closed"
        joining = [ws.endpoint for ws in self.joining if ws.endpoint.closed is None]
        for endpoint in joining:
            endpoint.start_close(frame, cause)
        return len(joining) + sum([seats.close(frame, cause) for seats in self.seats])

    def deliver_to(
        self, connections: Collection[Connection], message: RoomMessage, exclude: Collection[str]
    ) -> int:
        """Deliver a message to some members only, in this process; return how many it reached."""
        encoded = _encoded(message)
        return sum([seats.deliver_to(connections, encoded, exclude) for seats in self.seats])

    def lost(self, reason: str) -> None:
        """Report that messages are lost, as `Subscriber.lost` says."""
        if get_ident() != self.thread:
            raise WrongThread("reporting lost messages of a room")
        failure: BaseException | None = None
        for seats in self.seats:
            try:
                seats.lost(reason)
            except BaseException as error:  # a program's function: the other `Room`s are told too
                failure = failure or error
        if failure is not None:
            raise failure

    # Presence

    def presence_changed(self, entered: Mapping[str, Any], left: Collection[str]) -> None:
        """Report members that entered or left, as `Subscriber.presence_changed` says."""
        for watched in self.watched.values():
            watched.changed(entered, left)

    def presence_read(self) -> None:
        """Report that the engine knows all members anew, as `Subscriber.presence_read` says."""
        for watched in self.watched.values():
            watched.read()

    def watch(self, linger: float) -> Watch:
        """Return the changes of who is present from now on."""
        watched = self.watched.get(linger)
        if watched is None:
            watched = Watched(self.engine, self.name, linger, lambda: self._unwatch(linger))
            self.watched[linger] = watched
        return Watch(watched)

    def _unwatch(self, linger: float) -> None:
        del self.watched[linger]
        # The garbage collector may run in any thread. Then the next member that leaves unsubscribes.
        if get_ident() == self.thread:
            self.end_if_unused()

    # Members

    def has(self, ws: Connection) -> bool:
        """Whether a connection is a member, or will be."""
        return ws in self.joining or any(ws in seats.members for seats in self.seats)

    def ids(self, connections: Iterable[Connection]) -> Collection[str]:
        """Return the ids of those connections that are members."""
        members = [seats.members.get(ws) for ws in connections for seats in self.seats]
        ids = [member.id for member in members if member is not None]
        return ids if len(ids) <= _FEW else frozenset(ids)

    def add(self, seats: Seats) -> None:
        """Deliver to the members of another `Room` too."""
        if not any(known is seats for known in self.seats):
            self.seats += (seats,)

    def remove(self, seats: Seats) -> None:
        """Stop delivering to the members of a `Room`."""
        self.seats = tuple(known for known in self.seats if known is not seats)

    def end_if_unused(self) -> None:
        """Unsubscribe from the engine if there are no members and nothing watches them."""
        key = id(self.engine), self.name
        if not self.seats and not self.joining and not self.watched and _subscriptions.get(key) is self:
            del _subscriptions[key]
            self.engine.unsubscribe(self.name)


_subscriptions: dict[tuple[int, str], Subscription] = {}
"""By the engine's id and the room's name, as long as there are members. Engines need not be hashable, and
each entry refers to its engine, so no other one can have its id."""


def subscription_of(engine: Engine, name: str) -> Subscription | None:
    """Return what the engine delivers to for rooms of that name, if there are members."""
    return _subscriptions.get((id(engine), name))


def subscribe(engine: Engine, name: str, thread: int) -> Subscription:
    """Subscribe to a room of the engine that is about to get its first member."""
    subscription = Subscription(engine, name, thread)
    engine.subscribe(name, subscription)
    _subscriptions[id(engine), name] = subscription
    return subscription
