"""How connections become members of a room, and how they leave it.

A member that joins with `after=` gets what it has missed first. While the engine's history is read, the room
is subscribed but the connection is no member yet. The engine returns what followed the position up to the
newest message that was delivered here; in the same step these messages are committed and the connection
becomes a member, so the next message that is delivered follows them directly.

In the room of a user, joining waits until the engine has subscribed to it: then whoever closes the user's
connections reaches this one, or the handler sees in its database that it should not go on.

A membership either ends with an `async with` block, or is *bound* to its connection: it ends as soon as the
connection is closing.
"""

from __future__ import annotations

from functools import partial
from threading import get_ident
from typing import Any

import trio

from wsframework.connection import Connection
from wsframework.errors import ConnectionClosed, WrongThread
from wsframework.rooms.engine import Engine, History, Position
from wsframework.rooms.seats import Seat, Seats, Subscription, messages_of, subscribe, subscription_of
from wsframework.rooms.watching import Watch

__all__ = ["Entrance"]


class Entrance:
    """The way into one `Room` and out of it.

    Args:
        engine: carries the room.
        name: the name that the engine knows.
        history: how much the room keeps.
        seats: the members.
        waits: whether joining waits until the engine has subscribed.

    Attributes:
        own: what the engine delivers to, if this `Room` has members.
    """

    __slots__ = ("_engine", "_history", "_name", "_seats", "_waits", "own")

    def __init__(
        self, engine: Engine, name: str, history: History | None, seats: Seats, *, waits: bool
    ) -> None:
        self._engine = engine
        self._name = name
        self._history = history
        self._seats = seats
        self._waits = waits
        self.own: Subscription | None = None

    @property
    def subscription(self) -> Subscription | None:
        """What the engine delivers to for rooms of this name, if one of them has members."""
        return subscription_of(self._engine, self._name)

    def watch(self, linger: float) -> Watch:
        """Return the changes of who is present from now on.

        Raises:
            WrongThread: this is not the thread of the members.
        """
        thread, subscription = get_ident(), self.subscription
        if subscription is None:
            subscription = subscribe(self._engine, self._name, thread)
        if thread != subscription.thread:
            raise WrongThread("room.watch")
        try:
            return subscription.watch(linger)
        except BaseException:
            subscription.end_if_unused()
            raise

    async def join(self, seat: Seat, data: Any, after: Position | None, *, bound: bool) -> bool | None:
        """Make a connection a member.

        Args:
            seat: the member.
            data: what others may know of it.
            after: the position after which it gets the messages that it has missed.
            bound: whether the membership ends with the connection.

        Returns:
            Whether messages after the position are lost; None without one.

        Raises:
            RuntimeError: the connection is already a member, or is joining.
            TooManyRooms: it is a member of as many rooms as it may be.
            ConnectionClosed: it is closing, and the membership is bound to it.
            WrongThread: this is not the thread of the connection, or of the other members.
            RoomUnavailable: the engine cannot read the history, or subscribe to a user's room.

        Cancellation: it is not a member; some of the messages may have been sent.
        """
        if after is not None:
            return await self._enter_after(seat, data, after, bound=bound)
        self._enter(seat, data, bound=bound)
        if self._waits:
            await self._wait_subscribed(seat, bound)
        return None

    async def _wait_subscribed(self, seat: Seat, bound: bool) -> None:
        try:
            await self._engine.wait_subscribed(self._name)
            if bound and seat.endpoint.closed is not None:
                raise ConnectionClosed(seat.endpoint.closed)
        except BaseException:
            self.leave(seat)
            raise

    # Ctrl-C is held back here: a membership changes as a whole or not at all, and a broadcast reaches all.
    @trio.lowlevel.enable_ki_protection
    def _enter(self, seat: Seat, data: Any, *, bound: bool) -> None:
        subscription = self._begin(seat)
        try:
            self._admit(seat, subscription, data, bound)
        except BaseException:
            _uncount(seat)
            subscription.end_if_unused()
            raise

    @trio.lowlevel.enable_ki_protection
    async def _enter_after(self, seat: Seat, data: Any, after: Position, *, bound: bool) -> bool:
        ws = seat.ws
        subscription = self._begin(seat)
        subscription.joining.add(ws)
        try:
            while True:
                replay = await self._engine.history(self._name, after, self._history)
                if not replay.more and self._seats.fits(replay):
                    break
                # The backlog would count the member as slow. What is published meanwhile is read next.
                for position, message in messages_of(replay):
                    await ws.send(self._seats.stamped(message, position))
                after = replay.position
            self._seats.replay(seat, replay)
            self._admit(seat, subscription, data, bound)
        except BaseException:
            _uncount(seat)
            raise
        finally:
            subscription.joining.discard(ws)
            subscription.end_if_unused()
        return not replay.complete

    def _begin(self, seat: Seat) -> Subscription:
        """Count a membership and return the subscription for it; make it if there is none."""
        ws = seat.ws
        thread, subscription = get_ident(), self.subscription
        if thread != ws.endpoint.thread or (subscription is not None and thread != subscription.thread):
            raise WrongThread("room.join")
        if subscription is not None and subscription.has(ws):
            raise RuntimeError(f"{ws!r} is already a member of the room {self._name!r}")
        ws.endpoint.begin_membership()
        if subscription is not None:
            return subscription
        try:
            return subscribe(self._engine, self._name, thread)
        except BaseException:
            _uncount(seat)
            raise

    def _admit(self, seat: Seat, subscription: Subscription, data: Any, bound: bool) -> None:
        ws = seat.ws
        if bound and ws.endpoint.closed is not None:
            raise ConnectionClosed(ws.endpoint.closed)
        self.own = subscription
        subscription.add(self._seats)
        self._seats.members[ws] = seat
        try:
            self._engine.enter(self._name, seat.id, data)
        except BaseException:
            self._forget(ws, subscription)
            raise
        memberships = ws.endpoint.memberships
        if bound and memberships is not None:
            memberships.end_with_connection(seat, partial(self.leave, seat))

    @trio.lowlevel.enable_ki_protection
    def leave(self, seat: Seat) -> None:
        """End a membership, unless it has ended.

        Raises:
            WrongThread: this is not the connection's thread.
        """
        ws, subscription = seat.ws, self.own
        if get_ident() != ws.endpoint.thread:
            raise WrongThread("leaving a room")
        if subscription is None or not self.is_member(seat):
            return
        _uncount(seat)
        try:
            self._engine.leave(self._name, seat.id)
        finally:
            self._forget(ws, subscription)

    def is_member(self, seat: Seat) -> bool:
        """Whether this membership has begun and not ended."""
        return self._seats.members.get(seat.ws) is seat

    def _forget(self, ws: Connection, subscription: Subscription) -> None:
        del self._seats.members[ws]
        if not self._seats.members:
            self.own = None
            subscription.remove(self._seats)
            subscription.end_if_unused()


def _uncount(seat: Seat) -> None:
    memberships = seat.endpoint.memberships
    if memberships is not None:
        memberships.end(seat)
