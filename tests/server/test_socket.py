"""The transport over a socket in the hub: partial writes, and one way to the end."""

from __future__ import annotations

import random
import socket as stdlib_socket
from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing

from tests.hostile.raw import compress
from tests.waiting import until
from tests.wire.encoding import encode_text
from wsframework import Timeouts
from wsframework.closes import Closed, CloseFrame
from wsframework.config import Deflate, Limits
from wsframework.connection import Connection
from wsframework.request import Request
from wsframework.server.framing import READ_BYTES
from wsframework.server.hub import Hub, tune
from wsframework.server.pollers import READ, Poller, SelectorPoller
from wsframework.server.socket import LARGE_READ_BYTES, SocketTransport
from wsframework.timers import Timers
from wsframework.transport import encode
from wsframework.wire import (
    Decoder,
    DeflateParameters,
    Event,
    Opcode,
    encode_close,
    encode_frame,
    server_codecs,
)

KEY = b"\1\2\3\4"
TIMEOUTS = Timeouts(close=0.3, disconnect_grace=0.1, last_words=0.1, drain=1)


def sent(opcode: int, payload: bytes = b"", **options: bool) -> bytes:
    return encode_frame(opcode, payload, masking_key=KEY, **options)


class Ends:
    """A transport in a hub, its connection, and the peer's socket."""

    def __init__(self, hub: Hub, timers: Timers, limits: Limits | None = None, deflate: bool = False) -> None:
        ours, self.peer = stdlib_socket.socketpair()
        # Small buffers, so that writes are partial soon.
        ours.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, 8192)
        tune(ours)
        self.peer.setblocking(False)
        self.released = 0
        limits = limits or Limits()
        self.transport = SocketTransport(
            ours,
            hub,
            limits=limits,
            timeouts=TIMEOUTS,
            timers=timers,
            codecs=server_codecs(DeflateParameters(), Deflate()) if deflate else None,
            on_release=self._on_release,
        )
        self.connection = Connection(self.transport, Request("/"), limits=limits)
        self.transport.endpoint = self.connection.endpoint
        hub.add(ours.fileno(), self.transport, READ)

    def _on_release(self) -> None:
        self.released += 1

    def record_reads(self) -> list[int]:
        """Return a list that gets the size of every read from now on."""
        sizes: list[int] = []
        recv = self.transport._recv

        def record(size: int, flags: int = 0) -> bytes:
            sizes.append(size)
            return recv(size, flags)

        self.transport._recv = record
        return sizes

    async def read(self, size: int) -> bytes:
        """Read exactly `size` bytes, in small pieces."""
        data = bytearray()
        while len(data) < size:
            try:
                piece = self.peer.recv(min(3000, size - len(data)))
            except BlockingIOError:
                await trio.sleep(0.001)
                continue
            assert piece, f"the end after {len(data)} of {size} bytes"
            data += piece
        return bytes(data)

    async def write(self, data: memoryview) -> None:
        """Write everything, as fast as the other side takes it."""
        while data:
            try:
                data = data[self.peer.send(data) :]
            except BlockingIOError:
                await trio.sleep(0.001)

    async def read_end(self) -> None:
        await until(self._at_end)

    def _at_end(self) -> bool:
        try:
            assert self.peer.recv(1) == b""
        except BlockingIOError:
            return False
        return True


Make = Callable[..., Ends]


@pytest.fixture(params=[None, SelectorPoller], ids=["default", "selector"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    poller: Poller | None = None if request.param is None else request.param()
    hub, timers = Hub(poller), Timers()
    made: list[Ends] = []

    def make(initial: bytes = b"", limits: Limits | None = None, deflate: bool = False) -> Ends:
        ends = Ends(hub, timers, limits, deflate)
        made.append(ends)
        ends.transport.begin(initial)
        return ends

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        nursery.start_soon(timers.run)
        with trio.fail_after(30):
            yield make
        nursery.cancel_scope.cancel()
    hub.close()
    for ends in made:
        ends.peer.close()


async def test_messages_go_both_ways(make: Make) -> None:
    ends = make(initial=sent(Opcode.TEXT, b"behind the handshake"))
    ends.peer.send(sent(Opcode.TEXT, b"later"))
    assert await ends.connection.receive() == "behind the handshake"
    assert await ends.connection.receive() == "later"
    for message in "abc":
        await ends.connection.send(message)
    assert await ends.read(9) == b"".join(map(encode_text, "abc"))


@pytest.mark.parametrize("sizes", [[1_000_000], [50_000] * 20, [300] * 500, [70_000, 3, 200_000, 0, 65536]])
async def test_what_a_socket_takes_by_and_by_arrives_whole_and_in_order(make: Make, sizes: list[int]) -> None:
    ends = make(limits=Limits(outbox_bytes=10_000_000))
    dice = random.Random(7)
    messages = [dice.randbytes(size) for size in sizes]
    for message in messages:
        await ends.connection.send(message)
    await ends.connection.send("the last")
    expected = b"".join(encode_frame(Opcode.BINARY, message) for message in messages) + encode_text(
        "the last"
    )
    assert await ends.read(len(expected)) == expected
    await until(lambda: not ends.transport.outbox_bytes)
    assert not ends.transport.outbox


async def test_frames_that_come_while_the_socket_is_full_wait_for_it(make: Make) -> None:
    ends = make(limits=Limits(outbox_bytes=10_000_000))
    await ends.connection.send("x" * 300_000)
    await trio.sleep(0.01)
    left = ends.transport.outbox_bytes
    assert 0 < left < 300_000
    for _ in range(100):
        await ends.connection.send("y" * 100)
        await trio.lowlevel.checkpoint()
    assert ends.transport.outbox_bytes == left + 100 * 102
    expected = encode_text("x" * 300_000) + encode_text("y" * 100) * 100
    assert await ends.read(len(expected)) == expected


async def test_tiny_frames_that_wait_for_the_socket_take_little_more_than_their_bytes(make: Make) -> None:
    ends = make(limits=Limits(outbox_bytes=1_000_000))
    await ends.connection.send("x" * 300_000)
    for _ in range(20_000):
        await ends.connection.send("y")
        await trio.lowlevel.cancel_shielded_checkpoint()
    assert len(ends.transport.outbox) < 500
    expected = encode_text("x" * 300_000) + encode_text("y") * 20_000
    assert await ends.read(len(expected)) == expected


async def test_a_read_does_not_try_to_write_what_the_full_socket_did_not_take(make: Make) -> None:
    ends = make(limits=Limits(outbox_bytes=10_000_000))
    await ends.connection.send("x" * 300_000)
    await until(lambda: 0 < ends.transport.outbox_bytes < 300_000)
    left = ends.transport.outbox_bytes

    def send(data: object, flags: int = 0) -> int:
        raise AssertionError("it has no room")

    ends.transport._socket_send = send
    ends.peer.send(sent(Opcode.TEXT, b"a"))
    assert await ends.connection.receive() == "a"
    assert ends.transport.outbox_bytes == left
    assert ends.connection.closed is None


async def test_a_message_for_many_is_compressed_for_each(make: Make) -> None:
    ends = make(deflate=True)
    ends.transport.send_encoded(encode("hello " * 100))
    decoder = Decoder(
        masked=False, max_message_bytes=None, inflater=server_codecs(DeflateParameters(), Deflate())[1]
    )
    received: list[Event] = []
    while not received:
        received += decoder.feed(await ends.read(1))
    assert received == ["hello " * 100]


async def test_a_burst_of_tiny_frames_is_joined_before_it_is_written(make: Make) -> None:
    ends = make()
    for _ in range(100_000):
        ends.transport.send(Opcode.TEXT, b"")
    ends.transport.flush()
    assert len(ends.transport.outbox) <= 1


async def test_reading_stops_at_the_budget_and_goes_on_below_it(make: Make) -> None:
    ends = make(limits=Limits(unread_bytes=10_000))
    flood = [str(number) + "x" * 5000 for number in range(200)]
    received: list[str | bytes] = []

    data = memoryview(b"".join(sent(Opcode.TEXT, message.encode()) for message in flood))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.write, data)
        await trio.sleep(0.02)
        assert ends.connection.statistics().unread_bytes < 10_000 + 70_000
        while len(received) < len(flood):
            received.append(await ends.connection.receive())
    assert received == flood


async def test_our_close_is_answered_and_then_both_sides_end(make: Make) -> None:
    ends = make()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.connection.aclose, 4000)
        assert await ends.read(4) == encode_close(4000)
        ends.peer.send(sent(Opcode.CLOSE, (4000).to_bytes(2)))
        await ends.read_end()
        assert ends.released == 0, "the peer may still send"
        ends.peer.send(b"anything")
        ends.peer.close()
    assert ends.released == 1
    assert ends.connection.closed == Closed(CloseFrame(4000), CloseFrame(4000), sent_first=True)


async def test_the_peers_fin_behind_its_close_is_enough(make: Make) -> None:
    ends = make()
    ends.peer.send(sent(Opcode.CLOSE, (1000).to_bytes(2)))
    ends.peer.shutdown(stdlib_socket.SHUT_WR)
    assert await ends.read(4) == encode_close(1000)
    await ends.read_end()
    await until(lambda: ends.released)
    assert ends.connection.closed is not None
    assert ends.connection.closed.clean


async def test_fin_without_a_close_ends_the_connection(make: Make) -> None:
    ends = make()
    ends.peer.close()
    await ends.connection.wait_closed()
    assert ends.connection.closed is not None
    assert ends.connection.closed.cause == "the peer closed TCP without a Close frame"
    assert ends.released == 1


async def test_a_write_that_fails_ends_the_connection(make: Make) -> None:
    ends = make(limits=Limits(unread_bytes=1))
    ends.peer.send(sent(Opcode.TEXT, b"the inbox is full now"))
    await until(lambda: ends.connection.statistics().unread_messages)
    ends.peer.close()
    await ends.connection.send("x" * 1000)
    await ends.connection.wait_closed()
    assert ends.connection.closed is not None
    assert ends.connection.closed.code == 1006
    assert await ends.connection.receive() == "the inbox is full now"


async def test_a_peer_that_answers_nothing_is_left_at_the_close_timeout(make: Make) -> None:
    ends = make()
    start = trio.current_time()
    await ends.connection.aclose()
    assert trio.current_time() - start >= TIMEOUTS.close * 0.9
    assert ends.released == 1


async def test_after_the_release_nothing_happens_any_more(make: Make) -> None:
    ends = make()
    ends.transport.abort()
    ends.transport.abort()
    ends.transport.send(Opcode.TEXT, b"too late")
    ends.transport.flush()
    ends.transport.pause_reading()
    ends.transport.resume_reading()
    await trio.sleep(0.01)
    assert ends.released == 1
    await ends.read_end()


async def test_large_reads_are_for_the_rest_of_one_large_frame_only(make: Make) -> None:
    ends = make(limits=Limits(message_bytes=2_000_000, unpaid_frames=None))
    sizes = ends.record_reads()
    fragments = sent(Opcode.CONTINUATION, b"", fin=False) * 30_000
    data = memoryview(sent(Opcode.TEXT, b"a", fin=False) + fragments + sent(Opcode.CONTINUATION, b"b"))
    await ends.write(data)
    assert await ends.connection.receive() == "ab"
    assert set(sizes) == {READ_BYTES}, "a flood that completes nothing gets none"
    sizes.clear()
    await ends.write(memoryview(sent(Opcode.BINARY, bytes(1_000_000)) + sent(Opcode.TEXT, b"next")))
    assert len(await ends.connection.receive()) == 1_000_000
    assert await ends.connection.receive() == "next"
    assert LARGE_READ_BYTES in sizes
    assert set(sizes) - {READ_BYTES, LARGE_READ_BYTES}, "and not a byte of what follows"


@pytest.mark.parametrize("deflate", [False, True])
async def test_reads_are_small_again_behind_a_large_frame(make: Make, deflate: bool) -> None:
    ends = make(limits=Limits(message_bytes=2_000_000), deflate=deflate)
    sizes = ends.record_reads()
    payload = random.Random(7).randbytes(1_000_000)  # hardly to be compressed
    frame = memoryview(sent(Opcode.BINARY, compress(payload) if deflate else payload, rsv1=deflate))
    # The first read is decoded at once, the others in steps if they are to be inflated.
    await ends.write(frame[:1000])
    await until(lambda: sizes)
    await ends.write(frame[1000:])
    assert await ends.connection.receive() == payload
    assert max(sizes) == LARGE_READ_BYTES
    sizes.clear()
    await ends.write(memoryview(sent(Opcode.TEXT, b"small")))
    assert await ends.connection.receive() == "small"
    assert set(sizes) == {READ_BYTES}


async def test_a_flood_of_tiny_messages_is_held_in_little_more_than_the_budget(make: Make) -> None:
    ends = make(limits=Limits(unread_bytes=10_000))
    messages = [str(number) for number in range(20_000)]
    data = memoryview(b"".join(sent(Opcode.TEXT, message.encode()) for message in messages))
    received: list[str | bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.write, data)
        await trio.sleep(0.05)
        for _ in range(3):
            await trio.sleep(0.01)
            assert ends.connection.statistics().unread_bytes < 10_000 + 300 * 60
        while len(received) < len(messages):
            received.append(await ends.connection.receive())
    assert received == messages


async def test_a_close_behind_a_flood_is_answered_when_the_flood_was_received(make: Make) -> None:
    ends = make(limits=Limits(unread_bytes=1_000))
    flood = b"".join(sent(Opcode.TEXT, b"%d" % number) for number in range(2_000))
    await ends.write(memoryview(flood + sent(Opcode.CLOSE, (4000).to_bytes(2))))
    ends.peer.shutdown(stdlib_socket.SHUT_WR)
    await trio.sleep(0.02)
    received = [message async for message in ends.connection]
    assert received == [str(number) for number in range(2_000)]
    assert await ends.read(4) == encode_close(4000)
    await until(lambda: ends.released)
    assert ends.connection.closed == Closed(CloseFrame(4000), CloseFrame(4000), sent_first=False)


async def test_our_close_with_undecoded_bytes_held_ends_with_the_peers_answer(make: Make) -> None:
    ends = make(limits=Limits(unread_bytes=1_000))
    await ends.write(memoryview(b"".join(sent(Opcode.TEXT, b"%d" % number) for number in range(2_000))))
    await until(lambda: ends.connection.statistics().unread_messages)
    ends.peer.send(sent(Opcode.CLOSE, (4000).to_bytes(2)))
    ends.peer.shutdown(stdlib_socket.SHUT_WR)
    await ends.connection.aclose(4000)
    assert ends.connection.closed == Closed(CloseFrame(4000), CloseFrame(4000), sent_first=True)


async def test_a_peer_that_vanishes_behind_undecoded_bytes_is_given_up_in_time(make: Make) -> None:
    ends = make(limits=Limits(unread_bytes=1_000))
    await ends.write(memoryview(b"".join(sent(Opcode.TEXT, b"%d" % number) for number in range(2_000))))
    await until(lambda: ends.connection.statistics().unread_messages)
    ends.peer.close()
    if isinstance(ends.transport._hub._poller, SelectorPoller):
        # Only epoll tells of a FIN behind bytes that nobody reads; elsewhere the keepalive's ping finds out.
        ends.transport.send(Opcode.PING, b"")
    await until(lambda: ends.connection.closed)
    assert ends.connection.closed is not None
    assert ends.connection.closed.code == 1006


async def test_a_vanished_peer_is_given_up_once_its_messages_are_no_longer_received(make: Make) -> None:
    ends = make(limits=Limits(unread_bytes=1_000))
    await ends.write(memoryview(b"".join(sent(Opcode.TEXT, b"%d" % number) for number in range(2_000))))
    await until(lambda: ends.connection.statistics().unread_messages)
    ends.peer.close()
    if isinstance(ends.transport._hub._poller, SelectorPoller):
        ends.transport.send(Opcode.PING, b"")  # as above
    else:
        for number in range(4):  # the time is counted anew after each
            await trio.sleep(TIMEOUTS.last_words / 2)
            assert await ends.connection.receive() == str(number)
    await until(lambda: ends.connection.closed)


async def test_a_peer_hears_of_the_end_of_a_connection_that_a_child_holds(make: Make) -> None:
    ends = make()
    child = stdlib_socket.fromfd(ends.transport._fd, stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM)
    with child:
        ends.transport.abort("for a test")
        await ends.read_end()
    assert ends.connection.closed is not None
    assert ends.connection.closed.cause == "for a test"


async def test_a_close_behind_a_large_outbox_waits_for_a_reader_that_makes_progress(make: Make) -> None:
    ends = make(limits=Limits(outbox_bytes=10_000_000))
    start = trio.current_time()
    await ends.connection.send(bytes(400_000))
    ends.connection.endpoint.start_close(CloseFrame(1000))
    received = 0
    while received < 400_000:
        received += len(await ends.read(20_000))
        await trio.sleep(TIMEOUTS.close / 5)
    assert trio.current_time() - start > 2 * TIMEOUTS.close
    assert ends.released == 0
