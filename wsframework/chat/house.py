"""Who is in which room, in orders that can be read page by page.

All methods take time that hardly grows with the number of rooms and people: a page is found by its cursor in
sorted lists, and each change moves one entry. A cursor names the last entry of a page, so what changes
meanwhile, and nothing else, may be missing from the pages or be on two of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TypeVar

import attrs
from sortedcontainers import SortedDict, SortedList

__all__ = ["PAGE_PEOPLE", "PAGE_ROOMS", "BadCursor", "House", "People", "RoomList", "Seat", "number_of"]

PAGE_ROOMS = 100
PAGE_PEOPLE = 100

EntryT = TypeVar("EntryT")


class BadCursor(ValueError):
    """A cursor that is not from an earlier page."""


@attrs.frozen
class Seat:
    """A person's place in a room. Later ones have higher numbers."""

    room: str
    number: int


@attrs.frozen
class People:
    """A page of a room's people, in the order in which they came.

    Attributes:
        names: their names.
        cursor: what the next page is asked for with, or None if this is the last.
        count: how many people are in the room.
    """

    names: list[str]
    cursor: str | None
    count: int


@attrs.frozen
class RoomList:
    """A page of the rooms that have people, the busiest first.

    Attributes:
        rooms: (room, how many people) of each.
        cursor: what the next page is asked for with, or None if this is the last.
    """

    rooms: list[tuple[str, int]]
    cursor: str | None


class House:
    """The people of all rooms."""

    def __init__(self) -> None:
        self._people: dict[str, SortedDict[int, str]] = {}
        # Sorted by (-people, room), so that it begins with the busiest.
        self._busiest: SortedList[tuple[int, str]] = SortedList()
        self._numbers = itertools.count(1)

    def enter(self, room: str, name: str) -> Seat:
        """Let a person into a room."""
        seat = Seat(room, next(self._numbers))
        people = self._people.setdefault(room, SortedDict())
        self._busiest.discard((-len(people), room))
        people[seat.number] = name
        self._busiest.add((-len(people), room))
        return seat

    def leave(self, seat: Seat) -> None:
        """Let a person out of a room."""
        people = self._people[seat.room]
        self._busiest.remove((-len(people), seat.room))
        del people[seat.number]
        if people:
            self._busiest.add((-len(people), seat.room))
        else:
            del self._people[seat.room]

    def rename(self, seat: Seat, name: str) -> None:
        """Give a person in a room another name."""
        self._people[seat.room][seat.number] = name

    def count(self, room: str) -> int:
        """Return how many people are in a room."""
        return len(self._people.get(room, ()))

    def people(self, room: str, cursor: str | None = None) -> People:
        """Return the first people of a room, or those behind a cursor.

        Raises:
            BadCursor: it is not from a page of people.
        """
        people = self._people.get(room, SortedDict())
        behind = None if cursor is None else number_of(cursor)
        numbers, more = _page(people.irange(behind, inclusive=(False, True)), PAGE_PEOPLE)
        names = [people[number] for number in numbers]
        return People(names, str(numbers[-1]) if more else None, len(people))

    def rooms(self, cursor: str | None = None) -> RoomList:
        """Return the busiest rooms, or those behind a cursor.

        Raises:
            BadCursor: it is not from a page of rooms.
        """
        behind = None
        if cursor is not None:
            people, _, room = cursor.partition("/")
            behind = -number_of(people), room
        entries, more = _page(self._busiest.irange(behind, inclusive=(False, True)), PAGE_ROOMS)
        rooms = [(room, -people) for people, room in entries]
        return RoomList(rooms, f"{rooms[-1][1]}/{rooms[-1][0]}" if more else None)


def _page(entries: Iterable[EntryT], size: int) -> tuple[list[EntryT], bool]:
    page = list(itertools.islice(entries, size + 1))
    return page[:size], len(page) > size


def number_of(text: str) -> int:
    """Return the number that a cursor has.

    Raises:
        BadCursor: it has none.
    """
    if len(text) > 16 or not (text.isascii() and text.isdigit()):
        raise BadCursor("a cursor comes from the page before")
    return int(text)
