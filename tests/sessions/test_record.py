from __future__ import annotations

from typing import Any

import pytest

from wsframework.sessions.record import decode_body, encode_body


@pytest.mark.parametrize("data", [None, 0, -1.5, "ü\ud800", [1, [2]], {"a": {"b": None}}, {}])
def test_a_body_is_read_as_it_was_written(data: Any) -> None:
    rooms = ["tea", "", "\ud800}:{"]
    assert decode_body(encode_body(data, rooms, 1000)) == (data, rooms)


def test_its_size_is_that_of_utf_8() -> None:
    assert len(encode_body("茶" * 100, [], 322)) == 322
    with pytest.raises(ValueError, match=r"has 322 bytes, and may have 321: .* by session.id"):
        encode_body("茶" * 100, [], 321)


@pytest.mark.parametrize("data", [object(), {1: 2}, float("nan"), (1, 2), b"x"])
def test_data_are_json(data: Any) -> None:
    with pytest.raises(TypeError, match="data of a session are JSON"):
        encode_body({"of": data}, [], 1000)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        b'{"data": 1}',
        b'{"data": 1, "rooms": 1}',
        b'{"data": 1, "rooms": [1]}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_body_is_an_error_of_one_kind(body: bytes) -> None:
    with pytest.raises(ValueError, match="not the record of a session"):
        decode_body(body)
