from __future__ import annotations

import sys
import time
import tracemalloc
from itertools import pairwise

import pytest

from tests.wire.decoding import KEY, decode_every_way, feed_all, masked, raw_frame, text_frames
from tests.wire.encoding import encode_binary, encode_text
from wsframework.closes import CloseCode, CloseFrame
from wsframework.config import Limits
from wsframework.wire import (
    Budget,
    CloseReceived,
    Decoder,
    Deflater,
    Event,
    Failure,
    Inflater,
    Opcode,
    Ping,
    Pong,
    encode_close,
    encode_frame,
    encode_ping,
)

pytestmark = pytest.mark.usefixtures("masking", "decoding")

TEXT, BINARY, CONTINUATION = Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION


def server() -> Decoder:
    return Decoder(max_message_bytes=100_000)


def failure(events: list[Event]) -> Failure:
    last = events[-1]
    assert isinstance(last, Failure), events
    return last


MESSAGES: list[tuple[str, bytes, list[Event]]] = [
    ("nothing", b"", []),
    ("a text", masked(TEXT, b"Hello"), ["Hello"]),
    ("a binary", masked(BINARY, b"\x00\xff"), [b"\x00\xff"]),
    ("an empty text", masked(TEXT, b""), [""]),
    ("an empty binary", masked(BINARY, b""), [b""]),
    ("beyond ASCII", masked(TEXT, "κόσμε 🎉".encode()), ["κόσμε 🎉"]),
    (
        "a run of short frames",
        masked(TEXT, b"a") + masked(BINARY, b"b") + masked(TEXT, b"c"),
        ["a", b"b", "c"],
    ),
    ("125 bytes", masked(TEXT, b"x" * 125), ["x" * 125]),
    ("126 bytes", masked(TEXT, b"x" * 126), ["x" * 126]),
    ("a zero key", masked(BINARY, b"abc", key=bytes(4)), [b"abc"]),
    ("two fragments", text_frames(b"Hel", b"lo"), ["Hello"]),
    ("fragments of nothing", text_frames(b"", b"", b""), [""]),
    ("a character over two fragments", text_frames(b"\xf0\x9f", b"\x8e", b"\x89!"), ["🎉!"]),
    (
        "binary fragments",
        masked(BINARY, b"\xff", fin=False) + masked(CONTINUATION, b"\xfe"),
        [b"\xff\xfe"],
    ),
    (
        "a message after a fragmented one",
        text_frames(b"a", b"b") + masked(TEXT, b"c") + text_frames(b"d", b"e"),
        ["ab", "c", "de"],
    ),
    (
        "control frames between fragments",
        masked(TEXT, b"a", fin=False)
        + masked(Opcode.PING, b"1")
        + masked(CONTINUATION, b"b", fin=False)
        + masked(Opcode.PONG, b"2")
        + masked(CONTINUATION, b"c"),
        [Ping(b"1"), Pong(b"2"), "abc"],
    ),
    ("a ping with 125 bytes", masked(Opcode.PING, b"p" * 125), [Ping(b"p" * 125)]),
    ("a close without a code", masked(Opcode.CLOSE, b""), [CloseReceived(CloseFrame(1005))]),
    (
        "a close",
        masked(Opcode.CLOSE, b"\x03\xe8" + "tschüß".encode()),
        [CloseReceived(CloseFrame(1000, "tschüß"))],
    ),
    (
        "a close between fragments",
        masked(TEXT, b"a", fin=False) + masked(Opcode.CLOSE, b"\x03\xe9"),
        [CloseReceived(CloseFrame(1001))],
    ),
    (
        "nothing after a close",
        masked(TEXT, b"a") + masked(Opcode.CLOSE, b"\x03\xe8") + masked(TEXT, b"b") + b"\xff\xff",
        ["a", CloseReceived(CloseFrame(1000))],
    ),
]


@pytest.mark.parametrize(("data", "events"), [pytest.param(*case[1:], id=case[0]) for case in MESSAGES])
def test_what_the_peer_sends_is_handed_over_however_it_is_cut(data: bytes, events: list[Event]) -> None:
    assert decode_every_way(server, data) == events


START = masked(TEXT, b"a", fin=False)

VIOLATIONS = [
    ("RSV1 without compression", raw_frame(0xC1, b"\x00"), 1002),
    ("RSV2", raw_frame(0xA1, b"\x00"), 1002),
    ("RSV3", raw_frame(0x91, b"\x00"), 1002),
    ("RSV1 on a ping", raw_frame(0xC9, b"\x00"), 1002),
    *((f"reserved opcode {opcode}", raw_frame(0x80 | opcode, b"\x00"), 1002) for opcode in [3, 4, 5, 6, 7]),
    *((f"reserved opcode {opcode}", raw_frame(0x80 | opcode, b"\x00"), 1002) for opcode in range(11, 16)),
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
        started = time.perf_counter()
        assert Decoder(max_message_bytes=None).feed(data) == ["x" * fragments]
        return time.perf_counter() - started

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


# Steps and debts


BUDGET = Budget(inflated_bytes=65_536, unpaid_frames=None)


def stepwise(data: bytes, decoder: Decoder) -> list[list[Event]]:
    """The events of `data`, call by call."""
    calls = [decoder.feed(data)]
    while decoder.stopped:
        calls.append(decoder.feed())
    return calls


@pytest.mark.parametrize(("data", "events"), [pytest.param(*case[1:], id=case[0]) for case in MESSAGES])
def test_steps_change_nothing_of_what_is_handed_over(data: bytes, events: list[Event]) -> None:
    flood = [
        masked(TEXT, b"x" * 20),
        masked(TEXT, b""),
        masked(Opcode.PING, b"1"),
        text_frames(b"a", b"b", b"c"),
    ]
    before = b"".join(flood) * 100
    calls = stepwise(before + data, Decoder(max_message_bytes=100_000, budget=BUDGET))
    assert len(calls) > 3
    assert [event for call in calls for event in call] == ["x" * 20, "", Ping(b"1"), "abc"] * 100 + events


@pytest.mark.parametrize(
    "flood",
    [
        masked(TEXT, b""),
        masked(TEXT, b"a"),
        masked(BINARY, b"x" * 125),
        masked(BINARY, b"x" * 126),
        masked(Opcode.PING, b""),
        masked(Opcode.PONG, b"x" * 125),
        masked(TEXT, b"x", fin=False) + masked(CONTINUATION, b""),
    ],
)
def test_one_call_hands_over_a_bounded_number_of_messages(flood: bytes) -> None:
    data = flood * (65_536 // len(flood))
    calls = stepwise(data, Decoder(max_message_bytes=100_000, budget=BUDGET))
    assert max(map(len, calls)) <= 128 + 128
    assert sum(map(len, calls)) == 65_536 // len(flood)


def test_one_call_reads_a_bounded_number_of_fragments_that_complete_nothing() -> None:
    decoder = Decoder(max_message_bytes=100_000, budget=BUDGET)
    data = masked(TEXT, b"", fin=False) + masked(CONTINUATION, b"", fin=False) * 10_000
    held = []
    assert decoder.feed(data) == []
    while decoder.stopped:
        held.append(decoder.buffered_bytes)
        assert decoder.feed() == []
    assert held[0] > len(data) - 1_000
    assert len(held) > 10_000 // 128 - 2


def test_bytes_that_come_while_some_are_held_go_behind_them() -> None:
    messages = [str(number) for number in range(1_000)]
    data = b"".join(masked(TEXT, message.encode()) for message in messages)
    decoder = Decoder(max_message_bytes=100_000, budget=BUDGET)
    received: list[Event] = []
    for start in range(0, len(data), 900):
        received += decoder.feed(data[start : start + 900])
    while decoder.stopped:
        received += decoder.feed()
    assert received == messages


def test_a_decoder_without_a_budget_never_stops() -> None:
    decoder = Decoder(max_message_bytes=100_000)
    assert len(decoder.feed(masked(TEXT, b"") * 100_000)) == 100_000
    assert not decoder.stopped


def test_a_decoder_that_has_ended_holds_nothing() -> None:
    decoder = Decoder(max_message_bytes=100_000, budget=BUDGET)
    decoder.feed(masked(TEXT, b"") * 1_000)
    assert decoder.stopped
    decoder.end()
    assert (decoder.stopped, decoder.buffered_bytes, decoder.feed(masked(TEXT, b"a"))) == (False, 0, [])


def test_a_decoder_knows_how_much_of_a_frame_is_still_to_come() -> None:
    decoder = server()
    assert decoder.unread == 0
    decoder.feed(masked(BINARY, bytes(50_000))[:10_008])
    assert decoder.unread == 40_000


CARRY_NOTHING = {
    "empty fragments": masked(CONTINUATION, b"", fin=False),
    "empty pings": masked(Opcode.PING, b""),
    "empty pongs": masked(Opcode.PONG, b""),
    "fragments of a byte": masked(CONTINUATION, b"x", fin=False),
    "empty messages": masked(TEXT, b""),
}


@pytest.mark.parametrize("kind", CARRY_NOTHING)
def test_frames_that_carry_nothing_are_counted(kind: str) -> None:
    decoder = Decoder(max_message_bytes=100_000, budget=Budget(inflated_bytes=65_536, unpaid_frames=1_000))
    if "fragments" in kind:
        decoder.feed(masked(TEXT, b"x" * 100, fin=False))
    decoder.feed(CARRY_NOTHING[kind] * 100)
    assert 80 <= decoder.unpaid_frames <= 100
    stopped = [decoder.stopped]
    for _ in range(10):
        decoder.feed(CARRY_NOTHING[kind] * 100)
    stopped.append(decoder.stopped)
    decoder.forgive(500)
    stopped.append(decoder.stopped)
    assert stopped == [False, True, False]
    failure = decoder.give_up(CloseCode.POLICY_VIOLATION, "too many")
    assert failure == Failure(CloseCode.POLICY_VIOLATION, "too many")
    assert decoder.feed(masked(TEXT, b"a")) == []


@pytest.mark.parametrize(
    "data", [masked(TEXT, b"x" * 50_000), masked(TEXT, b"x") * 8_000, masked(Opcode.PING, b"x" * 20) * 2_000]
)
def test_bytes_that_come_one_by_one_owe_nothing(data: bytes) -> None:
    decoder = Decoder(max_message_bytes=100_000, budget=Budget(inflated_bytes=65_536, unpaid_frames=10))
    for i in range(len(data)):
        decoder.feed(data[i : i + 1])
        assert not decoder.stopped


@pytest.mark.parametrize("no_context_takeover", [False, True])
def test_compressed_messages_of_a_byte_owe_nothing_and_empty_ones_do(no_context_takeover: bool) -> None:
    def decode(payload: bytes) -> Decoder:
        deflater = Deflater(no_context_takeover=no_context_takeover)
        inflater = Inflater(no_context_takeover=no_context_takeover)
        data = b"".join(
            encode_frame(TEXT, deflater.compress(payload), rsv1=True, masking_key=KEY) for _ in range(10_000)
        )
        decoder = Decoder(max_message_bytes=100_000, inflater=inflater, budget=BUDGET)
        assert [message for call in stepwise(data, decoder) for message in call] == [
            payload.decode()
        ] * 10_000
        return decoder

    assert decode(b"x").unpaid_frames == 0
    assert decode(b"").unpaid_frames > 9_000


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_pays_does_not_depend_on_how_it_is_cut(kind: type[bytes]) -> None:
    decoder = Decoder(max_message_bytes=2**20, budget=Budget(inflated_bytes=65_536, unpaid_frames=100))
    data = text_frames(*[b"x" * 16] * 10_000)
    for start in range(0, len(data), 23):
        decoder.feed(kind(data[start : start + 23]))
    assert decoder.unpaid_frames <= 1


def test_a_payload_pays_for_frames_that_carry_nothing() -> None:
    decoder = Decoder(max_message_bytes=100_000, budget=BUDGET)
    decoder.feed(masked(Opcode.PING, b"") * 100)
    decoder.feed(masked(TEXT, b"x" * 120) * 20)
    assert decoder.unpaid_frames == 0


HONEST = {
    "65,536 fragments of 16 bytes": (text_frames(*[b"x" * 16] * 65_536), 65_536),
    "pieces of 64 bytes of a message of a mebibyte": (masked(BINARY, bytes(2**20)), 64),
    "100,000 messages of 10 bytes": (masked(TEXT, b"x" * 10) * 100_000, 65_536),
    "100,000 messages of a byte": (masked(TEXT, b"x") * 100_000, 1_400),
    "messages of 200 bytes, with a ping each": (
        (masked(TEXT, b"x" * 200) + masked(Opcode.PING, b"1")) * 10_000,
        206,
    ),
}


@pytest.mark.parametrize("kind", HONEST)
def test_who_sends_something_owes_nothing(kind: str) -> None:
    data, piece = HONEST[kind]
    decoder = Decoder(max_message_bytes=2**20, budget=Budget(inflated_bytes=65_536, unpaid_frames=2_000))
    for start in range(0, len(data), piece):
        decoder.feed(data[start : start + piece])
        while decoder.stopped:
            assert decoder.unpaid_frames < 2_000
            decoder.feed()
    assert decoder.unpaid_frames <= 10


@pytest.mark.parametrize("read_bytes", [1_460, 16_384, 65_536])
@pytest.mark.parametrize("payload", [b"", b"x"])
def test_a_message_of_65_536_tiny_fragments_is_within_the_default_limit(
    payload: bytes, read_bytes: int
) -> None:
    decoder = Decoder(
        max_message_bytes=2**20,
        budget=Budget(inflated_bytes=65_536, unpaid_frames=Limits().unpaid_frames),
    )
    received: list[Event] = []
    data = text_frames(*[payload] * 65_536)
    for start in range(0, len(data), read_bytes):
        received += decoder.feed(data[start : start + read_bytes])
        while decoder.stopped:
            assert decoder.unpaid_frames <= 65_536
            received += decoder.feed()
    assert received == [payload.decode() * 65_536]
    assert decoder.unpaid_frames <= 65_536
    assert not decoder.stopped
