"""What carries rooms: the base class `Engine` and the values that cross it.

An engine knows rooms and members by name and id, and messages as plain values. It has no access to
connections, so it can pass everything that it gets to other processes. `docs/engines.md` shows how to write
one, and `wsframework.testing.EngineContract` tests it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeAlias

import attrs
from trio.lowlevel import checkpoint

from wsframework.transport import BytesLike, to_payload
from wsframework.wire import Opcode

__all__ = ["Engine", "History", "Position", "Replay", "RoomMessage", "Subscriber", "check_key"]

Position: TypeAlias = str
"""A place in a room's sequence of messages. Only the engine that made it can read it; programs store it, send
it to clients and hand it back with `room.join(ws, after=position)`."""


_LONGEST_KEY = 64
"""In characters, so that engines can store many."""


def check_key(key: str | None) -> None:
    """Check the key of a message that is published.

    Raises:
        ValueError: it is empty or too long.
    """
    if key is not None and not 1 <= len(key) <= _LONGEST_KEY:
        raise ValueError(f"a key has 1 to {_LONGEST_KEY} characters; this one has {len(key)}")


@attrs.frozen
class RoomMessage:
    """A message as engines carry it: a plain value, not encoded for any connection.

    Attributes:
        opcode: 1 for a Text message, 2 for a Binary one (RFC 6455 §5.2). 8 is not for the members: it has
            every process close their connections, and the payload is that of a Close frame (§5.5.1).
        payload: its bytes; for a text, in UTF-8.
    """

    opcode: int
    payload: bytes

    @classmethod
    def of(cls, message: str | BytesLike) -> RoomMessage:
        """Return the message for an argument of `room.broadcast`.

        Raises:
            TypeError: the message is neither `str` nor bytes-like.
            UnicodeEncodeError: the text contains a lone surrogate.
        """
        return cls(*to_payload(message))

    @property
    def data(self) -> str | bytes:
        """The message as a handler would receive it; the payload, if it closes the members."""
        return self.payload.decode() if self.opcode == Opcode.TEXT else self.payload


@attrs.frozen(kw_only=True)
class History:
    """How much of a room is kept for members that reconnect. The oldest messages are removed first.

    Attributes:
        messages: the maximum number of messages. 1,000.
        seconds: the maximum age of a message. 300 s: long enough to reconnect, not to be offline.
        bytes: the maximum number of payload bytes. 1 MiB.
    """

    messages: int = attrs.field(default=1000, validator=attrs.validators.gt(0))
    seconds: float = attrs.field(default=300.0, validator=attrs.validators.gt(0))
    bytes: int = attrs.field(default=1024 * 1024, validator=attrs.validators.gt(0))


@attrs.frozen
class Replay:
    """The messages after a position, for a member that reconnects.

    Attributes:
        messages: the messages and their positions, in order; empty unless `complete`.
        position: the position of the newest message that was delivered here. With `more`, the position of
            the last one of `messages`.
        complete: whether no message after the position is lost. False if the history does not go back so
            far, or the position is not of this history.
        more: whether these are only the first ones. The room then asks for those after `position`, so that a
            long history blocks the event loop for no longer than a short one.
    """

    messages: Sequence[tuple[Position, RoomMessage]]
    position: Position
    complete: bool
    more: bool = False


class Subscriber(Protocol):
    """The recipient of an engine's messages: the members of one room in this process."""

    def deliver(self, message: RoomMessage, position: Position | None, exclude: Collection[str]) -> int:
        """Deliver a message to all members except those in `exclude`; return how many it reached.

        Raises:
            ValueError: its opcode is none of 1, 2 and 8, or is 8 without the payload of a Close frame.
            WrongThread: this is not the thread of the members.
        """

    def presence_changed(self, entered: Mapping[str, Any], left: Collection[str]) -> None:
        """Report members, here or elsewhere, that entered or have new data, and members that left.

        `Engine.present` has the changes already.

        Args:
            entered: data by the ids of members.
            left: ids of members.
        """

    def presence_read(self) -> None:
        """Report that `Engine.present` or `Engine.presence_stale` may be entirely different now."""

    def lost(self, reason: str) -> None:
        """Report that messages between the last delivered one and the next one are lost.

        Raises:
            WrongThread: this is not the thread of the members.
        """


class Engine(ABC):
    """The base class of engines, which carry rooms in one process or through a broker.

    An engine without tasks of its own need not override `install` and `run`.

    All calls come from the thread of the server, and the engine calls subscribers in it. Methods that are not
    async return without waiting: messages to other processes go into a bounded queue for the tasks of `run`.
    They may raise `RoomUnavailable`, for example when that queue is full. If `subscribe` or `enter` raises,
    it must have no effect.

    Attributes:
        node: a random text without a slash, unique among all engine objects that carry the same rooms. Ids of
            members begin with it, so that they are unique too.
    """

    node: str

    def install(self, app: Any, /) -> None:
        """Let an App run the engine: `app.install(engine)`. An engine is a plugin."""
        app.lifespan(self.run)

    def run(self) -> AbstractAsyncContextManager[None]:
        """Return a context in which the engine's own connections and tasks live.

        Write it with `@asynccontextmanager`. It is entered before the first connection is accepted and left
        after the last one is closed, like every lifespan.
        """
        return _nothing_to_run()

    @abstractmethod
    def subscribe(self, room: str, subscriber: Subscriber) -> None:
        """Start to deliver what is published to a room, which has its first member in this process.

        It is not called again for that name before `unsubscribe`, however many `Room`s have the name.
        """

    async def wait_subscribed(self, room: str) -> None:
        """Wait until all that is published to a subscribed room from now on will be delivered here.

        An engine that subscribes at once need not override it.

        Raises:
            RoomUnavailable: it does not succeed now.

        Cancellation: nothing is left behind.
        """
        await checkpoint()

    @abstractmethod
    def unsubscribe(self, room: str) -> None:
        """Stop delivering: the room's last member in this process has left."""

    @abstractmethod
    def broadcast(
        self, room: str, message: RoomMessage, exclude: Collection[str], history: History | None
    ) -> int:
        """Deliver a message to all members everywhere, without waiting.

        The broadcasts of one node arrive in the order of the calls, and all messages of a room arrive in one
        order at all members.

        Args:
            room: the room's name.
            message: the message.
            exclude: ids of members that do not get it. They are members of this node.
            history: how much the room keeps; None for nothing, and then the delivery needs no position.

        Returns:
            How many members it had reached when this returned: 0 if it goes through a broker.
        """

    @abstractmethod
    async def publish(
        self,
        room: str,
        message: RoomMessage,
        exclude: Collection[str],
        history: History | None,
        key: str | None,
    ) -> Position:
        """Store a message and deliver it to all members everywhere, in one order with `broadcast`.

        Args:
            room: the room's name.
            message: the message.
            exclude: as for `broadcast`.
            history: as for `broadcast`.
            key: for callers that try again. A message with the same key in the same room within 10 minutes
                is the same message: it is not delivered again, and the first one's position is returned.

        Returns:
            The message's position.

        Raises:
            RoomUnavailable: it was not stored, or it is not known whether it was; `unknown` says which.

        Cancellation:
            Before the message is sent to where it is stored, nothing has happened. After that it may be
            stored and delivered.
        """

    @abstractmethod
    async def history(self, room: str, after: Position, history: History | None) -> Replay:
        """Return the messages after a position.

        The room is subscribed. No message is lost or duplicated between the result and the deliveries: the
        result has all messages after the position up to the newest that was delivered here, and there is no
        checkpoint between that choice and the return. A client may come from another node with a position
        that was not delivered here yet; the call then waits until it was.

        Args:
            room: the room's name.
            after: a position of any origin. It may come from a client and be any text: for anything but a
                position of this room's history, return a `Replay` that is not complete.
            history: how much the room keeps.

        Raises:
            RoomUnavailable: the history cannot be read.

        Cancellation: nothing is left behind.
        """

    @abstractmethod
    def position(self, room: str) -> Position | None:
        """Return the position of the newest message that was delivered here to a subscribed room.

        None while it is not known.
        """

    @abstractmethod
    def enter(self, room: str, member: str, data: Any) -> None:
        """Add a member to those present, or replace its data, which are JSON and belong to the engine."""

    @abstractmethod
    def leave(self, room: str, member: str) -> None:
        """Remove a member from those present."""

    @abstractmethod
    def present(self, room: str) -> Mapping[str, Any]:
        """Return the data of all members everywhere by their ids, in the order in which they joined."""

    def presence_stale(self, room: str) -> bool:
        """Return whether `present` may be out of date, because the engine has lost its broker.

        An engine that always knows need not override it.
        """
        return False

    async def count(self, room: str) -> int:
        """Return how many members a room has everywhere, also one without members here.

        Raises:
            RoomUnavailable: it cannot be found out now.

        Cancellation: nothing is left behind.
        """
        await checkpoint()
        return len(self.present(room))


@asynccontextmanager
async def _nothing_to_run() -> AsyncIterator[None]:
    yield
