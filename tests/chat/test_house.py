from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsframework.chat.house import PAGE_PEOPLE, PAGE_ROOMS, BadCursor, House, Seat


def all_rooms(house: House) -> list[tuple[str, int]]:
    page = house.rooms()
    rooms = page.rooms
    while page.cursor is not None:
        page = house.rooms(page.cursor)
        rooms += page.rooms
    return rooms


def all_people(house: House, room: str) -> list[str]:
    page = house.people(room)
    names = page.names
    while page.cursor is not None:
        assert len(page.names) == PAGE_PEOPLE
        page = house.people(room, page.cursor)
        names += page.names
    assert len(names) == page.count == house.count(room)
    return names


def test_rooms_are_listed_page_by_page_the_busiest_first() -> None:
    house = House()
    rooms = [f"room{number}" for number in range(2 * PAGE_ROOMS + 5)]
    for number, room in enumerate(rooms):
        for _ in range(1 + number % 3):
            house.enter(room, "somebody")
    expected = sorted(
        ((room, 1 + number % 3) for number, room in enumerate(rooms)), key=lambda e: (-e[1], e[0])
    )
    assert all_rooms(house) == expected
    assert len(house.rooms().rooms) == PAGE_ROOMS


def test_people_are_listed_page_by_page_in_the_order_in_which_they_came() -> None:
    house = House()
    names = [f"name{number}" for number in range(2 * PAGE_PEOPLE)]
    for name in names:
        house.enter("lobby", name)
    assert all_people(house, "lobby") == names
    assert all_people(house, "empty") == []


def test_who_leaves_between_two_pages_hides_nobody() -> None:
    house = House()
    seats = [house.enter("lobby", f"name{number}") for number in range(PAGE_PEOPLE + 10)]
    first = house.people("lobby")
    for seat in seats[: PAGE_PEOPLE + 1]:
        house.leave(seat)
    assert house.people("lobby", first.cursor).names == [
        f"name{PAGE_PEOPLE + number}" for number in range(1, 10)
    ]


@pytest.mark.parametrize("cursor", ["", "x", "-1", "\u0661", "1" * 5000, "/a", "x/a"])
def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    with pytest.raises(BadCursor):
        House().rooms(cursor)
    with pytest.raises(BadCursor):
        House().people("lobby", cursor)


@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "rename"]), st.integers(0, 5)), max_size=60))
def test_the_lists_agree_with_what_happened(steps: list[tuple[str, int]]) -> None:
    house = House()
    seats: list[tuple[Seat, str]] = []
    for number, (step, which) in enumerate(steps):
        if step == "enter":
            seats.append((house.enter(f"room{which}", f"name{number}"), f"name{number}"))
        elif seats:
            seat, _ = seats.pop(which % len(seats))
            if step == "leave":
                house.leave(seat)
            else:
                house.rename(seat, f"new{number}")
                seats.append((seat, f"new{number}"))
    rooms: dict[str, list[Any]] = {}
    for seat, name in sorted(seats, key=lambda entry: entry[0].number):
        rooms.setdefault(seat.room, []).append(name)
    counted = sorted(((room, len(names)) for room, names in rooms.items()), key=lambda e: (-e[1], e[0]))
    assert all_rooms(house) == counted
    for room, names in rooms.items():
        assert all_people(house, room) == names
