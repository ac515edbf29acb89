"""Ids of members, and the keys in them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsframework.rooms.keys import key_of, member_id


def test_a_member_without_a_key_has_its_id_as_the_key() -> None:
    assert member_id("a1b2", 7, None) == "a1b2/7"
    assert key_of("a1b2/7") == "a1b2/7"


@given(st.text(min_size=1, max_size=64))
def test_a_key_comes_back_whatever_it_is(key: str) -> None:
    one, two = member_id("a1b2", 1, key), member_id("c3d4", 2, key)
    assert one != two
    assert key_of(one) == key_of(two) == key


def test_a_key_may_have_64_characters() -> None:
    assert key_of(member_id("a1b2", 7, "€" * 64)) == "€" * 64


def test_a_number_is_a_key() -> None:
    assert key_of(member_id("a1b2", 7, 42)) == "42"


@pytest.mark.parametrize("key", [True, 4.2, b"ada", object()])
def test_what_is_no_key_is_refused(key: Any) -> None:
    with pytest.raises(TypeError, match=f"str or int, not {type(key).__name__}"):
        member_id("a1b2", 7, key)


@pytest.mark.parametrize("key", ["", "x" * 65, "\ud800"])
def test_a_key_that_engines_could_not_store_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"1 to 64 characters|surrogates"):
        member_id("a1b2", 7, key)
