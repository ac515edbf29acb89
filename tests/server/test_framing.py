"""A connection in frames, without any I/O: what goes into the outbox, and what is delivered."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.server.framed import KEY, Make, Transport, close, flood, sent, text
from tests.wire.encoding import encode_text
from wsframework.closes import Closed, CloseFrame
from wsframework.config import Keepalive, Limits, Timeouts
from wsframework.server.framing import FrameTransport
from wsframework.transport import encode
from wsframework.wire import (
    Deflater,
    Opcode,
    encode_close,
    encode_frame,
    encode_ping,
    encode_pong,
)

pytestmark = pytest.mark.virtual_time

# Messages and control frames


async def test_messages_are_delivered_and_pings_answered_in_order(transport: Transport) -> None:
    transport.receive(text("a"), sent(Opcode.PING, b"1"), sent(Opcode.BINARY, b"b"), sent(Opcode.PING, b"2"))
    assert transport.receiver.messages == ["a", b"b"]
    assert transport.take() == encode_pong(b"1") + encode_pong(b"2")


async def test_pongs_reach_the_connection(transport: Transport) -> None:
    transport.receive(sent(Opcode.PONG, b"x"))
    assert transport.receiver.pongs == [b"x"]
    assert transport.take() == b""


async def test_sends_are_committed_as_whole_frames_in_order(transport: Transport) -> None:
    transport.write_raw(b"HTTP/1.1 101 ...")
    transport.send(Opcode.TEXT, b"a")
    transport.send(Opcode.PING, b"p")
    transport.send_encoded(encode("b"))
    assert transport.outbox_bytes == sum(map(len, transport.outbox))
    assert transport.take() == b"HTTP/1.1 101 ..." + encode_text("a") + encode_ping(b"p") + encode_text("b")


async def test_with_compression_every_message_goes_through_the_connections_own_compressor(
    make: Make,
) -> None:
    transport = make(deflate=True)
    transport.send(Opcode.TEXT, b"hello " * 50)
    transport.send_encoded(encode("hello " * 50))
    transport.compress()
    first, second = transport.outbox
    assert first[0] == second[0] == 0xC1, "RSV1: compressed"
    assert len(second) < len(first) < 50, "the second one refers to the first"


async def test_a_broadcast_is_counted_at_once_and_compressed_before_what_follows_it(make: Make) -> None:
    transport = make(deflate=True)
    message = encode("hello " * 50)
    transport.send_encoded(message)
    transport.send_encoded(message)
    assert transport.compressions_wanted
    assert transport.outbox == []
    assert transport.outbox_bytes == 2 * len(message.frame)
    transport.send(Opcode.TEXT, b"x" * 100)
    first, second, third = transport.outbox
    assert len(second) < len(first)
    assert transport.outbox_bytes == len(first) + len(second) + len(third)
    transport.send_encoded(message)
    transport.close(CloseFrame(1001))
    assert [piece[0] for piece in transport.outbox[3:]] == [0xC1, 0x88]
    assert transport.outbox_bytes == sum(map(len, transport.outbox))


@pytest.mark.parametrize("last", [close(), b"\x83\x80" + KEY])
async def test_a_broadcast_goes_out_before_the_answer_to_a_close_or_a_mistake(
    make: Make, last: bytes
) -> None:
    transport = make(deflate=True)
    transport.send_encoded(encode("hello"))
    transport.receive(last)
    assert [piece[0] for piece in transport.outbox] == [0xC1, 0x88]


async def test_broadcasts_that_cannot_be_compressed_now_are_compressed_later(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = make(deflate=True)
    for word in ("one", "two", "three"):
        transport.send_encoded(encode(word * 10))
    encode_one = Deflater.encode_message

    def fail(deflater: Deflater, opcode: int, payload: bytes) -> bytes:
        if payload.startswith(b"two"):
            raise MemoryError
        return encode_one(deflater, opcode, payload)

    with monkeypatch.context() as patch:
        patch.setattr(Deflater, "encode_message", fail)
        with pytest.raises(MemoryError):
            transport.send(Opcode.TEXT, b"four")
        assert len(transport.outbox) == 1
    transport.compress()
    assert len(transport.outbox) == 3
    assert transport.outbox_bytes == sum(map(len, transport.outbox))


async def test_of_pings_to_a_full_outbox_the_last_one_is_answered_once_there_is_room(make: Make) -> None:
    transport = make(limits=Limits(outbox_bytes=100))
    transport.send(Opcode.TEXT, b"x" * 101)
    for number in range(1000):
        transport.receive(sent(Opcode.PING, str(number).encode()))
    assert len(transport.outbox) == 1
    assert transport.room_wanted
    transport.take()
    assert transport.take() == encode_pong(b"999")
    assert transport.receiver.rooms == 2


# Steps, and what is held back


async def test_a_read_full_of_messages_is_delivered_in_steps(transport: Transport) -> None:
    transport.receive(flood(1_000))
    assert len(transport.receiver.messages) < 300
    assert transport.step() >= 3
    assert transport.receiver.messages == [str(number) for number in range(1_000)]
    assert transport.undecoded == 0


async def test_who_is_told_to_stop_decodes_no_more_and_goes_on_when_reading_does(
    transport: Transport,
) -> None:
    deliver = transport.receiver.deliver

    def full(message: str | bytes) -> None:
        deliver(message)
        transport.pause_reading()

    transport.receiver.deliver = full  # type: ignore[method-assign]
    transport.receive(flood(1_000))
    held = len(transport.receiver.messages)
    assert held < 300
    assert transport.step() == 0
    while transport.undecoded:
        transport.resume()
        assert transport.step() == 1
    assert transport.receiver.messages == [str(number) for number in range(1_000)]


async def test_control_frames_behind_what_is_held_back_wait_like_bytes_in_the_kernel(
    transport: Transport,
) -> None:
    transport.receive(flood(400), sent(Opcode.PING, b"there?"), close(4000))
    transport.pause_reading()
    transport.step()
    assert transport.take() == b""
    transport.resume()
    transport.step()
    assert transport.take() == encode_pong(b"there?")
    assert len(transport.receiver.receive_all()) == 400
    assert transport.take() == encode_close(4000)


async def test_a_close_some_steps_behind_the_messages_waits_for_their_handler(transport: Transport) -> None:
    transport.receive(flood(300), close(4000))
    # The handler takes all of them at once and then works for a while before it asks for more.
    received = list(transport.receiver.messages)
    while transport.steps_wanted:
        transport.receiver.messages.clear()
        transport.step()
        received += transport.receiver.messages
    transport.receiver.messages.clear()
    assert len(received) == 300
    assert transport.take() == b""
    transport.send(Opcode.TEXT, b"the answer")
    transport.receiver.receive_all()
    assert transport.take() == encode_text("the answer") + encode_close(4000)


async def test_our_close_finds_the_peers_behind_what_is_held_back(transport: Transport) -> None:
    transport.receive(flood(1_000), close(4000))
    transport.close(CloseFrame(4000))
    transport.step()
    assert transport.take() == encode_close(4000)
    assert transport.sending_ended
    transport._release()
    finished = transport.receiver.finished
    assert finished is not None
    assert finished.clean


@pytest.mark.parametrize("end", [FrameTransport._end_sending, FrameTransport.abort])
async def test_what_is_held_back_is_dropped_with_the_connection(
    transport: Transport, end: Callable[[FrameTransport], None]
) -> None:
    transport.receive(flood(1_000))
    assert transport.undecoded
    delivered = len(transport.receiver.messages)
    end(transport)
    assert transport.undecoded == 0
    transport.step()
    assert len(transport.receiver.messages) == delivered


async def test_a_peer_whose_bytes_are_held_back_is_not_taken_for_dead(transport: Transport) -> None:
    transport.receive(flood(1_000))
    for _ in range(50):
        await trio.sleep(1)
        look(transport)
    assert not transport.released


# Frames that carry nothing

NOTHING = {
    "empty fragments": sent(Opcode.CONTINUATION, b"", fin=False),
    "pings": sent(Opcode.PING),
    "pongs": sent(Opcode.PONG),
    "empty messages": text(""),
}


@pytest.mark.parametrize("kind", NOTHING)
async def test_who_sends_too_much_of_nothing_is_failed_and_told_why(make: Make, kind: str) -> None:
    transport = make(limits=Limits(unpaid_frames=1_000))
    if kind == "empty fragments":
        transport.receive(sent(Opcode.TEXT, b"a", fin=False))
    sends = 0
    while not transport.sending_ended:
        transport.receive(NOTHING[kind] * 100)
        transport.step()
        sends += 1
        assert sends < 15
        transport.receiver.receive_all()
    assert sends >= 9
    finished = transport.receiver.ended
    assert finished is not None
    assert finished.sent is not None
    assert finished.sent.code == 1008
    assert "carry nothing" in finished.sent.reason
    before = transport.take()
    transport.receive(NOTHING[kind] * 100)
    assert before
    assert transport.take() == b""


async def test_a_little_of_nothing_is_forgiven_with_time(make: Make) -> None:
    transport = make(limits=Limits(unpaid_frames=6_400))
    for _ in range(300):  # a hundred pings a second, for ever
        transport.receive(sent(Opcode.PING) * 100)
        transport.step()
        transport.take()
        await trio.sleep(1)
    assert not transport.sending_ended


async def test_without_the_limit_nothing_is_counted(make: Make) -> None:
    transport = make(limits=Limits(unpaid_frames=None))
    for _ in range(100):
        transport.receive(sent(Opcode.PONG) * 1_000)
        transport.step()
    assert not transport.sending_ended


async def test_small_frames_that_wait_are_joined(transport: Transport) -> None:
    large = b"x" * 1_000
    expected = b""
    for number in range(1_000):
        payload = large if number % 200 == 100 else b"%d" % number
        transport.send(Opcode.BINARY, payload)
        expected += encode_frame(Opcode.BINARY, payload)
        transport._join_small_frames()
    assert len(transport.outbox) < 100
    assert transport.outbox_bytes == len(expected)
    assert transport.take() == expected


# Keepalive

KEEPALIVE = Keepalive(interval=20, timeout=10)


def look(transport: Transport) -> None:
    transport.check_alive(trio.current_time(), KEEPALIVE)


async def test_a_quiet_peer_is_pinged_after_the_interval_and_lost_after_the_timeout(
    transport: Transport,
) -> None:
    await trio.sleep(19)
    look(transport)
    assert transport.take() == b""
    await trio.sleep(2)
    look(transport)
    look(transport)
    assert transport.take() == encode_ping()
    await trio.sleep(9)
    look(transport)
    assert not transport.released
    await trio.sleep(2)
    look(transport)
    assert transport.receiver.finished == Closed(None, None, None, cause="no answer to a ping for 10 s")


async def test_any_byte_is_a_sign_of_life_and_the_next_ping_has_its_own_clock(transport: Transport) -> None:
    for _ in range(5):
        await trio.sleep(21)
        look(transport)
        assert transport.take() == encode_ping()
        await trio.sleep(1)
        transport.heard_at = trio.current_time()
        look(transport)
        assert transport.take() == b""
    assert not transport.released


async def test_what_waits_to_be_read_is_read_before_a_peer_is_given_up(transport: Transport) -> None:
    await trio.sleep(20)
    look(transport)
    assert transport.take() == encode_ping()
    transport.waiting = sent(Opcode.PONG)
    await trio.sleep(50)  # in which we did not run
    look(transport)
    assert [transport.released] == [False]
    await trio.sleep(20)
    look(transport)
    assert transport.take() == encode_ping(), "and its next ping has its own clock"
    await trio.sleep(11)
    look(transport)
    assert transport.released


async def test_a_look_that_takes_a_moment_puts_the_judgement_off(transport: Transport) -> None:
    await trio.sleep(20)
    look(transport)
    await trio.sleep(11)
    transport.look_takes_a_moment = True
    look(transport)
    assert [transport.released] == [False]
    look(transport)
    assert transport.released


async def test_time_that_is_forgiven_does_not_count(transport: Transport) -> None:
    await trio.sleep(20)
    look(transport)
    assert transport.take() == encode_ping()
    await trio.sleep(15)
    transport.forgive(8)
    look(transport)
    assert [transport.released] == [False]
    await trio.sleep(4)
    look(transport)
    assert transport.released


async def test_a_peer_that_we_do_not_read_is_pinged_and_never_lost(transport: Transport) -> None:
    transport.pause_reading()
    pings = 0
    for _ in range(100):
        await trio.sleep(1)
        look(transport)
        pings += transport.take() == encode_ping()
    assert not transport.released
    assert 5 <= pings <= 6
    # Its clock starts anew when we read again.
    transport.resume_reading()
    await trio.sleep(9)
    look(transport)
    assert not transport.released


async def test_pings_do_not_pile_up_in_front_of_a_peer_that_does_not_read_either(
    transport: Transport,
) -> None:
    transport.pause_reading()
    for _ in range(100):
        await trio.sleep(10)
        look(transport)
    assert transport.outbox == [encode_ping()]


async def test_there_is_no_keepalive_once_the_connection_is_closing_or_without_an_interval(
    make: Make,
) -> None:
    closing, without = make(timeouts=Timeouts(close=1000)), make()
    closing.close(CloseFrame(1000))
    closing.take()
    await trio.sleep(100)
    look(closing)
    without.check_alive(trio.current_time(), Keepalive(interval=None))
    assert closing.take() == without.take() == b""
