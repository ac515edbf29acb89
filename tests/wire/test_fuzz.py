"""Whatever bytes a peer sends: events come out, never an exception, and memory stays below the limits."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.decoding import masked, repeatable
from wsframework.errors import HandshakeError
from wsframework.wire import (
    CloseReceived,
    Decoder,
    Event,
    Failure,
    Inflater,
    Opcode,
    Ping,
    Pong,
    is_upgrade,
    judge_response,
    read_upgrade,
)

pytestmark = pytest.mark.usefixtures("masking", "decoding")

LIMIT = 200
KEY = "dGhlIHNhbXBsZSBub25jZQ=="

first_bytes = st.sampled_from(
    [0x81, 0x82, 0x01, 0x00, 0x80, 0xC1, 0xC2, 0x41, 0x89, 0x8A, 0x88]
) | st.integers(0, 255)
likely_frames = st.builds(
    lambda first, payload: bytes((first,)) + masked(Opcode.TEXT, payload)[1:],
    first_bytes,
    st.binary(max_size=130),
)
chunks = st.lists(st.binary(max_size=40) | likely_frames, max_size=12)


def check(decoder: Decoder, chunks: list[bytes]) -> None:
    over = False
    for chunk in chunks:
        for event in decoder.feed(memoryview(bytearray(chunk))):
            assert not over, "an event after the last one"
            match event:
                case str():
                    assert len(event.encode()) <= LIMIT
                case bytes():
                    assert len(event) <= LIMIT
                case Ping(payload) | Pong(payload):
                    assert len(payload) <= 125
                case CloseReceived():
                    over = True
                case Failure(_, reason):
                    assert 0 < len(reason.encode()) <= 123
                    over = True
        assert decoder.buffered_bytes <= LIMIT + 131
        assert not over or decoder.buffered_bytes == 0


@repeatable(250)
@given(chunks)
def test_any_bytes_make_events_and_no_exception(chunks: list[bytes]) -> None:
    check(Decoder(max_message_bytes=LIMIT), chunks)


@repeatable(250)
@given(chunks, st.integers(8, 15), st.booleans())
def test_any_bytes_make_events_and_no_exception_with_compression(
    chunks: list[bytes], window_bits: int, no_context_takeover: bool
) -> None:
    inflater = Inflater(window_bits=window_bits, no_context_takeover=no_context_takeover)
    check(Decoder(max_message_bytes=LIMIT, max_fragments=4, inflater=inflater), chunks)


@repeatable(200)
@given(chunks)
def test_any_bytes_make_events_and_no_exception_at_a_client(chunks: list[bytes]) -> None:
    check(Decoder(masked=False, max_message_bytes=LIMIT), chunks)


@repeatable(200)
@given(st.binary(min_size=1, max_size=80), st.lists(st.integers(0, 80), max_size=4))
def test_any_cut_of_any_bytes_makes_the_same_events(data: bytes, cuts: list[int]) -> None:
    for prefix in (b"", b"\xc1\xa0" + bytes(4), b"\x01\xa0" + bytes(4)):
        whole = Decoder(max_message_bytes=LIMIT, inflater=Inflater()).feed(prefix + data)
        decoder, events = Decoder(max_message_bytes=LIMIT, inflater=Inflater()), list[Event]()
        edges = [0, *sorted(cuts), len(prefix + data)]
        for start, end in pairwise(edges):
            events += decoder.feed((prefix + data)[start:end])
        assert without_reasons(events) == without_reasons(whole)


def without_reasons(events: list[Event]) -> list[Event]:
    """Leave out reasons: a payload that is neither DEFLATE nor UTF-8 fails by what is read of it first."""
    return [Failure(event.code, "") if isinstance(event, Failure) else event for event in events]


names = st.sampled_from(
    [
        "Upgrade",
        "connection",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "sec-websocket-protocol",
        "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Accept",
    ]
)
values = (
    st.sampled_from(
        ["websocket", "Upgrade", "13", "dGhlIHNhbXBsZSBub25jZQ==", "permessage-deflate; a=1", "a, b"]
    )
    | st.text(max_size=12)
    | st.text(' ,;="\\ab=', max_size=12)
)


@repeatable(250)
@given(st.lists(st.tuples(names, values), max_size=9), st.sampled_from(["GET", "POST"]), st.text(max_size=3))
def test_any_headers_are_an_upgrade_or_a_refusal(
    headers: list[tuple[str, str]], method: str, version: str
) -> None:
    with contextlib.suppress(HandshakeError):
        read_upgrade(method, version, headers)
    is_upgrade(headers)
    assert all(judge_response(101, headers, KEY, ["a"], ["b"]))
