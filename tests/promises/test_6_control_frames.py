"""Promise 6: the reader never stops for control frames, and holding a peer back never kills it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from tests.promises.rawclient import BINARY, CLOSE, PING, PONG, TEXT, Client, End, close_frame, frame
from tests.promises.stage import Stage, new_app
from tests.waiting import until
from wsframework import (
    App,
    Closed,
    Connection,
    ConnectionClosed,
    ConnectionStatistics,
    Keepalive,
    Limits,
    Timeouts,
)

QUICKLY = Keepalive(interval=0.1, timeout=0.1)


class Busy:
    """A handler that does anything but receive, until it is told to."""

    def __init__(self, app: App) -> None:
        self.statistics: Callable[[], ConnectionStatistics]
        self.closed: Callable[[], Closed | None]
        self.free = trio.Event()
        self.received: list[str | bytes] = []
        self.over = False

        @app.websocket("/")
        async def handler(ws: Connection) -> None:
            self.statistics = ws.statistics
            self.closed = lambda: ws.closed
            await ws.send("ready")
            await self.free.wait()
            async for message in ws:
                self.received.append(message)
            self.over = True

    @property
    def unread(self) -> int:
        return self.statistics().unread_messages


async def test_a_ping_behind_a_hundred_unread_messages_is_answered_while_the_handler_is_busy(
    stage: Stage,
) -> None:
    app = new_app()
    busy = Busy(app)
    server = await stage.serve(app)
    client = await stage.connect(server)
    assert await client.next_text() == "ready"
    await client.send(*(frame(TEXT, str(number)) for number in range(100)), frame(PING, "there?"))
    pong = await client.next_frame()
    assert (pong.opcode, pong.payload) == (PONG, b"there?")
    assert busy.unread == 100
    busy.free.set()
    await client.close_well()
    await until(lambda: busy.over)
    assert busy.received == [str(number) for number in range(100)]


async def test_pings_in_the_middle_of_a_fragmented_message_are_answered_at_once(stage: Stage) -> None:
    app = new_app()
    busy = Busy(app)
    server = await stage.serve(app)
    client = await stage.connect(server)
    assert await client.next_text() == "ready"
    await client.send(frame(TEXT, "half a ", fin=False), frame(PING, "1"))
    assert (await client.next_frame()).payload == b"1"
    await client.send(frame(PING, "2"), frame(0, "message"))
    assert (await client.next_frame()).payload == b"2"
    busy.free.set()
    await client.close_well()
    await until(lambda: busy.over)
    assert busy.received == ["half a message"]


async def test_a_close_is_seen_while_the_handler_is_busy(stage: Stage) -> None:
    app = new_app()
    busy = Busy(app)
    server = await stage.serve(app)
    client = await stage.connect(server)
    assert await client.next_text() == "ready"
    await client.send(close_frame(4000, "I go"))
    assert [frame.close_code for frame in await client.read_to_end()] == [4000]
    closed = busy.closed()
    assert closed is not None
    assert (closed.code, closed.reason) == (4000, "I go")


async def test_a_flood_at_a_busy_handler_is_held_back_by_tcp_and_arrives_whole_afterwards(
    stage: Stage,
) -> None:
    app = new_app(limits=Limits(unread_bytes=100_000))
    busy = Busy(app)
    server = await stage.serve(app)
    client = await stage.connect(server)
    assert await client.next_text() == "ready"
    flood = [b"%d" % number + b"x" * 10_000 for number in range(2000)]  # 20 MB: more than TCP buffers
    sent = 0

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            nonlocal sent
            for message in flood:
                await client.send(frame(BINARY, message))
                sent += 1

        progress = -1
        while progress != sent:
            progress = sent
            await trio.sleep(0.1)
        assert sent < len(flood), "TCP holds the client back"
        # The budget, and what one read brings in: 64 KiB and a bit more for what Python adds to it.
        assert busy.statistics().unread_bytes < 100_000 + 70_000
        busy.free.set()
    await client.close_well()
    await until(lambda: busy.over)
    assert busy.received == flood


async def test_a_busy_handler_with_a_full_inbox_and_a_live_peer_is_not_closed_by_the_keepalive(
    stage: Stage,
) -> None:
    app = new_app(limits=Limits(unread_bytes=1000), keepalive=QUICKLY)
    busy = Busy(app)
    server = await stage.serve(app)
    client = await stage.connect(server)
    assert await client.next_text() == "ready"
    await client.send(*(frame(TEXT, "x" * 100) for _ in range(100)))
    await until(lambda: busy.unread)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_pings, client)
        # Three ping timeouts and more.
        await trio.sleep(3.5 * (QUICKLY.timeout + 0.1))
        assert busy.closed() is None
        assert server.statistics().websockets == 1
        busy.free.set()
        await until(lambda: len(busy.received) == 100)
        # The clock runs again, and the peer is still alive.
        await trio.sleep(2 * (QUICKLY.timeout + 0.1))
        assert busy.closed() is None
        nursery.cancel_scope.cancel()
    await client.close_well()


async def answer_pings(client: Client) -> None:
    while True:
        found = await client.next_frame()
        if found.opcode == PING:
            await client.send(frame(PONG, found.payload))


async def test_a_quiet_peer_that_answers_pings_is_kept(stage: Stage) -> None:
    app = new_app(keepalive=QUICKLY)
    busy = Busy(app)
    server = await stage.serve(app)
    client = await stage.connect(server)
    with trio.move_on_after(7 * QUICKLY.timeout):
        await answer_pings(client)
    assert busy.closed() is None
    await client.close_well()


async def test_a_peer_that_sends_messages_and_no_pongs_is_alive(stage: Stage) -> None:
    app = new_app(keepalive=QUICKLY)

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        async for _ in ws:
            pass

    server = await stage.serve(app)
    client = await stage.connect(server)
    for _ in range(30):
        await client.send_text("I am busy, not dead")
        await trio.sleep(0.02)
    await client.close_well()


async def test_a_dead_peer_is_detected_and_its_handler_ends(stage: Stage) -> None:
    app = new_app(keepalive=QUICKLY)
    ended: list[Closed] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        try:
            await ws.receive()
        except ConnectionClosed as error:
            ended.append(error.closed)

    server = await stage.serve(app)
    client = await stage.connect(server)
    start = trio.current_time()
    frames = await client.read_to_end()  # it is there, but it answers nothing
    took = trio.current_time() - start
    # One ping, unless the machine let neither of us run for a time, which is forgiven.
    opcodes = [frame.opcode for frame in frames]
    assert opcodes[0] == PING
    assert set(opcodes[1:-1]) <= {PING}
    assert opcodes[-1] in (PING, CLOSE)
    assert took > 0.15
    await until(lambda: ended)
    assert ended[0].code == 1006
    assert "ping" in ended[0].cause
    await until(lambda: not server.statistics().connections)


async def test_a_peer_that_reads_slowly_is_not_taken_for_dead(stage: Stage) -> None:
    # Our ping waits behind a long message that the peer is still reading, bit by bit. Linux reports room in a
    # socket's buffer by the third, which here takes about 0.3 s.
    keepalive = Keepalive(interval=0.2, timeout=0.6)
    app = new_app(keepalive=keepalive, limits=Limits(outbox_bytes=16 * 1024 * 1024))
    ended: list[Closed | None] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await ws.send(b"x" * 12 * 1024 * 1024)
        await ws.receive()
        ended.append(ws.closed)

    server = await stage.serve(app)
    client = await stage.connect(server, receive_buffer=64 * 1024)
    data = bytearray()
    for _ in range(50):
        data += await client.receive_bytes(128 * 1024)
        await trio.sleep(0.03)
    assert client.end is None, "the server gave up a peer that was reading all the time"
    client.recorder.feed(data)
    found = await client.next_frame()
    assert len(found.payload) == 12 * 1024 * 1024
    await client.send_text("thank you")
    (close,) = (f for f in await client.close_well() if f.opcode == CLOSE)
    assert close.close_code == 1000
    assert ended == [None]


@pytest.mark.parametrize("vanish", [Client.vanish, Client.reset], ids=["FIN", "RST"])
async def test_ping_raises_at_once_when_the_peer_dies(stage: Stage, vanish: Callable[[Client], None]) -> None:
    app = new_app(timeouts=Timeouts(disconnect_grace=30))
    raised: list[ConnectionClosed] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        try:
            await ws.ping()
        except ConnectionClosed as error:
            raised.append(error)

    server = await stage.serve(app)
    client = await stage.connect(server)
    assert (await client.next_frame()).opcode == PING
    vanish(client)
    await until(lambda: raised)  # at once, not when the handler is cancelled
    assert raised[0].code == 1006


async def test_ping_returns_the_round_trip_and_ignores_pongs_that_nobody_asked_for(stage: Stage) -> None:
    app = new_app()
    round_trips: list[float] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        round_trips.append(await ws.ping())

    server = await stage.serve(app)
    client = await stage.connect(server)
    ping = await client.next_frame()
    await client.send(frame(PONG, "unsolicited"), frame(PONG))
    await trio.sleep(0.05)
    assert not round_trips
    await client.send(frame(PONG, ping.payload))
    assert (await client.next_frame()).close_code == 1000
    assert 0.04 < round_trips[0] < 3


async def test_a_peer_that_pings_and_does_not_read_fills_nobodys_memory(stage: Stage) -> None:
    app = new_app(limits=Limits(outbox_bytes=10_000))
    busy = Busy(app)
    server = await stage.serve(app)
    client = await stage.connect(server, receive_buffer=4096)
    assert await client.next_text() == "ready"
    payload = b"p" * 125
    burst = frame(PING, payload) * 1000
    for _ in range(100):  # 13 MB of pings
        await client.send(burst)
        assert busy.statistics().outbox_bytes < 10_000 + 200
    last = frame(PING, "the last one")
    await client.send(last)
    # Once it reads, the pongs are whole, in order, and the last ping has its answer (RFC 6455 §5.5.3).
    pongs = [await client.next_frame()]
    while pongs[-1].payload != b"the last one":
        pongs.append(await client.next_frame())
        assert pongs[-1].opcode == PONG
    assert {pong.payload for pong in pongs[:-1]} == {payload}
    await client.close_well()
    assert client.end is End.FIN
