"""What carries rooms: the base class `Engine` and the values that cross it.

An engine knows rooms and members by name and id, and messages as plain values. It never sees a connection, so
it can pass on to other processes all that it is given. `docs/engines.md` shows how to write one, and
`wsframework.testing.EngineContract` tests it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeAlias

import attrs

from wsframework.transport import BytesLike, to_payload
from wsframework.wire import Opcode

__all__ = ["Engine", "History", "Position", "Replay", "RoomMessage", "Subscriber"]

Position: TypeAlias = str
"""A place in a room's sequence of messages. Only the engine that made it can read it; programs store it, send
it to clients and hand it back with `room.join(ws, after=position)`."""


@attrs.frozen
class RoomMessage:
    """A message as engines carry it: a plain value, not encoded for any connection.

    Attributes:
        opcode: 1 for a Text message, 2 for a Binary one (RFC 6455 §5.2).
        payload: its bytes; of a text, the UTF-8.
    """

    opcode: int
    payload: bytes

    @classmethod
    def of(cls, message: str | BytesLike) -> RoomMessage:
        """Make one of what `room.broadcast` takes.

        Raises:
            TypeError: the message is neither `str` nor bytes-like.
            UnicodeEncodeError: the text holds a lone surrogate.
        """
        return cls(*to_payload(message))

    @property
    def data(self) -> str | bytes:
        """The message as a handler would receive it."""
        return self.payload.decode() if self.opcode == Opcode.TEXT else self.payload


@attrs.frozen(kw_only=True)
class History:
    """How much of a room is kept for those who come back. The oldest messages are forgotten first.

    Attributes:
        messages: at most so many messages. 1,000.
        seconds: none that is older. 300 s: long enough to reconnect, not to be offline.
        bytes: at most so many payload bytes. 1 MiB.
    """

    messages: int = attrs.field(default=1000, validator=attrs.validators.gt(0))
    seconds: float = attrs.field(default=300.0, validator=attrs.validators.gt(0))
    bytes: int = attrs.field(default=1024 * 1024, validator=attrs.validators.gt(0))


@attrs.frozen
class Replay:
    """What followed a position, for a member that comes back.

    Attributes:
        messages: the messages and their positions, in order; empty unless `complete`.
        position: where the room is now: the position of the newest message that was delivered here. With
            `more`, the position of the last one of `messages`.
        complete: whether that is all that followed. False when the history does not reach back so far, or
            the position is not of this history.
        more: whether these are only the first ones. The room then asks for those after `position`, so that a
            long history blocks the event loop for no longer than a short one.
    """

    messages: Sequence[tuple[Position, RoomMessage]]
    position: Position
    complete: bool
    more: bool = False


class Subscriber(Protocol):
    """Whom an engine delivers to: the members of one room in this process."""

    def deliver(self, message: RoomMessage, position: Position | None, exclude: Collection[str]) -> int:
        """Hand a message to all members, except those with an id in `exclude`; how many it reached.

        Raises:
            WrongThread: this is not the thread of the members.
        """

    def lost(self, reason: str) -> None:
        """Report that messages between the last that was delivered and the next one are lost.

        Raises:
            WrongThread: this is not the thread of the members.
        """


class Engine(ABC):
    """What carries rooms: here in one process, elsewhere perhaps through a broker.

    Derive from it: `install` and `run` have bodies that suffice for an engine without tasks of its own.

    All calls come from the thread of the server, and the engine calls subscribers in it. Methods that are not
    async return without waiting: what has to go to other processes is queued, bounded, for the tasks of
    `run`. They may raise `RoomUnavailable`, for example when that queue is full. When `subscribe` or `enter`
    raises, the engine has kept nothing of it.

    Attributes:
        node: the name of this engine object among all that carry the same rooms. Ids of members begin with
            it, so that they are unique everywhere: a random text, made anew with each object.
    """

    node: str

    def install(self, app: Any, /) -> None:
        """Have an App run the engine: `app.install(engine)`. An engine is a plugin."""
        app.lifespan(self.run)

    def run(self) -> AbstractAsyncContextManager[None]:
        """Return a context in which the engine's own connections and tasks live.

        Write it with `@asynccontextmanager`. It is entered before the first connection is accepted and left
        after the last one is closed, like every lifespan.
        """
        return _nothing_to_run()

    @abstractmethod
    def subscribe(self, room: str, subscriber: Subscriber) -> None:
        """Deliver from now on what is published to a room: it has its first member here.

        It is not called again for that name before `unsubscribe`, however many `Room`s have the name.
        """

    @abstractmethod
    def unsubscribe(self, room: str) -> None:
        """Stop to deliver: the room's last member here has left."""

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
            How many members it reached before this returned: none, if it goes through a broker.
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
            RoomUnavailable: it could not be stored, or that is not known; `unknown` says which.

        Cancellation:
            Before the message is sent to where it is stored, nothing has happened. After that it may be
            stored and delivered.
        """

    @abstractmethod
    async def history(self, room: str, after: Position, history: History | None) -> Replay:
        """Return what followed a position.

        The room is subscribed. No message is lost or doubled between what this returns and what is
        delivered: it returns all messages after the position up to the newest that was delivered here, and
        there is no checkpoint between that cut and the return. A client may come from another node with a
        position that was not delivered here yet; then it waits until that has happened.

        Args:
            room: the room's name.
            after: a position of any origin. It may come from a client and be any text: what is not a
                position of this room's history is answered with a `Replay` that is not complete.
            history: how much the room keeps.

        Raises:
            RoomUnavailable: the history cannot be read.

        Cancellation: nothing is left behind.
        """

    @abstractmethod
    def position(self, room: str) -> Position | None:
        """Return where a subscribed room is: after the newest message that was delivered here.

        None while that is not known.
        """

    @abstractmethod
    def enter(self, room: str, member: str, data: Any) -> None:
        """Add a member to those present, or replace its data, which are JSON and belong to the engine."""

    @abstractmethod
    def leave(self, room: str, member: str) -> None:
        """Remove a member from those present."""

    @abstractmethod
    def present(self, room: str) -> Mapping[str, Any]:
        """Return the data of all members everywhere by their ids, in the order in which they came."""


@asynccontextmanager
async def _nothing_to_run() -> AsyncIterator[None]:
    yield
