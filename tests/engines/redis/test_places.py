"""Positions and messages on the wire: what was not written by an engine is an error of one kind."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsframework.engines.redis.places import (
    Entry,
    Malformed,
    Page,
    Place,
    decode_envelope,
    decode_messages,
    decode_page,
    encode_envelope,
)
from wsframework.rooms import RoomMessage


def test_a_position_is_read_back() -> None:
    place = Place("ab12", 7, "tag")
    assert Place.parse(str(place)) == place


@given(st.text())
def test_any_text_is_a_position_or_none(text: str) -> None:
    place = Place.parse(text)
    assert place is None or Place.parse(str(place)) == place


@pytest.mark.parametrize("text", ["", "a.b.c", "a.-1.c", "a.٣.c", f"a.{'9' * 16}.c", "a.1", "a.1.b.c"])
def test_what_is_no_position_is_none(text: str) -> None:
    assert Place.parse(text) is None


@pytest.mark.parametrize("message", ["", "text", "ü\x00", b"", b"\xff\x00"])
def test_a_message_is_read_back(message: str | bytes) -> None:
    assert decode_envelope(encode_envelope(RoomMessage.of(message))).data == message


def test_a_message_that_closes_the_members_is_kept_as_it_is() -> None:
    message = RoomMessage(8, b"\x0f\xa0enough")
    assert encode_envelope(message) == b"c\x0f\xa0enough"
    assert decode_envelope(encode_envelope(message)) == message


@pytest.mark.parametrize("envelope", [b"", b"x", b"t\xff", b"\x00", b"c", b"c\x03\xed", b"c\x03\xe8\xff"])
def test_what_is_no_message_is_malformed(envelope: bytes) -> None:
    with pytest.raises(Malformed):
        decode_envelope(envelope)


def test_published_messages_are_read_with_their_places() -> None:
    epoch, entries = decode_messages(b"e1 7 2", b"aa 3:t:\nbb 2:b0")
    assert epoch == "e1"
    assert entries == [Entry(7, "aa", b"t:\n"), Entry(8, "bb", b"b0")]


@given(st.binary(max_size=30), st.binary(max_size=60))
def test_anything_else_is_malformed(head: bytes, body: bytes) -> None:
    with suppress(Malformed):
        decode_messages(head[:12], body)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"e 1 1", b""),
        (b"e 1 1", b"aa 5:t"),
        (b"e 1 1", b"aa -5:t"),
        (b"e 1 2", b"aa 1:t"),
        (b"e x 1", b"aa 1:t"),
        (b"e 1", b"aa 1:t"),
        (b"\xff 1 1", b"aa 1:t"),
    ],
)
def test_messages_that_are_cut_are_malformed(head: bytes, body: bytes) -> None:
    with pytest.raises(Malformed):
        decode_messages(head, body)


def test_a_page_of_history_is_read() -> None:
    page = decode_page([b"e", 9, b"tt", [8, b"ss", b"ta", 9, b"tt", b"tb"]])
    assert page == Page(Place("e", 9, "tt"), [Entry(8, "ss", b"ta"), Entry(9, "tt", b"tb")])
    assert page.ends
    assert not decode_page([b"e", 10, b"tt", [8, b"ss", b"ta"]]).ends


@pytest.mark.parametrize(
    "reply", [None, [], [b"e", 1, b"t"], [b"e", b"x", b"t", []], [b"e", 1, b"t", [1, b"t"]], 7]
)
def test_what_is_no_page_is_malformed(reply: object) -> None:
    with pytest.raises(Malformed):
        decode_page(reply)
