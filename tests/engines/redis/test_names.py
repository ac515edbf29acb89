"""Keys in Redis: a room's name may be any text that a stranger writes into a path."""

from __future__ import annotations

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from wsframework.engines.redis.names import Names, Script

NAMES = Names("ws")


@given(st.text(st.characters(codec=None)))
def test_a_rooms_names_are_bounded_printable_and_keep_it_on_one_node_of_a_cluster(name: str) -> None:
    key = NAMES.room(name)
    assert re.fullmatch(rb"ws:\{r/[\w.~%-]{0,200}\}", key)


@given(st.lists(st.text(st.characters(codec=None)), min_size=2, max_size=5, unique=True))
def test_no_two_rooms_share_a_name(names: list[str]) -> None:
    assert len({NAMES.room(name) for name in names}) == len(names)


def test_long_names_that_differ_at_the_end_stay_apart() -> None:
    names = ["x" * 200, "x" * 201, "x" * 5000, "x" * 4999 + "y", "€" * 100, "€" * 101]
    keys = [NAMES.room(name) for name in names]
    assert len(set(keys)) == len(keys)
    assert max(map(len, keys)) == len(b"ws:{r/}") + 200


def test_kinds_of_keys_do_not_meet() -> None:
    room = NAMES.room("a")
    keys = [
        room,
        NAMES.state(room),
        NAMES.history(room),
        NAMES.members(room),
        NAMES.publication(room, "m"),
        NAMES.publication(room, "k:m"),
        NAMES.nodes,
        NAMES.rooms_of(b"n"),
        NAMES.reaping(b"n"),
    ]
    assert all(one != other for one, other in itertools.combinations(keys, 2))


def test_prefixes_keep_programs_apart() -> None:
    assert Names("a").room("x") != Names("b").room("x")


def test_scripts_are_in_the_package() -> None:
    for name in ("publish", "history", "presence", "reap", "lease"):
        script = Script.load(name)
        assert b"redis.call" in script.text
        assert re.fullmatch(b"[0-9a-f]{40}", script.digest)
