"""Rooms and users have addresses that do not meet, whatever their names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsframework.rooms.addresses import address_of_room, address_of_user, name_of_room


def test_nearly_every_room_has_its_name_as_its_address() -> None:
    for name in ("tea", "", "@42", "user/42", "a}:m"):
        assert address_of_room(name) == name


@pytest.mark.parametrize("name", ["\0user/42", "\0\0user/42", "\0", "\0\0"])
def test_no_room_has_the_address_of_a_user(name: str) -> None:
    assert address_of_room(name) == f"\0{name}"
    assert address_of_room(name) not in {address_of_user("42"), address_of_user(""), name}


@given(st.lists(st.text(alphabet="\0user/42", max_size=10), unique=True))
def test_addresses_are_as_different_as_names(names: list[str]) -> None:
    addresses = {address_of_room(name) for name in names} | {address_of_user(name) for name in names}
    assert len(addresses) == 2 * len(names)


@given(st.text(alphabet="\0user/42", max_size=10))
def test_the_name_of_a_room_is_read_from_its_address_and_a_user_has_none(name: str) -> None:
    assert name_of_room(address_of_room(name)) == name
    assert name_of_room(address_of_user(name)) is None


def test_a_number_is_the_user_of_its_digits() -> None:
    assert address_of_user(42) == address_of_user("42") != address_of_user(4)


@pytest.mark.parametrize("user", [None, True, 4.2, b"42", object()])
def test_what_identifies_nobody_is_refused(user: Any) -> None:
    with pytest.raises(TypeError, match=f"str or int, not {type(user).__name__}"):
        address_of_user(user)
