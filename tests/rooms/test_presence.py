"""Data of members are JSON, and copied."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import pytest

from tests.fake_transport import connect
from wsframework import Room
from wsframework.rooms.presence import copy_of_json

ITSELF: list[Any] = []
ITSELF.append(ITSELF)


@pytest.mark.parametrize(
    "data",
    [
        None,
        True,
        0,
        2**70,
        1.5,
        "x",
        [],
        {},
        [1, [2, {"a": None}]],
        {"name": "Ada", "tags": ["x", 1.5, False]},
    ],
)
def test_json_is_copied(data: Any) -> None:
    copy = copy_of_json(data)
    assert copy == data
    assert not isinstance(data, list | dict) or copy is not data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (object(), r"data is object$"),
        (b"x", r"data is bytes$"),
        ((1, 2), r"data is tuple, write a list$"),
        ({1, 2}, r"data is set, write a list$"),
        (deque(), r"data is deque$"),
        (math.nan, r"data is nan$"),
        ([1, {"at": [math.inf]}], r"data\[1\]\['at'\]\[0\] is inf$"),
        ({"who": {"ws": object()}}, r"data\['who'\]\['ws'\] is object$"),
        ({"by": {1: "x"}}, r"a key of data\['by'\] is not str but int$"),
        (ITSELF, "at most 32 levels deep"),
    ],
)
def test_what_is_not_json_is_refused_and_the_part_is_named(data: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        copy_of_json(data)


async def test_joining_with_data_that_are_not_json_changes_nothing() -> None:
    room = Room("lobby")
    with pytest.raises(TypeError, match="data of a member are JSON"):
        async with room.join(connect().connection, object()):
            pytest.fail("joined")
    assert room.members == ()
    async with room.join(connect().connection, "x") as member:
        with pytest.raises(TypeError, match="data of a member are JSON"):
            member.data = {"ws": member.ws}
        assert room.present() == [member.data] == ["x"]


async def test_data_are_seen_as_they_were_when_they_were_set() -> None:
    room = Room("lobby")
    data = {"tags": ["a"]}
    async with room.join(connect().connection, data) as member:
        data["tags"].append("b")
        assert room.present() == [{"tags": ["a"]}]
        member.data = data
        assert room.present() == [{"tags": ["a", "b"]}]
