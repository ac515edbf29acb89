"""What one call of a decoder does, and what a peer owes for frames that carry nothing."""

from __future__ import annotations

import pytest

from tests.wire.decoding import BINARY, CONTINUATION, KEY, MESSAGES, TEXT, masked, text_frames
from wsframework.closes import CloseCode
from wsframework.config import Limits
from wsframework.wire import (
    Budget,
    Decoder,
    Deflater,
    Event,
    Failure,
    Inflater,
    Opcode,
    Ping,
    encode_frame,
)

pytestmark = pytest.mark.usefixtures("masking", "decoding")


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
    decoder = Decoder(max_message_bytes=100_000)
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
    assert decoder.debt == 0, "with any debt, short messages are decoded in the longer way"


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
