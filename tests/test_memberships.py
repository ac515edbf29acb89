"""How many rooms a connection is in, and which of them it leaves by its end."""

from __future__ import annotations

import pytest

from wsframework.errors import Close, TooManyRooms
from wsframework.memberships import Memberships


def test_there_are_as_many_as_the_limit_allows_and_one_that_ended_makes_room() -> None:
    memberships = Memberships(2)
    memberships.begin()
    memberships.begin()
    with pytest.raises(TooManyRooms, match="a connection may be in 2 rooms at once") as caught:
        memberships.begin()
    assert (caught.value.limit, memberships.count) == (2, 2)
    memberships.end("one")
    memberships.begin()


def test_without_a_limit_there_are_any_number() -> None:
    memberships = Memberships(None)
    for _ in range(1000):
        memberships.begin()
    assert memberships.count == 1000


def test_those_without_a_scope_end_with_the_connection_whatever_one_of_them_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    memberships = Memberships(None)
    ended: list[str] = []

    def leave(name: str) -> None:
        memberships.end(name)
        ended.append(name)
        if name == "broken":
            raise OSError(name)

    for name in ("a", "broken", "b", "left before", "scope"):
        memberships.begin()
        if name != "scope":
            memberships.end_with_connection(name, lambda name=name: leave(name))  # type: ignore[misc]
    leave("left before")
    memberships.end_all()
    memberships.end_all()
    assert ended == ["left before", "b", "broken", "a"]
    assert memberships.count == 1
    assert caplog.text.count("OSError('broken')") == 1


def test_too_many_rooms_is_a_close() -> None:
    assert isinstance(TooManyRooms(1), Close)
