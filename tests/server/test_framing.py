"""A connection in frames, without any I/O: what goes into the outbox, what is delivered, and how it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing

from tests.wire.encoding import encode_text
from wsframework.closes import Closed, CloseFrame
from wsframework.config import Deflate, Keepalive, Limits, Timeouts
from wsframework.server.framing import FrameTransport, NoReceiver
from wsframework.timers import Timers
from wsframework.transport import encode
from wsframework.wire import (
    DeflateParameters,
    Opcode,
    encode_close,
    encode_frame,
    encode_ping,
    encode_pong,
    server_codecs,
)

KEY = b"\1\2\3\4"
BAD = b"\xff\xff"


def sent(opcode: int, payload: bytes = b"", **options: bool) -> bytes:
    """A frame as a client sends it."""
    return encode_frame(opcode, payload, masking_key=KEY, **options)


def text(message: str) -> bytes:
    return sent(Opcode.TEXT, message.encode())


def close(code: int = 1000) -> bytes:
    return sent(Opcode.CLOSE, code.to_bytes(2))


class Receiver:
    """What a transport delivers to: like a Connection whose handler receives when the test says so."""

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self.pongs: list[bytes] = []
        self.rooms = 0
        self.ended: Closed | None = None
        self.finished: Closed | None = None
        self.on_idle: Callable[[], None] | None = None

    @property
    def has_unread(self) -> bool:
        return bool(self.messages)

    @property
    def messages_taken(self) -> int:
        return 0

    def deliver(self, message: str | bytes) -> None:
        self.messages.append(message)

    def deliver_pong(self, payload: bytes) -> None:
        self.pongs.append(payload)

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        self.on_idle = callback

    def made_room(self) -> None:
        self.rooms += 1

    def end(self, closed: Closed) -> None:
        self.ended = closed

    def finish(self, closed: Closed) -> None:
        self.finished = closed

    def receive_all(self) -> list[str | bytes]:
        """Receive what there is and ask for more, which is what a handler's loop does."""
        messages, self.messages = self.messages, []
        if self.on_idle is not None:
            self.on_idle()
        return messages


class Transport(FrameTransport):
    """Its outbox is taken when the test says so."""

    def __init__(self, timers: Timers, limits: Limits, timeouts: Timeouts, deflate: bool = False) -> None:
        codecs = server_codecs(DeflateParameters(), Deflate(threshold_bytes=0)) if deflate else None
        super().__init__(limits=limits, timeouts=timeouts, timers=timers, codecs=codecs)
        self.receiver = Receiver()
        self.endpoint = self.receiver
        self.released = False
        self.kernel_bytes = 0
        self.steps_wanted = 0
        self.waiting = b""
        self.look_takes_a_moment = False

    def _outbox_filled(self) -> None:
        pass

    def _release(self) -> None:
        if not self.released:
            self.released = True
            self._released()

    def pause_reading(self) -> None:
        self._reading_paused = True

    def resume_reading(self) -> None:
        self._reading_paused = False

    def _decode_soon(self) -> None:
        self.steps_wanted += 1

    def step(self) -> int:
        """Take the steps that are wanted, and return how many those were."""
        steps = 0
        while self.steps_wanted:
            self.steps_wanted -= 1
            steps += 1
            self._decode_on()
        return steps

    def resume(self) -> None:
        """Read on, as a subclass does."""
        self.resume_reading()
        if self._decoder.stopped:
            self._decode_soon()

    def _read_waiting(self) -> bool:
        if self.look_takes_a_moment:
            self.look_takes_a_moment = False
            return False
        waiting, self.waiting = self.waiting, b""
        if waiting:
            self.heard_at = trio.current_time()
            self._received(waiting)
        return True

    def _untaken_bytes(self) -> int:
        return super()._untaken_bytes() + self.kernel_bytes

    @property
    def undecoded(self) -> int:
        return self._decoder.buffered_bytes

    @property
    def reading_paused(self) -> bool:
        return self._reading_paused

    @property
    def sending_ended(self) -> bool:
        return self._sending_ended

    def take(self) -> bytes:
        """Let the pretended socket take the whole outbox."""
        data = b"".join(self.outbox)
        self.outbox.clear()
        self.outbox_bytes = 0
        self._made_room()
        return data

    def receive(self, *frames: bytes) -> None:
        self._received(b"".join(frames))

    def peer_closed(self) -> None:
        self._peer_closed()

    def broken(self) -> None:
        self._broken("the cable was cut")


Make = Callable[..., Transport]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Make transports whose timers run."""
    timers = Timers()

    def make(
        *, limits: Limits | None = None, timeouts: Timeouts | None = None, deflate: bool = False
    ) -> Transport:
        return Transport(timers, limits or Limits(), timeouts or Timeouts(), deflate)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        yield make
        nursery.cancel_scope.cancel()


# Messages and control frames


async def test_messages_are_delivered_and_pings_answered_in_order(make: Make) -> None:
    transport = make()
    transport.receive(text("a"), sent(Opcode.PING, b"1"), sent(Opcode.BINARY, b"b"), sent(Opcode.PING, b"2"))
    assert transport.receiver.messages == ["a", b"b"]
    assert transport.take() == encode_pong(b"1") + encode_pong(b"2")


async def test_pongs_reach_the_connection(make: Make) -> None:
    transport = make()
    transport.receive(sent(Opcode.PONG, b"x"))
    assert transport.receiver.pongs == [b"x"]
    assert transport.take() == b""


async def test_sends_are_committed_as_whole_frames_in_order(make: Make) -> None:
    transport = make()
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
    first, second = transport.outbox
    assert first[0] == second[0] == 0xC1, "RSV1: compressed"
    assert len(second) < len(first) < 50, "the second one refers to the first"


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


# The peer's Close


async def test_a_close_is_answered_at_once_when_nothing_is_unread(make: Make) -> None:
    transport = make()
    transport.receive(close(4000))
    assert transport.take() == encode_close(4000)
    assert transport.sending_ended
    assert transport.receiver.ended == Closed(CloseFrame(4000), CloseFrame(4000), sent_first=False)


async def test_a_close_behind_messages_is_answered_when_they_were_received_and_answered(make: Make) -> None:
    transport = make()
    transport.receive(text("a"), close())
    assert transport.take() == b""
    assert transport.receiver.ended is None
    transport.send(Opcode.TEXT, b"A")
    assert transport.receiver.receive_all() == ["a"]
    assert transport.take() == encode_text("A") + encode_close(1000)
    assert transport.sending_ended


async def test_a_close_that_comes_alone_waits_for_messages_that_are_still_unread(make: Make) -> None:
    transport = make()
    transport.receive(text("a"))
    transport.receive(close())
    assert transport.take() == b""
    transport.receiver.receive_all()
    assert transport.take() == encode_close(1000)


async def test_a_close_waits_no_longer_than_the_last_words(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    transport = make(timeouts=Timeouts(last_words=2))
    transport.receive(text("a"), close())
    await trio.sleep(1.9)
    assert transport.take() == b""
    await trio.sleep(0.2)
    assert transport.take() == encode_close(1000)
    assert transport.receiver.messages == ["a"], "it can still be received"


async def test_a_handler_that_closes_meanwhile_sends_the_answer_that_was_held_back(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    transport = make()
    transport.receive(text("a"), close(4000))
    transport.close(CloseFrame(1000, "the handler has returned"))
    assert transport.take() == encode_close(4000)
    transport.receiver.receive_all()
    await trio.sleep(10)
    assert transport.take() == b"", "no second Close"


async def test_a_peer_that_sends_fin_behind_its_close_is_still_answered(make: Make) -> None:
    transport = make()
    transport.receive(text("a"), close())
    transport.peer_closed()
    assert transport.receiver.ended is None
    transport.send(Opcode.TEXT, b"A")
    transport.receiver.receive_all()
    assert transport.take() == encode_text("A") + encode_close(1000)


# Failures


async def test_a_protocol_error_fails_the_connection_with_its_code(make: Make) -> None:
    transport = make()
    transport.receive(BAD)
    assert transport.take()[:4] == b"\x88" + transport_close_start(1002)
    assert transport.sending_ended
    ended = transport.receiver.ended
    assert ended is not None
    assert ended.sent is not None
    assert (ended.sent.code, ended.received, ended.sent_first) == (1002, None, True)
    assert "the peer broke the protocol" in ended.cause


def transport_close_start(code: int) -> bytes:
    """The length of a Close frame with the reason of `BAD`, and the code."""
    reason = "RSV2 or RSV3 is set, and no extension uses them"
    return bytes((2 + len(reason),)) + code.to_bytes(2)


async def test_a_protocol_error_behind_messages_waits_for_them(make: Make) -> None:
    transport = make()
    transport.receive(text("a"), BAD)
    assert transport.take() == b""
    transport.send(Opcode.TEXT, b"A")
    transport.receiver.receive_all()
    assert transport.take().startswith(encode_text("A") + b"\x88")


async def test_a_protocol_error_after_our_close_ends_the_connection_without_a_word(make: Make) -> None:
    transport = make()
    transport.close(CloseFrame(1000))
    transport.take()
    transport.receive(BAD)
    assert transport.take() == b""
    assert transport.sending_ended


async def test_what_comes_behind_the_end_is_ignored(make: Make) -> None:
    transport = make()
    transport.receive(close())
    transport.take()
    transport.receive(text("late"), sent(Opcode.PING, b"late"))
    assert transport.receiver.messages == []
    assert transport.take() == b""


# Our Close


async def test_our_close_is_sent_once_and_its_answer_ends_the_sending(make: Make) -> None:
    transport = make()
    transport.close(CloseFrame(4000, "x"))
    transport.close(CloseFrame(4001, "y"))
    assert transport.take() == encode_close(4000, "x")
    assert not transport.sending_ended
    transport.receive(text("crossed"), sent(Opcode.PING, b"crossed"), close(4000))
    assert transport.take() == b"", "no pong behind a Close"
    assert transport.sending_ended


async def test_a_close_is_over_by_the_close_timeout(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    transport = make(timeouts=Timeouts(close=3))
    transport.close(CloseFrame(1000))
    await trio.sleep(2.9)
    assert [transport.released] == [False]
    await trio.sleep(0.2)
    assert transport.released
    assert transport.receiver.finished == Closed(
        CloseFrame(1000), None, sent_first=True, cause="the close timeout was over"
    )


async def test_a_released_transport_has_no_timer_left(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    transport = make(timeouts=Timeouts(close=3))
    transport.receive(close())
    transport.take()
    transport._release()
    finished = transport.receiver.finished
    assert finished == Closed(CloseFrame(1000), CloseFrame(1000), sent_first=False)
    await trio.sleep(10)
    assert transport.receiver.finished is finished


async def test_a_reader_that_makes_progress_gets_the_close_timeout_again(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    transport = make(timeouts=Timeouts(close=3))
    transport.answer(b"x" * 50_000)
    transport.outbox.clear()
    transport.outbox_bytes, transport.kernel_bytes = 30_000, 20_000
    for _ in range(10):  # first out of our outbox, then out of the kernel's buffer
        await trio.sleep(2.9)
        assert [transport.released] == [False]
        if transport.outbox_bytes:
            transport.outbox_bytes -= 5_000
        else:
            transport.kernel_bytes -= 5_000
    await trio.sleep(2.9)
    assert [transport.released] == [False], "the last bytes count as well"
    await trio.sleep(3.1)
    assert transport.released


@pytest.mark.parametrize(("taken", "kept"), [(1, False), (700, False), (750, True)])
async def test_a_reader_that_is_slower_than_240_bytes_a_second_holds_nothing(
    make: Make, autojump_clock: trio.testing.MockClock, taken: int, kept: bool
) -> None:
    transport = make(timeouts=Timeouts(close=3))
    transport.send(Opcode.BINARY, bytes(50_000))
    transport.close(CloseFrame(1000))
    for _ in range(10):
        transport.outbox_bytes -= taken
        await trio.sleep(3.01)
    assert transport.released is not kept


async def test_an_answer_that_is_waiting_to_be_read_at_the_close_timeout_counts(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    transport = make(timeouts=Timeouts(close=3))
    transport.close(CloseFrame(4000))
    transport.waiting = close(4000)
    await trio.sleep(3.5)
    assert transport.sending_ended
    assert [transport.released] == [False]
    await trio.sleep(3)
    assert transport.released, "and its FIN has as much time"
    finished = transport.receiver.finished
    assert finished is not None
    assert finished.clean


async def test_messages_without_a_close_among_them_do_not_prolong_it(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    transport = make(timeouts=Timeouts(close=3))
    transport.close(CloseFrame(4000))
    transport.waiting = text("never ending") * 10
    await trio.sleep(3.1)
    assert transport.released


async def test_a_close_timeout_of_nothing_is_over_at_once(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    transport = make(timeouts=Timeouts(close=0))
    transport.close(CloseFrame(4000))
    await trio.sleep(0.1)
    assert transport.released


# Steps, and what is held back


def flood(count: int) -> bytes:
    return b"".join(text(str(number)) for number in range(count))


async def test_a_read_full_of_messages_is_delivered_in_steps(make: Make) -> None:
    transport = make()
    transport.receive(flood(1_000))
    assert len(transport.receiver.messages) < 300
    assert transport.step() >= 3
    assert transport.receiver.messages == [str(number) for number in range(1_000)]
    assert transport.undecoded == 0


async def test_who_is_told_to_stop_decodes_no_more_and_goes_on_when_reading_does(make: Make) -> None:
    transport = make()
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


async def test_control_frames_behind_what_is_held_back_wait_like_bytes_in_the_kernel(make: Make) -> None:
    transport = make()
    transport.receive(flood(400), sent(Opcode.PING, b"there?"), close(4000))
    transport.pause_reading()
    transport.step()
    assert transport.take() == b""
    transport.resume()
    transport.step()
    assert transport.take() == encode_pong(b"there?")
    assert len(transport.receiver.receive_all()) == 400
    assert transport.take() == encode_close(4000)


async def test_a_close_some_steps_behind_the_messages_waits_for_their_handler(make: Make) -> None:
    transport = make()
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


async def test_our_close_finds_the_peers_behind_what_is_held_back(make: Make) -> None:
    transport = make()
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
    make: Make, end: Callable[[FrameTransport], None]
) -> None:
    transport = make()
    transport.receive(flood(1_000))
    assert transport.undecoded
    delivered = len(transport.receiver.messages)
    end(transport)
    assert transport.undecoded == 0
    transport.step()
    assert len(transport.receiver.messages) == delivered


async def test_a_peer_whose_bytes_are_held_back_is_not_taken_for_dead(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    transport = make()
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


async def test_a_little_of_nothing_is_forgiven_with_time(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
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


async def test_small_frames_that_wait_are_joined(make: Make) -> None:
    transport = make()
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


# The transport's end


async def test_fin_without_a_close_is_the_end(make: Make) -> None:
    transport = make()
    transport.peer_closed()
    ended = transport.receiver.ended
    assert ended == Closed(None, None, None, cause="the peer closed TCP without a Close frame")
    assert ended.code == 1006
    assert transport.sending_ended


async def test_fin_after_our_close_without_an_answer_is_the_end(make: Make) -> None:
    transport = make()
    transport.close(CloseFrame(1000))
    transport.peer_closed()
    ended = transport.receiver.ended
    assert ended is not None
    assert (ended.sent, ended.received) == (CloseFrame(1000), None)
    assert transport.sending_ended


async def test_a_broken_transport_ends_the_connection_and_is_released(make: Make) -> None:
    transport = make()
    transport.send(Opcode.TEXT, b"never leaves")
    transport.broken()
    assert transport.released
    assert transport.receiver.finished == Closed(None, None, None, cause="the cable was cut")


async def test_a_transport_that_breaks_after_the_closing_handshake_was_closed_cleanly(make: Make) -> None:
    transport = make()
    transport.receive(close())
    transport.broken()
    finished = transport.receiver.finished
    assert finished is not None
    assert finished.clean
    assert finished.cause == ""


async def test_an_abort_tells_the_connection_why(make: Make) -> None:
    transport = make()
    transport.abort("the drain was over")
    assert transport.released
    assert transport.receiver.finished == Closed(None, None, None, cause="the drain was over")


# HTTP answers


async def test_an_answer_is_written_and_everything_that_comes_is_ignored(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    transport = make(timeouts=Timeouts(close=3))
    transport.answer(b"HTTP/1.1 404 Not Found\r\n\r\n")
    assert isinstance(transport.endpoint, NoReceiver)
    assert transport.sending_ended
    assert transport.take() == b"HTTP/1.1 404 Not Found\r\n\r\n"
    transport.receive(text("a"), sent(Opcode.PONG))
    transport.peer_closed()
    await trio.sleep(3.1)
    assert transport.released


# Keepalive

KEEPALIVE = Keepalive(interval=20, timeout=10)


def look(transport: Transport) -> None:
    transport.check_alive(trio.current_time(), KEEPALIVE)


async def test_a_quiet_peer_is_pinged_after_the_interval_and_lost_after_the_timeout(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    transport = make()
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


async def test_any_byte_is_a_sign_of_life_and_the_next_ping_has_its_own_clock(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    transport = make()
    for _ in range(5):
        await trio.sleep(21)
        look(transport)
        assert transport.take() == encode_ping()
        await trio.sleep(1)
        transport.heard_at = trio.current_time()
        look(transport)
        assert transport.take() == b""
    assert not transport.released


async def test_what_waits_to_be_read_is_read_before_a_peer_is_given_up(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    transport = make()
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


async def test_a_look_that_takes_a_moment_puts_the_judgement_off(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    transport = make()
    await trio.sleep(20)
    look(transport)
    await trio.sleep(11)
    transport.look_takes_a_moment = True
    look(transport)
    assert [transport.released] == [False]
    look(transport)
    assert transport.released


async def test_time_that_is_forgiven_does_not_count(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    transport = make()
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


async def test_a_peer_that_we_do_not_read_is_pinged_and_never_lost(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    transport = make()
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
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    transport = make()
    transport.pause_reading()
    for _ in range(100):
        await trio.sleep(10)
        look(transport)
    assert transport.outbox == [encode_ping()]


async def test_there_is_no_keepalive_once_the_connection_is_closing_or_without_an_interval(
    make: Make, autojump_clock: trio.testing.MockClock
) -> None:
    closing, without = make(timeouts=Timeouts(close=1000)), make()
    closing.close(CloseFrame(1000))
    closing.take()
    await trio.sleep(100)
    look(closing)
    without.check_alive(trio.current_time(), Keepalive(interval=None))
    assert closing.take() == without.take() == b""
