from __future__ import annotations

import sys
import time
import tracemalloc
from itertools import pairwise

import pytest

from tests.wire.decoding import (
    BINARY,
    CONTINUATION,
    KEY,
    MESSAGES,
    TEXT,
    decode_every_way,
    feed_all,
    masked,
    raw_frame,
    text_frames,
)
from tests.wire.encoding import encode_binary, encode_text
from wsframework.closes import CloseCode, CloseFrame
from wsframework.wire import (
    CloseReceived,
    Decoder,
    Event,
    Failure,
    Opcode,
    Ping,
    encode_close,
    encode_frame,
    encode_ping,
)

pytestmark = pytest.mark.usefixtures("masking", "decoding")


def server() -> Decoder:
    return Decoder(max_message_bytes=100_000)


def failure(events: list[Event]) -> Failure:
    last = events[-1]
    assert isinstance(last, Failure), events
    return last


@pytest.mark.parametrize(("data", "events"), [pytest.param(*case[1:], id=case[0]) for case in MESSAGES])
def test_what_the_peer_sends_is_handed_over_however_it_is_cut(data: bytes, events: list[Event]) -> None:
    assert decode_every_way(server, data) == events


START = masked(TEXT, b"a", fin=False)

RESERVED = (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
"""Opcodes without a meaning (RFC 6455 §5.2)."""

VIOLATIONS = [
    ("RSV1 without compression", raw_frame(0xC1, b"\x00"), 1002),
    ("RSV2", raw_frame(0xA1, b"\x00"), 1002),
    ("RSV3", raw_frame(0x91, b"\x00"), 1002),
    ("RSV1 on a ping", raw_frame(0xC9, b"\x00"), 1002),
    *((f"reserved opcode {opcode}", raw_frame(0x80 | opcode, b"\x00"), 1002) for opcode in RESERVED),
    *(
        (f"a whole frame of reserved opcode {opcode}", bytes([0x80 | opcode]) + masked(TEXT, b"x")[1:], 1002)
        for opcode in RESERVED
    ),
    ("a fragmented ping", raw_frame(0x09, b"\x00"), 1002),
    ("a fragmented close", raw_frame(0x08, b"\x00"), 1002),
    ("a ping of 126 bytes", raw_frame(0x89, b"\x7e\x00\x7e", b"x" * 126), 1002),
    ("a ping of 65,536 bytes", raw_frame(0x89, b"\x7f" + (65536).to_bytes(8, "big")), 1002),
    ("an unmasked text", encode_text("Hello"), 1002),
    ("an unmasked ping", encode_ping(b""), 1002),
    ("125 in 16 bits", raw_frame(0x81, b"\x7e\x00\x7d", b"x" * 125), 1002),
    ("65,535 in 64 bits", raw_frame(0x81, b"\x7f" + (65535).to_bytes(8, "big")), 1002),
    ("a length with its highest bit set", raw_frame(0x82, b"\x7f" + b"\x80" + bytes(7)), 1002),
    ("a continuation of nothing", raw_frame(0x80, b"\x01", b"a"), 1002),
    ("a continuation after the end", text_frames(b"a", b"b") + masked(CONTINUATION, b"c"), 1002),
    ("a text within a message", START + masked(TEXT, b"b"), 1002),
    ("a binary within a message", START + masked(BINARY, b"b"), 1002),
    ("half a close code", masked(Opcode.CLOSE, b"\x03"), 1002),
    *(
        (f"close code {code}", masked(Opcode.CLOSE, code.to_bytes(2, "big")), 1002)
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
    ),
    ("a close reason that is not UTF-8", masked(Opcode.CLOSE, b"\x03\xe8\xce\xba\xe1"), 1007),
    ("a short text that is not UTF-8", masked(TEXT, b"a\xffb"), 1007),
    ("a text that is not UTF-8", masked(TEXT, b"x" * 200 + b"\xc0\x80"), 1007),
    ("a text that ends in a character", masked(TEXT, b"x" * 200 + b"\xe2\x82"), 1007),
    ("a short text that ends in a character", masked(TEXT, b"\xe2\x82"), 1007),
    ("fragments that are not UTF-8", text_frames(b"\xce", b"\xce"), 1007),
    ("fragments that end in a character", text_frames(b"\xce\xba\xe1", b"\xbd"), 1007),
    ("a surrogate", text_frames(b"\xed", b"\xa0\x80"), 1007),
    ("100,001 bytes", raw_frame(0x82, b"\x7f" + (100_001).to_bytes(8, "big")), 1009),
]


@pytest.mark.parametrize(("data", "code"), [pytest.param(*case[1:], id=case[0]) for case in VIOLATIONS])
def test_what_breaks_a_rule_fails_the_connection_however_it_is_cut(data: bytes, code: int) -> None:
    before = masked(TEXT, b"before")
    events = decode_every_way(server, before + data + masked(TEXT, b"after"))
    assert events[0] == "before"  # what came before the violation is still handed over
    assert "after" not in events  # and nothing after it
    assert failure(events).code == code
    assert 0 < len(failure(events).reason.encode()) <= 123


def test_close_codes_that_may_be_sent_are_taken() -> None:
    for code in [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]:
        events = server().feed(masked(Opcode.CLOSE, code.to_bytes(2, "big")))
        assert events == [CloseReceived(CloseFrame(code))]


# How early: the number of bytes of the second item that are enough to know better.
EARLY = [
    ("RSV1", b"", raw_frame(0xC1, b"\x7d"), 2),
    ("a reserved opcode", b"", raw_frame(0x83, b"\x7f"), 2),
    ("a fragmented control frame", b"", raw_frame(0x09, b"\x05"), 2),
    ("a long control frame", b"", raw_frame(0x89, b"\x7e\x00\x7e"), 2),
    ("an unmasked frame", b"", encode_text("x" * 1000), 2),
    ("a continuation of nothing", b"", raw_frame(0x80, b"\x7d"), 2),
    ("a text within a message", START, raw_frame(0x81, b"\x7d"), 2),
    ("a length in too many bytes", b"", raw_frame(0x81, b"\x7e\x00\x01"), 4),
    ("a length of 64 bits", b"", raw_frame(0x81, b"\x7f\xff" + bytes(7)), 10),
    ("more bytes than the limit", b"", raw_frame(0x81, b"\x7f" + (100_001).to_bytes(8, "big")), 10),
    ("more bytes than the limit leaves", START, raw_frame(0x80, b"\x7f" + (100_000).to_bytes(8, "big")), 10),
    ("an octet that is never UTF-8", b"", masked(TEXT, b"ab\xff" + b"x" * 90), 2 + 4 + 3),
    ("an octet that continues nothing", b"", masked(TEXT, b"ab\xe2x" + b"x" * 90), 2 + 4 + 4),
    ("a surrogate", b"", masked(TEXT, b"ab\xed\xa0" + b"x" * 90), 2 + 4 + 4),
    ("an overlong character", b"", masked(TEXT, b"\xe0\x80" + b"x" * 90), 2 + 4 + 2),
    ("a character above U+10FFFF", b"", masked(TEXT, b"\xf4\x90" + b"x" * 90), 2 + 4 + 2),
    ("the end inside a character", masked(TEXT, b"\xf0\x9f", fin=False), masked(CONTINUATION, b""), 6),
]


@pytest.mark.parametrize(
    ("before", "data", "enough"), [pytest.param(*case[1:], id=case[0]) for case in EARLY]
)
def test_a_violation_is_found_at_the_first_byte_that_shows_it(
    before: bytes, data: bytes, enough: int
) -> None:
    decoder = server()
    assert decoder.feed(before) == []
    assert decoder.feed(data[: enough - 1]) == []
    (event,) = decoder.feed(data[enough - 1 : enough])
    assert isinstance(event, Failure)


def test_a_violation_is_the_last_event_ever() -> None:
    decoder = server()
    assert len(decoder.feed(b"\xff\xff")) == 1
    assert decoder.feed(masked(TEXT, b"a")) == []
    assert decoder.buffered_bytes == 0


@pytest.mark.parametrize("limit", [1, 10, 125, 126, 1000, 65_536])
def test_a_message_may_have_as_many_bytes_as_the_limit_and_no_more(limit: int) -> None:
    def decoder() -> Decoder:
        return Decoder(max_message_bytes=limit)

    assert decoder().feed(masked(BINARY, bytes(limit))) == [bytes(limit)]
    assert failure(decoder().feed(masked(BINARY, bytes(limit + 1)))).code == 1009
    fragments = masked(BINARY, bytes(limit), fin=False)
    assert decoder().feed(fragments + masked(CONTINUATION, b"")) == [bytes(limit)]
    assert failure(decoder().feed(fragments + masked(CONTINUATION, b"x"))).code == 1009


def test_the_limit_counts_bytes_and_not_characters() -> None:
    decoder = Decoder(max_message_bytes=100)
    assert decoder.feed(masked(TEXT, "é".encode() * 50)) == ["é" * 50]
    assert failure(decoder.feed(masked(TEXT, "é".encode() * 51))).code == 1009


def test_control_frames_have_a_limit_of_their_own() -> None:
    assert Decoder(max_message_bytes=10).feed(masked(Opcode.PING, bytes(125))) == [Ping(bytes(125))]


def test_there_may_be_no_limit() -> None:
    message = "x" * 3_000_000
    assert Decoder(max_message_bytes=None).feed(masked(TEXT, message.encode())) == [message]


def test_a_message_may_have_as_many_fragments_as_the_limit_and_no_more() -> None:
    decoder = Decoder(max_message_bytes=None, max_fragments=3)
    assert decoder.feed(text_frames(b"a", b"b", b"c") * 2) == ["abc", "abc"]
    assert failure(decoder.feed(text_frames(b"a", b"b", b"c", b"d"))).code == CloseCode.POLICY_VIOLATION


def test_a_client_takes_unmasked_frames_only() -> None:
    def client() -> Decoder:
        return Decoder(masked=False, max_message_bytes=100_000)

    data = (
        encode_text("Hello")
        + encode_binary(b"x" * 300)
        + encode_frame(TEXT, b"\xc3", fin=False)
        + encode_ping(b"?")
        + encode_frame(CONTINUATION, b"\xa9")
        + encode_close(1000)
    )
    expected: list[Event] = ["Hello", b"x" * 300, Ping(b"?"), "é", CloseReceived(CloseFrame(1000))]
    assert decode_every_way(client, data) == expected
    assert failure(decode_every_way(client, masked(TEXT, b"Hello"))).code == 1002


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_large_message_in_pieces_is_whole(opcode: Opcode) -> None:
    payload = bytes(32 + i % 90 for i in range(1_000_003))
    data = masked(opcode, payload) + masked(TEXT, b"next")
    chunks = [data[i : i + 65_521] for i in range(0, len(data), 65_521)]
    events = feed_all(Decoder(max_message_bytes=2_000_000), map(bytearray, chunks))
    assert events == [payload.decode() if opcode == TEXT else payload, "next"]


def test_characters_cut_by_pieces_of_any_size_are_whole() -> None:
    message = "aé€🎉" * 3_000
    data = masked(TEXT, message.encode())
    for size in [1, 7, 500, 1_023, 1_024, 1_025, 4_099]:
        chunks = (data[i : i + size] for i in range(0, len(data), size))
        assert feed_all(server(), chunks) == [message]


def test_messages_are_plain_strings_and_bytes() -> None:
    for data in (masked(BINARY, b"a"), masked(BINARY, b"a" * 300), text_frames(b"a", b"b")):
        for decoder in (server(), server()):
            (event,) = feed_all(decoder, (bytearray(data[:3]), memoryview(data)[3:]))
            assert type(event) in (str, bytes)


def test_an_idle_decoder_holds_nothing() -> None:
    decoder = server()
    size = sys.getsizeof(decoder)
    assert size <= 160
    decoder.feed(masked(TEXT, b"x" * 5_000) + text_frames(b"a", b"b") + masked(Opcode.PING, b""))
    assert decoder.buffered_bytes == 0


def test_buffered_bytes_count_what_waits() -> None:
    decoder = server()
    decoder.feed(b"\x81")
    assert decoder.buffered_bytes == 1
    decoder = server()
    decoder.feed(masked(TEXT, b"x" * 50_000, fin=False))
    assert decoder.buffered_bytes == 50_000
    decoder.feed(masked(Opcode.PING, b"12345")[:-1])
    assert decoder.buffered_bytes == 50_010
    decoder.feed(b"\x00" + masked(CONTINUATION, b""))
    assert decoder.buffered_bytes == 0


def test_a_header_that_promises_much_costs_nothing_until_it_comes() -> None:
    header = raw_frame(0x82, b"\x7f" + (2**40).to_bytes(8, "big"))
    tracemalloc.start()
    try:
        decoder = Decoder(max_message_bytes=None)
        assert decoder.feed(header) == []
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_in_tiny_fragments_is_held_in_little_more_than_its_size(opcode: Opcode) -> None:
    size = 6_000
    frames = text_frames(*[b"\xc3", b"\xa9"] * (size // 2), b"")
    frames = bytes((opcode,)) + frames[1:-6]  # and the end is not there yet
    decoder = server()
    tracemalloc.start()
    try:
        for i in range(0, len(frames), 7):
            decoder.feed(frames[i : i + 7])
        assert decoder.buffered_bytes >= size
        assert tracemalloc.get_traced_memory()[1] < 3 * size
    finally:
        tracemalloc.stop()


def test_65_536_fragments_take_time_in_proportion_to_their_number() -> None:
    def seconds(fragments: int) -> float:
        data = text_frames(*[b"x"] * fragments)
        started = time.thread_time()
        assert Decoder(max_message_bytes=None).feed(data) == ["x" * fragments]
        return time.thread_time() - started

    times = [min(seconds(n) for _ in range(3)) for n in (1_024, 8_192, 65_536)]
    # Eight times the fragments: eight times the time when linear, sixty-four when quadratic.
    assert all(later < 32 * earlier for earlier, later in pairwise(times)), times


def test_the_callers_buffer_may_be_used_again() -> None:
    buffer = bytearray(masked(TEXT, b"one") + masked(TEXT, b"two")[:4])
    decoder = server()
    events = decoder.feed(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    buffer.append(0)  # and resized: no view of it is kept
    assert events + decoder.feed(masked(TEXT, b"two")[4:]) == ["one", "two"]


def test_the_key_of_a_frame_is_its_own() -> None:
    keys = [b"\x00\x00\x00\x01", KEY, b"\xff\xff\xff\xff"]
    data = b"".join(masked(CONTINUATION, b"x" * 7, fin=False, key=key) for key in keys)
    data = b"\x01" + data[1:] + masked(CONTINUATION, b"y")
    assert decode_every_way(server, data) == ["x" * 21 + "y"]
