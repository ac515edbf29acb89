"""The transport over any Trio stream: whole frames whatever is cancelled, and one way to the end."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
import trio
import trio.testing

from tests.wire.encoding import encode_text
from wsframework.closes import Closed, CloseFrame
from wsframework.config import Keepalive, Limits, Timeouts
from wsframework.connection import Connection
from wsframework.request import Request
from wsframework.server.ending import NoReceiver
from wsframework.server.stream import StreamTransport, end_stream
from wsframework.timers import Timers
from wsframework.wire import Decoder, Opcode, encode_close, encode_frame

KEY = b"\1\2\3\4"
TIMEOUTS = Timeouts(close=3)


def sent(opcode: int, payload: bytes = b"") -> bytes:
    return encode_frame(opcode, payload, masking_key=KEY)


class Ends:
    """A transport that runs, its connection, and the peer's end of the stream."""

    def __init__(self, stream: trio.abc.Stream, timers: Timers, limits: Limits) -> None:
        self.transport = StreamTransport(stream, limits=limits, timeouts=TIMEOUTS, timers=timers)
        self.connection = Connection(self.transport, Request("/"), limits=limits)
        self.transport.endpoint = self.connection.endpoint
        self.over = trio.Event()

    async def run(self, initial: bytes = b"") -> None:
        await self.transport.run(initial)
        self.over.set()


Begin = Callable[..., Awaitable[Ends]]


@pytest.fixture
def begin(nursery: trio.Nursery) -> Begin:
    timers = Timers()
    nursery.start_soon(timers.run)

    async def begin(stream: trio.abc.Stream, initial: bytes = b"", limits: Limits | None = None) -> Ends:
        ends = Ends(stream, timers, limits or Limits())
        nursery.start_soon(ends.run, initial)
        await trio.testing.wait_all_tasks_blocked()
        return ends

    return begin


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    data = bytearray()
    while piece := await stream.receive_some(65536):
        data += piece
    return bytes(data)


async def test_messages_go_both_ways(begin: Begin) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    ends = await begin(ours, initial=sent(Opcode.TEXT, b"behind the handshake"))
    await theirs.send_all(sent(Opcode.TEXT, b"later"))
    assert await ends.connection.receive() == "behind the handshake"
    assert await ends.connection.receive() == "later"
    for message in ("a", "b", "c"):
        await ends.connection.send(message)
    await trio.testing.wait_all_tasks_blocked()
    assert await theirs.receive_some(100) == b"".join(map(encode_text, "abc")), "batched into one write"


async def test_a_message_longer_than_one_write_arrives_whole_and_room_is_made_at_its_end(
    begin: Begin,
) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    ends = await begin(ours)
    message = "x" * 1_000_000
    await ends.connection.send(message)
    with pytest.raises(trio.WouldBlock):
        ends.connection.send_nowait("no room")
    received: list[object] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.connection.send, "waits in line")
        decoder = Decoder(masked=False, max_message_bytes=None)
        while len(received) < 2:
            received += decoder.feed(await theirs.receive_some(65536))
    assert received == [message, "waits in line"]
    await trio.testing.wait_all_tasks_blocked()
    assert ends.transport.outbox_bytes == 0


async def test_the_reader_stops_at_the_budget_and_goes_on_after_it(begin: Begin) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    ends = await begin(ours, limits=Limits(unread_bytes=1000))
    await theirs.send_all(sent(Opcode.TEXT, b"x" * 2000))
    taken = trio.Event()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            await theirs.send_all(sent(Opcode.TEXT, b"next"))
            taken.set()

        await trio.testing.wait_all_tasks_blocked()
        assert not taken.is_set()
        assert len(await ends.connection.receive()) == 2000
    assert await ends.connection.receive() == "next"


async def test_our_close_ends_with_eof_after_the_peers_answer(begin: Begin) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    ends = await begin(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.connection.aclose, 4000, "done")
        assert await theirs.receive_some(100) == encode_close(4000, "done")
        await theirs.send_all(sent(Opcode.CLOSE, (4000).to_bytes(2)))
        assert await read_all(theirs) == b""
        # What the peer still sends is read and dropped until its EOF.
        await theirs.send_all(b"anything at all" * 1000)
        await trio.testing.wait_all_tasks_blocked()
        assert not ends.over.is_set()
        await theirs.send_eof()
    await ends.over.wait()
    assert ends.connection.closed == Closed(CloseFrame(4000, "done"), CloseFrame(4000), sent_first=True)


async def test_eof_without_a_close_ends_everything(begin: Begin) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    ends = await begin(ours)
    await theirs.send_eof()
    await ends.over.wait()
    assert ends.connection.closed is not None
    assert ends.connection.closed.cause == "the peer closed TCP without a Close frame"


async def test_a_stream_that_breaks_in_reading_ends_everything(begin: Begin) -> None:
    ours, theirs = trio.testing.memory_stream_pair()

    async def broken() -> None:
        raise trio.BrokenResourceError from ConnectionResetError(104, "Connection reset by peer")

    ends = await begin(ours)
    ours.receive_stream.receive_some_hook = broken
    await theirs.send_all(sent(Opcode.PING))  # wakes the reader, which then asks for more
    await ends.over.wait()
    assert ends.connection.closed is not None
    assert ends.connection.closed.code == 1006
    assert "reset by peer" in ends.connection.closed.cause


async def test_a_stream_that_breaks_in_writing_ends_everything(begin: Begin) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    ends = await begin(ours)
    await theirs.receive_stream.aclose()
    await ends.connection.send("into the void")
    await ends.over.wait()
    assert ends.connection.closed is not None
    assert "the connection was lost" in ends.connection.closed.cause


async def test_an_abort_ends_a_writer_that_is_stuck(begin: Begin) -> None:
    ours, _theirs = trio.testing.lockstep_stream_pair()
    ends = await begin(ours)
    await ends.connection.send("nobody reads this")
    await trio.testing.wait_all_tasks_blocked()
    ends.transport.abort()
    await ends.over.wait()
    assert ends.connection.closed is not None


async def test_a_stuck_close_is_over_by_the_close_timeout(
    begin: Begin, autojump_clock: trio.testing.MockClock
) -> None:
    ours, _theirs = trio.testing.lockstep_stream_pair()
    ends = await begin(ours)
    await ends.connection.send("nobody reads this")
    start = trio.current_time()
    await ends.connection.aclose()
    assert trio.current_time() - start == pytest.approx(TIMEOUTS.close)
    assert ends.over.is_set()


async def test_cancelling_the_run_closes_the_stream_and_tells_the_connection() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    timers = Timers()
    ends = Ends(ours, timers, Limits())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await ends.connection.wait_closed()
    assert await theirs.receive_some(100) == b""


# Steps


def flood(count: int) -> bytes:
    return b"".join(sent(Opcode.TEXT, b"%d" % number) for number in range(count))


async def test_a_read_full_of_messages_is_decoded_in_steps_between_which_others_run(begin: Begin) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    ends = await begin(ours)
    await theirs.send_all(flood(3_000))
    seen: list[int] = []
    while ends.connection.statistics().messages_received < 3_000:
        await trio.lowlevel.checkpoint()
        seen.append(ends.connection.statistics().messages_received)
    assert max(b - a for a, b in pairwise([0, *seen])) <= 300
    assert [await ends.connection.receive() for _ in range(3_000)] == [str(n) for n in range(3_000)]


async def test_of_many_that_send_floods_one_at_a_time_is_decoded(begin: Begin) -> None:
    pairs = [trio.testing.memory_stream_pair() for _ in range(10)]
    all_ends = [await begin(ours) for ours, _ in pairs]
    for _, theirs in pairs:
        await theirs.send_all(flood(3_000))

    def received() -> list[int]:
        return [ends.connection.statistics().messages_received for ends in all_ends]

    while not all(received()):
        await trio.lowlevel.checkpoint()
    first = before = received()
    while max(received()) < 2_900:
        await trio.lowlevel.checkpoint()
        now = received()
        # Two, when this task comes first in one turn of the scheduler and last in the next.
        assert sum(a != b for a, b in zip(before, now, strict=True)) <= 2
        before = now
    gained = [now - then for then, now in zip(first, before, strict=True)]
    assert max(gained) - min(gained) <= 2 * 300, "and everybody in turn"


async def test_what_is_not_decoded_is_held_back_until_reading_goes_on(begin: Begin) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    ends = await begin(ours, limits=Limits(unread_bytes=1_000))
    await theirs.send_all(flood(3_000) + sent(Opcode.CLOSE, (4000).to_bytes(2)))
    await theirs.send_eof()
    await trio.testing.wait_all_tasks_blocked()
    assert ends.connection.statistics().unread_messages < 300
    received = [message async for message in ends.connection]
    assert received == [str(number) for number in range(3_000)]
    await ends.over.wait()
    assert ends.connection.closed == Closed(CloseFrame(4000), CloseFrame(4000), sent_first=False)


async def test_our_close_finds_the_peers_behind_what_is_held_back(begin: Begin) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    ends = await begin(ours, limits=Limits(unread_bytes=1_000))
    await theirs.send_all(flood(3_000) + sent(Opcode.CLOSE, (4000).to_bytes(2)))
    await theirs.send_eof()
    await trio.testing.wait_all_tasks_blocked()
    await ends.connection.aclose(4000)
    assert ends.connection.closed == Closed(CloseFrame(4000), CloseFrame(4000), sent_first=True)


async def test_a_keyboard_interrupt_never_strikes_between_a_frame_and_its_delivery(begin: Begin) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    ends = await begin(ours)
    protected: set[bool] = set()

    class Looking(NoReceiver):
        def _look(self, *_: object) -> None:
            protected.add(trio.lowlevel.currently_ki_protected())

        deliver = made_room = _look

    ends.transport.endpoint = Looking()
    ends.transport.room_wanted = True
    ends.transport.send(Opcode.TEXT, b"a")
    await theirs.send_all(flood(500))
    await trio.testing.wait_all_tasks_blocked()
    assert protected == {True}


# Clocks


async def test_a_reader_of_the_last_bytes_that_makes_progress_gets_the_close_timeout_again(
    begin: Begin, autojump_clock: trio.testing.MockClock
) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    ends = await begin(ours, limits=Limits(outbox_bytes=1_000_000))
    await ends.connection.send(bytes(400_000))
    ends.connection.endpoint.start_close(CloseFrame(1000))
    received = 0
    start = trio.current_time()
    while received < 400_000:
        received += len(await theirs.receive_some(20_000))
        await trio.sleep(0.5)
    assert trio.current_time() - start > 3 * TIMEOUTS.close
    assert not ends.over.is_set()
    await trio.sleep(2 * TIMEOUTS.close)
    assert ends.over.is_set(), "and then it did nothing any more"


async def test_a_pong_that_waits_to_be_read_is_read_before_the_peer_is_given_up(
    begin: Begin, autojump_clock: trio.testing.MockClock
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    ends = await begin(ours)
    keepalive = Keepalive(interval=20, timeout=10)
    await trio.sleep(20)
    ends.transport.check_alive(trio.current_time(), keepalive)
    await trio.testing.wait_all_tasks_blocked()
    # It answers, and before our reader can run the sweep does, much too late.
    await theirs.send_all(sent(Opcode.PONG))
    ends.transport.check_alive(trio.current_time() + 60, keepalive)
    await trio.testing.wait_all_tasks_blocked()
    ends.transport.check_alive(trio.current_time(), keepalive)
    assert not ends.over.is_set()
    assert ends.connection.closed is None


async def test_a_peer_that_is_silent_is_given_up_at_the_second_look(
    begin: Begin, autojump_clock: trio.testing.MockClock
) -> None:
    ours, _theirs = trio.testing.memory_stream_pair()
    ends = await begin(ours)
    keepalive = Keepalive(interval=20, timeout=10)
    for _ in range(34):
        await trio.sleep(1)
        ends.transport.check_alive(trio.current_time(), keepalive)
    await trio.testing.wait_all_tasks_blocked()
    assert ends.over.is_set()


# Ending a stream


class OneWay(trio.abc.Stream):
    """A stream that cannot be closed by halves."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_a_stream_that_cannot_be_half_closed_is_just_left(begin: Begin) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    ends = await begin(OneWay(ours))
    await theirs.send_all(sent(Opcode.CLOSE))
    await ends.over.wait()
    assert await read_all(theirs) == encode_close(1005)


async def test_end_stream_waits_for_the_peers_eof_unless_it_was_seen() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    with trio.fail_after(30):
        await end_stream(ours, saw_fin=True)
    assert await theirs.receive_some(1) == b""
    with trio.move_on_after(0.02) as waiting:
        await end_stream(ours)
    assert waiting.cancelled_caught
    await theirs.send_all(b"the last words")
    await theirs.send_eof()
    with trio.fail_after(30):
        await end_stream(ours)


@pytest.mark.parametrize("rude", [False, True])
async def test_end_stream_says_goodbye_in_tls_and_then_ends_what_is_below(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], rude: bool
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    server = trio.SSLStream(ours, contexts[0], server_side=True)
    client = trio.SSLStream(theirs, contexts[1], server_hostname="localhost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.do_handshake)
        nursery.start_soon(client.do_handshake)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_stream, server)
            assert await client.receive_some(100) == b""
            if rude:  # TCP ends without TLS's own goodbye, as many clients do it
                await theirs.send_eof()
            else:
                unwrapped, _ = await client.unwrap()
                assert unwrapped is theirs
                assert await theirs.receive_some(100) == b""
                await theirs.send_eof()
