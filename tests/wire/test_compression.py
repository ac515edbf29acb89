from __future__ import annotations

import random
import sys
import tracemalloc
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.decoding import BINARY, CONTINUATION, TEXT, decode_every_way, feed_all, masked, repeatable
from tests.wire.encoding import encode_binary, encode_text
from wsframework.closes import CloseCode
from wsframework.wire import (
    Budget,
    Decoder,
    Deflater,
    Event,
    Failure,
    Inflater,
    Opcode,
    Ping,
    ProtocolViolation,
)

pytestmark = pytest.mark.usefixtures("masking", "decoding")


def server() -> Decoder:
    return Decoder(max_message_bytes=100_000, inflater=Inflater())


def inflate_all(inflater: Inflater, payload: bytes, limit: int | None = None) -> bytes:
    return inflater.inflate(payload, limit) + inflater.finish_message(limit)


def compressed_message(payload: bytes, *cuts: int, opcode: Opcode = TEXT) -> bytes:
    """One compressed message's frames, its compressed payload cut at the given places."""
    edges = [0, *cuts, len(payload)]
    pieces = [payload[start:end] for start, end in pairwise(edges)]
    return b"".join(
        masked(CONTINUATION if i else opcode, piece, fin=i == len(cuts), rsv1=i == 0)
        for i, piece in enumerate(pieces)
    )


# RFC 7692 §7.2.3: every way of saying "Hello".
HELLO = [
    ("one block", ["f248cdc9c90700"]),
    ("sharing the window", ["f248cdc9c90700", "f200110000"]),
    ("without compression", ["000500faff48656c6c6f00"]),
    ("a final block", ["f348cdc9c9070000"]),
    ("two blocks", ["f248050000 00ffff cac9c90700"]),
    ("final blocks, then one that is not", ["f348cdc9c9070000", "f348cdc9c9070000", "f248cdc9c90700"]),
    ("a final block without what should follow it", ["f348cdc9c90700", "f248cdc9c90700"]),
]


@pytest.mark.parametrize("messages", [pytest.param(case[1], id=case[0]) for case in HELLO])
def test_the_examples_of_the_rfc_are_read_however_they_are_cut(messages: list[str]) -> None:
    data = b"".join(compressed_message(bytes.fromhex(message)) for message in messages)
    assert decode_every_way(server, data) == ["Hello"] * len(messages)
    in_two_frames = b"".join(compressed_message(bytes.fromhex(message), 3) for message in messages)
    assert decode_every_way(server, in_two_frames) == ["Hello"] * len(messages)
    in_many_frames = b"".join(
        compressed_message(bytes.fromhex(message), *range(len(bytes.fromhex(message))))
        for message in messages
    )
    assert decode_every_way(server, in_many_frames) == ["Hello"] * len(messages)


def test_hello_is_compressed_as_the_rfc_has_it() -> None:
    deflater = Deflater()
    assert deflater.compress(b"Hello").hex() == "f248cdc9c90700"
    assert deflater.compress(b"Hello").hex() == "f200110000"  # from the window
    without = Deflater(no_context_takeover=True)
    assert [without.compress(b"Hello").hex() for _ in range(2)] == ["f248cdc9c90700"] * 2


def test_empty_messages_are_one_octet_and_leave_the_stream_in_order() -> None:
    deflater, inflater = Deflater(), Inflater()
    messages = [b"", b"", b"Hello", b"", b"Hello", b"", b""]
    payloads = [deflater.compress(message) for message in messages]
    assert [payload for message, payload in zip(messages, payloads, strict=True) if not message] == [
        b"\x00"
    ] * 5
    assert [inflate_all(inflater, payload) for payload in payloads] == messages


def test_a_compressed_message_without_an_octet_is_empty_and_leaves_the_stream_in_order() -> None:
    hello = compressed_message(bytes.fromhex("f248cdc9c90700"))
    again = compressed_message(bytes.fromhex("f200110000"))
    data = hello + compressed_message(b"") + again + compressed_message(b"", 0, 0) + again
    assert decode_every_way(server, data) == ["Hello", "", "Hello", "", "Hello"]


@repeatable(150)
@given(
    st.lists(
        st.binary(max_size=400) | st.text(st.sampled_from("ab"), max_size=400).map(str.encode), max_size=6
    ),
    st.integers(9, 15),
    st.booleans(),
    st.integers(1, 50),
)
def test_what_is_compressed_inflates_again(
    messages: list[bytes], window_bits: int, no_context_takeover: bool, cut: int
) -> None:
    deflater = Deflater(window_bits=window_bits, no_context_takeover=no_context_takeover, memory_level=5)
    inflater = Inflater(window_bits=window_bits, no_context_takeover=no_context_takeover)
    for message in messages:
        payload = deflater.compress(message)
        pieces = [inflater.inflate(payload[i : i + cut], 1_000) for i in range(0, len(payload), cut)]
        assert b"".join(pieces) + inflater.finish_message(1_000) == message


@pytest.mark.parametrize("window_bits", [9, 12, 15])
def test_a_window_is_no_larger_than_agreed(window_bits: int) -> None:
    noise = random.Random(7692).randbytes(40_000)
    payload = Deflater(window_bits=window_bits, level=9).compress(noise * 2)
    assert inflate_all(Inflater(window_bits=window_bits), payload) == noise * 2


def test_a_peer_that_looks_back_further_than_agreed_is_failed() -> None:
    block = random.Random(6455).randbytes(3_000)
    deflater, inflater = Deflater(window_bits=15, level=9), Inflater(window_bits=9)
    assert inflate_all(inflater, deflater.compress(block)) == block
    with pytest.raises(ProtocolViolation) as caught:
        inflate_all(inflater, deflater.compress(block))
    assert caught.value.code is CloseCode.INVALID_PAYLOAD


def test_eight_bits_are_read_but_not_written() -> None:
    # zlib's own compressor, asked for 8 bits, uses 9.
    deflater, inflater = Deflater(window_bits=9, level=9), Inflater(window_bits=8)
    for size in range(200, 300):
        block = random.Random(size).randbytes(size)
        for _ in range(3):
            assert inflate_all(inflater, deflater.compress(block)) == block
    for bits in (8, 16):
        with pytest.raises(ValueError, match=f"9 to 15 bits, not {bits}"):
            Deflater(window_bits=bits)


def test_a_limit_is_reached_and_not_passed() -> None:
    payload = Deflater().compress(b"x" * 1_000)
    assert inflate_all(Inflater(), payload, 1_000) == b"x" * 1_000
    for limit in (0, 1, 999):
        with pytest.raises(ProtocolViolation) as caught:
            inflate_all(Inflater(), payload, limit)
        assert caught.value.code is CloseCode.MESSAGE_TOO_BIG


@pytest.mark.parametrize("pieces", [1, 64])
def test_a_bomb_ends_in_1009_with_flat_memory(pieces: int) -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    mebibyte = bytes(1024 * 1024)
    bomb = b"".join(compressor.compress(mebibyte) for _ in range(64)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    frame = masked(BINARY, bomb[:-4], rsv1=True)
    assert len(frame) < 70_000
    limit = 256 * 1024
    decoder = Decoder(max_message_bytes=limit, inflater=Inflater())
    step = len(frame) // pieces + 1
    tracemalloc.start()
    try:
        events = feed_all(decoder, (frame[i : i + step] for i in range(0, len(frame), step)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    (event,) = events
    assert isinstance(event, Failure)
    assert event.code is CloseCode.MESSAGE_TOO_BIG
    assert peak < 4 * limit
    assert decoder.buffered_bytes == 0


def test_a_message_of_final_blocks_only_is_cut_short() -> None:
    final_block = b"\x03\x00"  # empty, and BFINAL is set
    assert decode_every_way(server, compressed_message(final_block * 32)) == [""]
    (event,) = server().feed(compressed_message(final_block * 5_000))
    assert isinstance(event, Failure)
    assert event.code is CloseCode.POLICY_VIOLATION


def test_every_message_may_end_in_a_final_block() -> None:
    hello = compressed_message(bytes.fromhex("f348cdc9c9070000"))
    assert server().feed(hello * 100) == ["Hello"] * 100


def test_pieces_that_are_small_enough_add_up_to_a_message_that_is_not() -> None:
    payload = Deflater(level=0).compress(random.Random(1).randbytes(120_000))
    frames = compressed_message(payload, 60_000, opcode=BINARY)
    events = Decoder(max_message_bytes=130_000, inflater=Inflater()).feed(frames)
    assert [len(event) for event in events if isinstance(event, bytes)] == [120_000]

    bomb = Deflater().compress(bytes(120_000))
    (event,) = server().feed(compressed_message(bomb, *range(1, len(bomb)), opcode=BINARY))
    assert isinstance(event, Failure)
    assert event.code is CloseCode.MESSAGE_TOO_BIG


def test_no_more_than_a_byte_past_the_limit_is_inflated() -> None:
    bomb = Deflater().compress(bytes(10_000_000))
    inflater = Inflater()
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolViolation):
            inflater.inflate(bomb, 100)
        assert tracemalloc.get_traced_memory()[1] < 80_000  # zlib's own window and tables are half of it
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("payload", [b"\xff" * 10, b"\x07", b"\x06" * 20, b"\x00\x05\x00\x00\x00Hello"])
def test_what_is_not_deflate_fails_the_connection(payload: bytes) -> None:
    events = decode_every_way(server, masked(TEXT, b"before") + compressed_message(payload))
    assert events[0] == "before"
    assert isinstance(events[1], Failure)
    assert events[1].code is CloseCode.INVALID_PAYLOAD


def test_text_is_checked_after_inflating_and_as_early() -> None:
    deflater = Deflater()
    frame = compressed_message(deflater.compress(b"a\xff" + b"b" * 200))
    (event,) = server().feed(frame)
    assert isinstance(event, Failure)
    assert event.code is CloseCode.INVALID_PAYLOAD

    stored = b"\x00\xff\x00\x00\xff" + b"a\xff" + b"b" * 253  # a stored block shows its bytes as they come
    decoder = server()
    frame = masked(TEXT, stored, rsv1=True)
    assert decoder.feed(frame[: 4 + 4 + 5 + 1]) == []
    (event,) = decoder.feed(frame[4 + 4 + 5 + 1 : 4 + 4 + 5 + 2])
    assert isinstance(event, Failure)


def test_control_frames_and_plain_messages_go_between_compressed_ones() -> None:
    deflater = Deflater()
    first, second = deflater.compress(b"Hello"), deflater.compress(b"Hello")
    data = (
        masked(TEXT, first[:2], fin=False, rsv1=True)
        + masked(Opcode.PING, b"?")
        + masked(CONTINUATION, first[2:])
        + masked(TEXT, b"plain")
        + compressed_message(second, 1, opcode=BINARY)
    )
    expected: list[Event] = [Ping(b"?"), "Hello", "plain", b"Hello"]
    assert decode_every_way(server, data) == expected


@pytest.mark.parametrize(
    "data",
    [
        masked(TEXT, b"", fin=False, rsv1=True) + b"\xc0" + masked(CONTINUATION, b"")[1:],
        masked(TEXT, b"", fin=False) + b"\xc0" + masked(CONTINUATION, b"")[1:],
        b"\xc9" + masked(Opcode.PING, b"")[1:],
        b"\xe1" + masked(TEXT, b"")[1:],
        b"\xa1" + masked(TEXT, b"")[1:],
        b"\xd1" + masked(TEXT, b"")[1:],
        b"\x91" + masked(TEXT, b"")[1:],
    ],
)
def test_rsv1_stands_on_first_frames_only_and_rsv2_and_rsv3_on_none(data: bytes) -> None:
    (event,) = decode_every_way(server, data)
    assert isinstance(event, Failure)
    assert event.code is CloseCode.PROTOCOL_ERROR


def test_messages_below_the_threshold_go_out_as_they_are() -> None:
    deflater = Deflater(threshold_bytes=10)
    assert deflater.encode_message(TEXT, b"x" * 9) == encode_text("x" * 9)
    assert deflater.encode_message(BINARY, b"x" * 9) == encode_binary(b"x" * 9)
    assert deflater.encode_message(TEXT, b"x" * 10)[0] == 0xC1
    assert deflater.encode_message(BINARY, b"x" * 10)[0] == 0xC2


def test_encoded_messages_come_back_in_order() -> None:
    deflater = Deflater(threshold_bytes=10)
    messages: list[Event] = ["a", "b" * 100, b"c" * 100, "", "é" * 1_000, b"d", "b" * 100]
    decoder = Decoder(masked=False, max_message_bytes=None, inflater=Inflater())
    for message in messages:
        if isinstance(message, str):
            assert decoder.feed(deflater.encode_message(TEXT, message.encode())) == [message]
        elif isinstance(message, bytes):
            assert decoder.feed(deflater.encode_message(BINARY, message)) == [message]


def test_a_stream_costs_nothing_before_its_first_message() -> None:
    tracemalloc.start()
    try:
        pair = (Deflater(), Inflater())
        assert tracemalloc.get_traced_memory()[0] < 1_000
        inflate_all(pair[1], pair[0].compress(b"Hello"))
        assert tracemalloc.get_traced_memory()[0] > 20_000  # the windows stay: that is the context
    finally:
        tracemalloc.stop()
    assert max(map(sys.getsizeof, pair)) < 100


def test_without_context_takeover_nothing_is_kept_between_messages() -> None:
    deflater, inflater = Deflater(no_context_takeover=True), Inflater(no_context_takeover=True)
    tracemalloc.start()
    try:
        for _ in range(3):
            assert inflate_all(inflater, deflater.compress(b"Hello")) == b"Hello"
        assert tracemalloc.get_traced_memory()[0] < 2_000
    finally:
        tracemalloc.stop()


def test_one_call_inflates_little_more_than_one_message_beyond_its_budget() -> None:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = (stream.compress(bytes(100_000)) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]
    decoder = Decoder(
        max_message_bytes=100_000,
        inflater=Inflater(no_context_takeover=True),
        budget=Budget(inflated_bytes=65_536, unpaid_frames=None),
    )
    frame = masked(BINARY, bomb, rsv1=True)
    calls = [decoder.feed(frame * 100)]
    while decoder.stopped:
        calls.append(decoder.feed())
    assert calls == [[bytes(100_000)]] * 100


def test_small_compressed_messages_are_counted_together() -> None:
    deflater = Deflater()
    data = b"".join(masked(Opcode.TEXT, deflater.compress(b"x" * 5_000), rsv1=True) for _ in range(60))
    decoder = Decoder(
        max_message_bytes=100_000,
        inflater=Inflater(),
        budget=Budget(inflated_bytes=65_536, unpaid_frames=None),
    )
    calls = [decoder.feed(data)]
    while decoder.stopped:
        calls.append(decoder.feed())
    assert [len(call) for call in calls] == [14, 14, 14, 14, 4]


class Counting(Inflater):
    """Takes note of how many compressed bytes it got."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0

    def inflate(self, chunk: bytes, max_output: int | None) -> bytes:
        self.taken += len(chunk)
        return super().inflate(chunk, max_output)


@pytest.mark.parametrize("pieces", [1, 7, 65_536, 300_000])
@pytest.mark.parametrize("frame_bytes", [300, 20_000, 200_000], ids="frames of {}".format)
def test_one_call_takes_a_bounded_number_of_compressed_bytes_and_loses_none(
    pieces: int, frame_bytes: int
) -> None:
    """However little they inflate to: there are blocks that hold nothing but their own tables."""
    random.seed(1)
    text = random.randbytes(130_000)  # it cannot be compressed
    payload = Deflater().compress(text)
    cut = [payload[at : at + frame_bytes] for at in range(0, len(payload), frame_bytes)]
    frames = [
        masked(BINARY if number == 0 else CONTINUATION, part, fin=part is cut[-1], rsv1=number == 0)
        for number, part in enumerate(cut)
    ]
    data = b"".join([*frames, masked(Opcode.PING, b"behind")])
    if pieces == 1:
        data = data[:3000] if frame_bytes == 300 else data[:40_000]  # byte by byte, a part will do
    inflater = Counting()
    decoder = Decoder(
        max_message_bytes=200_000,
        inflater=inflater,
        budget=Budget(inflated_bytes=65_536, unpaid_frames=None),
    )
    events: list[Event] = []
    for at in range(0, len(data), pieces):
        piece = data[at : at + pieces]
        while piece or decoder.stopped:
            before = inflater.taken
            events += decoder.feed(bytearray(piece))
            assert inflater.taken - before <= 16 * 1024 + 4
            piece = b""
    if pieces != 1:
        assert events == [text, Ping(b"behind")]


def test_bytes_that_come_while_a_compressed_frame_waits_are_kept_in_order() -> None:
    random.seed(2)
    text = random.randbytes(90_000)
    data = masked(BINARY, Deflater().compress(text), rsv1=True) + masked(Opcode.PING, b"behind")
    decoder = Decoder(
        max_message_bytes=100_000,
        inflater=Inflater(),
        budget=Budget(inflated_bytes=65_536, unpaid_frames=None),
    )
    events: list[Event] = []
    for at in range(0, len(data), 30_000):
        events += decoder.feed(data[at : at + 30_000])
        assert decoder.stopped
    while decoder.stopped:
        events += decoder.feed()
    assert events == [text, Ping(b"behind")]
