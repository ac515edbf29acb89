"""What one peer can take from the others, their time and the server's memory, is bounded for any frames."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import signal
import ssl
import subprocess
import sys
import time
import tracemalloc
import warnings
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trustme

from tests.promises.rawclient import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Client,
    End,
    close_frame,
    frame,
    upgrade_request,
)
from tests.promises.stage import PATIENT, SILENT, Stage, new_app
from tests.waiting import until
from wsframework import App, Connection, Deflate, Keepalive, Limits, Request, Timeouts
from wsframework.server import Server

MIB = 1024 * 1024

MEASURED_SECONDS = 0.4
"""How long echoes beside a flood are measured: a few dozen of them, of which the median counts."""


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Deaf:
    """An app whose handler receives nothing until it is told to, and then everything."""

    def __init__(self, limits: Limits | None = None, compression: Deflate | None = None) -> None:
        self.app = App(limits=limits, timeouts=PATIENT, keepalive=SILENT, compression=compression)
        self.free = trio.Event()
        self.received: list[str | bytes] = []
        self.over = trio.Event()

        @self.app.websocket("/")
        async def handler(ws: Connection) -> None:
            await self.free.wait()
            async for message in ws:
                self.received.append(message)
            self.over.set()


# Memory


async def test_small_deflate_bombs_for_a_handler_that_does_not_receive_are_held_back(stage: Stage) -> None:
    deaf = Deaf(compression=Deflate())
    server = await stage.serve(deaf.app)
    client = await stage.dial(server)
    await client.upgrade("/", extensions="permessage-deflate; client_no_context_takeover")
    bombs = [bytes([number]) * MIB for number in range(40)]
    data = b"".join(frame(BINARY, deflated(bomb), rsv1=True) for bomb in bombs)
    assert len(data) < 64 * 1024, "all of it is in one read"
    tracemalloc.start()
    try:
        await client.send(data, close_frame())
        await trio.sleep(0.3)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.5 * MIB, "Limits.unread_bytes, and one message"
    assert peak < 3.5 * MIB, "of which there are two copies while it is put together"
    deaf.free.set()
    await deaf.over.wait()
    assert deaf.received == bombs
    assert [found.close_code for found in await client.read_to_end()] == [1000]


@pytest.mark.parametrize("size", [0, 1, 2, 30])
async def test_tiny_messages_for_a_handler_that_does_not_receive_are_held_back(
    stage: Stage, size: int
) -> None:
    deaf = Deaf(Limits(unread_bytes=20_000))
    server = await stage.serve(deaf.app)
    client = await stage.connect(server)
    count = 60_000 // (6 + size)
    tracemalloc.start()
    try:
        await client.send(frame(BINARY, b"x" * size) * count, close_frame())
        await trio.sleep(0.2)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 20_000 + 64 * 1024 + 50_000, "the budget, one read, and what Python needs"
    deaf.free.set()
    await deaf.over.wait()
    assert deaf.received == [b"x" * size] * count
    assert [found.close_code for found in await client.read_to_end()] == [1000]


# Frames that carry nothing

NOTHING = {
    "empty fragments": (frame(TEXT, "a", fin=False), frame(CONTINUATION, fin=False)),
    "fragments of a byte": (frame(TEXT, "a", fin=False), frame(CONTINUATION, "x", fin=False)),
    "empty pings": (b"", frame(PING)),
    "empty pongs": (b"", frame(PONG)),
    "empty messages": (b"", frame(TEXT)),
}


@pytest.mark.parametrize("kind", NOTHING)
async def test_a_flood_of_frames_that_carry_nothing_is_1008(stage: Stage, kind: str) -> None:
    app = new_app()

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        async for _ in ws:
            pass

    server = await stage.serve(app)
    client = await stage.connect(server)
    once, flood = NOTHING[kind]
    await client.send(once)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                while True:
                    await client.send(flood * 5_000)

        found = await client.next_frame()
        while found.opcode == PONG:
            found = await client.next_frame()
        nursery.cancel_scope.cancel()
    assert (found.opcode, found.close_code) == (CLOSE, 1008)
    assert "carry nothing" in found.close_reason
    client.vanish()
    await until(lambda: not server.statistics().connections)


async def test_programs_that_send_much_of_something_are_not_failed(stage: Stage) -> None:
    app = new_app(limits=Limits(message_bytes=8 * MIB))
    received: list[int] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        async for message in ws:
            received.append(len(message))

    server = await stage.serve(app)
    client = await stage.connect(server)
    # A game, a message in Autobahn's most fragments, one in chops, and more pings than anybody needs.
    await client.send(frame(TEXT, "x" * 12) * 100_000)
    await client.send(
        frame(BINARY, b"x" * 64, fin=False),
        frame(CONTINUATION, b"x" * 64, fin=False) * 65_534,
        frame(CONTINUATION, b"x" * 64),
    )
    await client.send(frame(TEXT, "a", fin=False), frame(CONTINUATION, "b", fin=False) * 20_000)
    await client.send(frame(CONTINUATION, "c"), frame(PONG) * 10_000, frame(TEXT) * 10_000)
    chops = frame(BINARY, b"x" * 3_000)
    for start in range(0, len(chops), 1):
        await client.send(chops[start : start + 1])
    await client.close_well()
    assert sum(received) == 12 * 100_000 + 64 * 65_536 + 20_002 + 3_000
    assert client.end is End.FIN


# Time

FLOODS = {
    **NOTHING,
    "messages of a byte": (b"", frame(TEXT, "x")),
    "messages of 30 bytes": (b"", frame(TEXT, "x" * 30)),
    "compressed messages of a byte": (b"", frame(TEXT, deflated(b"x"), rsv1=True)),
    "deflate bombs": (b"", frame(BINARY, deflated(bytes(MIB)), rsv1=True)),
}


def echoing(keepalive: Keepalive = SILENT) -> App:
    # Without the limit, so that the flood does not end.
    app = App(limits=Limits(unpaid_frames=None), timeouts=PATIENT, keepalive=keepalive, compression=Deflate())

    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            # Deflating a mebibyte is the handler's own doing.
            await ws.send(message[:1000])

    return app


@contextlib.asynccontextmanager
async def flooding(
    server: Server, kind: str, directory: Path, *, clients: int = 20, tls: bool = False
) -> AsyncIterator[None]:
    once, forever = FLOODS[kind]
    plan = {
        "request": upgrade_request(
            headers=[("Sec-WebSocket-Extensions", "permessage-deflate; client_no_context_takeover")]
        ),
        "once": once,
        "forever": forever * (200_000 // len(forever)),
        "tls": tls,
    }
    file = directory / "plan"
    file.write_bytes(pickle.dumps(plan))
    program = [sys.executable, str(Path(__file__).with_name("flooder.py")), str(server.port)]
    async with trio.open_nursery() as nursery:
        run = functools.partial(trio.run_process, stdout=subprocess.PIPE, check=False)
        process = await nursery.start(run, [*program, str(clients), str(file)])
        assert (await process.stdout.receive_some(100)).strip() == b"ready"
        yield
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("kind", FLOODS)
async def test_an_echo_beside_a_flood_takes_a_moment(stage: Stage, kind: str, tmp_path: Path) -> None:
    server = await stage.serve(echoing(Keepalive(interval=0.1, timeout=2)))
    client, quiet = await stage.connect(server), await stage.connect(server)
    async with flooding(server, kind, tmp_path), trio.open_nursery() as nursery:
        nursery.start_soon(answer_pings, quiet)
        waits = await measure(client)
        nursery.cancel_scope.cancel()
    assert quiet.end is None, "the keepalive has closed somebody who answered"
    # It is 5 to 15 ms; without turns it was seconds.
    assert waits[len(waits) // 2] < 0.06


@pytest.mark.slow
async def test_an_echo_beside_a_flood_over_tls_takes_a_moment(stage: Stage, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    server = await stage.serve(echoing(), ssl=context)
    client = await stage.connect(server, ssl=trusting)
    async with flooding(server, "empty fragments", tmp_path, tls=True):
        waits = await measure(client)
    assert waits[len(waits) // 2] < 0.06


async def measure(client: Client) -> list[float]:
    """The processor's seconds that this process, the server and the client, needs for an echo, sorted.

    Not the clock's: what else the machine does is not what is measured.
    """
    waits = []
    until = trio.current_time() + MEASURED_SECONDS
    while trio.current_time() < until:
        start = time.process_time()
        await client.send_text("innocent")
        while (found := await client.next_frame()).opcode == PING:
            await client.send(frame(PONG, found.payload))
        assert found.text == "innocent"
        waits.append(time.process_time() - start)
    return sorted(waits)


async def answer_pings(client: Client) -> None:
    while True:
        found = await client.next_frame()
        if found.opcode == PING:
            await client.send(frame(PONG, found.payload))


# The end


async def test_a_slow_reader_gets_a_whole_page_however_short_the_close_timeout_is(stage: Stage) -> None:
    app = App(timeouts=Timeouts(close=0.3), keepalive=SILENT)
    size = 4 * MIB

    @app.http("/page")
    async def page(request: Request) -> bytes:
        return b"x" * size

    server = await stage.serve(app)
    client = await stage.dial(server, receive_buffer=16_384)
    await client.send(b"GET /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    start = trio.current_time()
    received = 0
    while received < size:
        data = await client.receive_bytes(200_000)
        assert data, f"cut off after {received} bytes"
        if received // 200_000 != (received + len(data)) // 200_000:
            await trio.sleep(0.06)
        received += len(data)
    assert trio.current_time() - start > 0.9, "three times the close timeout"


async def test_a_reader_that_stops_is_left_at_the_close_timeout(stage: Stage) -> None:
    app = App(timeouts=Timeouts(close=0.3), keepalive=SILENT)

    @app.http("/page")
    async def page(request: Request) -> bytes:
        return b"x" * 32 * MIB

    server = await stage.serve(app)
    client = await stage.dial(server, receive_buffer=16_384)
    await client.send(b"GET /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await client.receive_bytes(100_000)
    await until(lambda: not server.statistics().connections)


# Descriptors


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
async def test_a_forked_child_keeps_no_connection_alive_and_no_processor_busy(stage: Stage) -> None:
    if stage.transport != "auto":
        return  # Trio's own list of descriptors is not ours
    app = new_app()

    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    server = await stage.serve(app)
    clients = [await stage.connect(server) for _ in range(5)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that we have threads: the child does nothing
        child = os.fork()
    if not child:
        for client in clients:
            os.close(client.socket.fileno())  # the peers' ends are not its parent's in earnest
        signal.pause()
    try:
        for client in clients[:3]:
            await client.close_well()
        for client in clients[3:]:
            client.reset()
        await until(lambda: not server.statistics().connections)
        start = time.process_time()
        await trio.sleep(0.4)
        assert time.process_time() - start < 0.2, "the processor is busy with connections that are over"
        # Their numbers belong to others now.
        for _ in range(10):
            client = await stage.connect(server)
            await client.send_text("hello")
            assert (await client.next_frame()).text == "hello"
            await client.close_well()
    finally:
        os.kill(child, signal.SIGKILL)
        await trio.to_thread.run_sync(os.waitpid, child, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
async def test_who_is_dropped_hears_of_it_though_a_forked_child_has_the_sockets_too(stage: Stage) -> None:
    app = new_app(timeouts=Timeouts(handshake=0.5, close=0.5, drain=0.5))

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await trio.sleep_forever()

    server = await stage.serve(app)
    silent = await stage.dial(server)
    open_one = await stage.connect(server)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that we have threads: the child does nothing
        child = os.fork()
    if not child:
        for client in (silent, open_one):
            os.close(client.socket.fileno())  # the peers' ends are not its parent's in earnest
        signal.pause()
    try:
        with trio.fail_after(30):
            assert await silent.receive_bytes(1) == b""
        server.stop()
        await server.wait_stopped()
        # The port is free, and nobody waits in a queue from which no one accepts.
        with pytest.raises(OSError):
            await stage.dial(server)
    finally:
        os.kill(child, signal.SIGKILL)
        await trio.to_thread.run_sync(os.waitpid, child, 0)
