"""Rooms by name."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakValueDictionary

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

    def __getitem__(self, name: str) -> Room:
        """Return the room of that name; create it if there is none."""
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = Room(
                name,
                slow=self._slow,
                engine=self._engine,
                history=self._history,
                gap=self._gap,
                stamp=self._stamp,
            )
        return room

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
