"""Rooms by name."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakValueDictionary

from wsframework.rooms.addresses import address_of_user
from wsframework.rooms.closing import message_that_closes
from wsframework.rooms.engine import Engine, History
from wsframework.rooms.local import LocalEngine
from wsframework.rooms.policy import SlowPolicy
from wsframework.rooms.room import Room
from wsframework.rooms.seats import GapPolicy, Stamp

__all__ = ["Rooms"]


class Rooms:
    """Rooms by name: created on first use, removed with the last member.

    Args:
        slow: what happens to members that do not keep up, in every room.
        engine: what carries the rooms; a `LocalEngine` by default.
        history: how much of each room is kept for members that reconnect; None for nothing. The engine also
            bounds the histories of all rooms together.
        gap: as for `Room`.
        stamp: as for `Room`.
    """

    def __init__(
        self,
        *,
        slow: SlowPolicy | None = None,
        engine: Engine | None = None,
        history: History | None = None,
        gap: GapPolicy = "close",
        stamp: Stamp | None = None,
    ) -> None:
        self._slow = slow or SlowPolicy()
        self._engine = LocalEngine() if engine is None else engine
        self._history = history
        self._gap = gap
        self._stamp = stamp
        # A room exists as long as something refers to it, as its members' scopes do.
        self._rooms: WeakValueDictionary[str, Room] = WeakValueDictionary()
        self._users: WeakValueDictionary[str, Room] = WeakValueDictionary()

    def __getitem__(self, name: str) -> Room:
        """Return the room of that name; create it if there is none."""
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = self._make(name, user=False)
        return room

    def _make(self, name: str, *, user: bool) -> Room:
        return Room(
            name,
            slow=self._slow,
            engine=self._engine,
            history=self._history,
            gap=self._gap,
            stamp=self._stamp,
            user=user,
        )

    def user(self, user: str | int) -> Room:
        """Return the room of a user; create it if there is none.

            async with rooms.user(user.id).join(ws):
                ...

        Within the block, the connection gets what is broadcast to the user in any process, and `disconnect`
        closes it. A connection does not join by itself, because only the program knows who its user is. These
        rooms are apart from those of `rooms[name]`, whatever the names, and iterating does not list them. See
        `user` of `Room` for what else they do.

        Args:
            user: the id of the user; 42 and "42" are the same.

        Raises:
            TypeError: the id is neither `str` nor `int`.
        """
        address_of_user(user)  # raises TypeError
        name = str(user)
        room = self._users.get(name)
        if room is None:
            room = self._users[name] = self._make(name, user=True)
        return room

    async def disconnect(self, user: str | int, code: int = 1000, reason: str = "") -> None:
        """Close all connections of a user that have joined `rooms.user(user)`, in all processes.

        It returns when the engine has stored it. From then on it happens in every process, as soon as that is
        connected to the engine's broker. It does not wait until the clients have closed. Connections that
        join later are not closed: first note in your database that the user may not connect, and look there
        after joining.

        Args:
            user: the id of the user.
            code: 1000 to 1003, 1007 to 1014, or 3000 to 4999.
            reason: at most 123 bytes of UTF-8.

        Raises:
            TypeError: the id is neither `str` nor `int`.
            ValueError: the code or the reason may not be sent.
            WrongThread: this is not the thread of the user's connections.
            RoomUnavailable: it was not stored, or it is not known whether it was.

        Cancellation:
            With a `LocalEngine`, cancelled means nobody was disconnected. With others it may happen
            nevertheless.
        """
        message = message_that_closes(code, reason)
        await self._engine.publish(address_of_user(user), message, (), self._history, None)

    def __contains__(self, name: object) -> bool:
        """Whether a room of that name has members."""
        room = self._rooms.get(name) if isinstance(name, str) else None
        return room is not None and room.has_members

    def __iter__(self) -> Iterator[Room]:
        """Iterate over the rooms that have members."""
        return iter([room for room in self._rooms.values() if room.has_members])

    def __len__(self) -> int:
        """Return how many rooms have members."""
        return sum(1 for _ in self)
