"""2,000 connections, opened, used and closed in every way, leave tasks, files and memory as they were."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio

from tests.promises.rawclient import (
    CONTINUATION,
    PING,
    TEXT,
    Client,
    close_frame,
    frame,
    upgrade_request,
)
from tests.promises.stage import QUICK, SILENT, Stage, tasks_alive, tasks_at_rest
from tests.waiting import until
from wsframework import Accept, App, Close, Connection, Deflate, Limits, Reject, Request
from wsframework.server import Server

CONNECTIONS = 2000


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep the crashes of this test out of pytest's memory."""
    logger = logging.getLogger("wsframework")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


def app_with_everything() -> App:
    app = App(
        limits=Limits(message_bytes=100_000, unread_bytes=20_000, outbox_bytes=20_000),
        timeouts=QUICK,
        keepalive=SILENT,
        compression=Deflate(),
    )

    @app.guard
    async def guard(request: Request) -> None:
        if request.path == "/refused":
            raise Reject(401, body="no")

    @app.http("/page")
    async def page(request: Request) -> str:
        return "page"

    @app.websocket("/refused")
    @app.websocket("/echo")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    async def user(request: Request) -> object:
        if "name" not in request.query:
            raise Reject(401, "no", close=4401)
        return Accept(object(), headers=[("X-Name", request.query["name"])])

    @app.websocket("/found", given={"user": user})
    async def found(ws: Connection, user: object) -> None:
        await ws.send("bye")

    @app.websocket("/returns")
    async def returns(ws: Connection) -> None:
        await ws.send("bye")

    @app.websocket("/closes")
    async def closes(ws: Connection) -> None:
        await ws.aclose(4000, "closes")

    @app.websocket("/raises")
    async def raises(ws: Connection) -> None:
        raise Close(4001, "raises")

    @app.websocket("/crashes")
    async def crashes(ws: Connection) -> None:
        raise LookupError("crashes")

    @app.websocket("/sleeps")
    async def sleeps(ws: Connection) -> None:
        ws.nursery.start_soon(trio.sleep_forever)
        await trio.sleep_forever()

    @app.websocket("/pings")
    async def pings(ws: Connection) -> None:
        await ws.ping()

    @app.websocket("/floods")
    async def floods(ws: Connection) -> None:
        with trio.move_on_after(0.01):
            while True:
                await ws.send("flood" * 1000)
        await ws.send("x" * 10_000)

    return app


async def by_the_client(client: Client) -> None:
    await client.upgrade("/echo")
    await client.send_text("hello")
    await client.next_frame()
    await client.send(close_frame(1000))
    await client.read_to_end()


def by_the_server(path: str) -> Callable[[Client], Awaitable[None]]:
    async def way(client: Client) -> None:
        await client.upgrade(path)
        while (await client.next_frame()).opcode == TEXT:
            pass
        await client.send(close_frame(1000))
        await client.read_to_end()

    return way


def by_leaving(
    path: str, messages: int, leave: Callable[[Client], None]
) -> Callable[[Client], Awaitable[None]]:
    async def way(client: Client) -> None:
        await client.upgrade(path)
        await client.send(*(frame(TEXT, "unread" * 10) for _ in range(messages)))
        leave(client)

    return way


def by_mistake(*frames: bytes, extensions: str | None = None) -> Callable[[Client], Awaitable[None]]:
    async def way(client: Client) -> None:
        await client.upgrade("/echo", extensions=extensions)
        await client.send(*frames)
        await client.read_to_end()

    return way


def by_http(request: bytes) -> Callable[[Client], Awaitable[None]]:
    async def way(client: Client) -> None:
        await client.send(request)
        await client.read_all()

    return way


async def compressed(client: Client) -> None:
    await client.upgrade("/echo", extensions="permessage-deflate; client_no_context_takeover")
    await client.send(frame(TEXT, b"\x4a\x04\x00", rsv1=True))
    assert len((await client.next_frame()).payload) in (1, 3)
    await client.send(close_frame(1000))
    await client.read_to_end()


async def unread_and_deferred(client: Client) -> None:
    await client.upgrade("/sleeps")
    await client.send(frame(TEXT, "unread"), frame(PING), close_frame(1000))
    await client.read_to_end()


async def probe(client: Client) -> None:
    client.vanish()


async def half_a_head(client: Client) -> None:
    await client.send(upgrade_request()[:50])
    client.reset()


async def never_reads(client: Client) -> None:
    await client.upgrade("/floods")
    await trio.sleep(0.05)


WAYS: list[Callable[[Client], Awaitable[None]]] = [
    by_the_client,
    by_the_server("/returns"),
    by_the_server("/closes"),
    by_the_server("/raises"),
    by_the_server("/crashes"),
    by_the_server("/floods"),
    by_leaving("/echo", 0, Client.vanish),
    by_leaving("/echo", 3, Client.reset),
    by_leaving("/sleeps", 0, Client.vanish),
    by_leaving("/sleeps", 100, Client.reset),
    by_leaving("/pings", 1, Client.vanish),
    by_mistake(frame(TEXT, "x" * 100_001)),
    by_mistake(frame(TEXT, "one"), b"\xff\xff"),
    by_mistake(frame(TEXT, b"\xff")),
    by_mistake(frame(TEXT, "half", fin=False), frame(CONTINUATION, b"\xff")),
    by_mistake(frame(TEXT, b"\xff\xff\xff", rsv1=True), extensions="permessage-deflate"),
    by_http(b"GET /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    by_http(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    by_http(b"nonsense\r\n\r\n"),
    by_http(b"GET /" + b"x" * 20_000),
    by_http(upgrade_request("/refused")),
    by_the_server("/found"),
    by_the_server("/found?name=Ada"),
    by_leaving("/found", 3, Client.reset),
    compressed,
    unread_and_deferred,
    probe,
    half_a_head,
    never_reads,
]


async def use(stage: Stage, server: Server, count: int) -> None:
    """Open `count` connections, 100 at a time, each in the next way."""
    for start in range(0, count, 100):
        async with trio.open_nursery() as nursery:
            for number in range(start, min(start + 100, count)):
                nursery.start_soon(use_one, stage, server, WAYS[number % len(WAYS)])
        stage.close_clients()


async def use_one(stage: Stage, server: Server, way: Callable[[Client], Awaitable[None]]) -> None:
    client = await stage.dial(server)
    await way(client)
    client.vanish()


async def rest(server: Server) -> None:
    await until(lambda: not server.statistics().connections)
    # The longest timer of any connection runs out, and with it the last thing that knows of it.
    await trio.sleep(max(QUICK.handshake, QUICK.close) + 0.1)
    for _ in range(3):
        gc.collect()


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def resident_bytes() -> int:
    if not sys.platform.startswith("linux"):
        return 0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
async def test_2000_connections_leave_tasks_descriptors_and_memory_as_they_were(stage: Stage) -> None:
    server = await stage.serve(app_with_everything())
    await use(stage, server, 20 * len(WAYS))  # caches fill, buffers grow to their sizes
    await rest(server)
    tasks = await tasks_at_rest()
    files, objects, blocks = descriptors(), len(gc.get_objects()), sys.getallocatedblocks()
    resident = resident_bytes()
    await use(stage, server, CONNECTIONS)
    await rest(server)
    assert server.statistics().accepted == CONNECTIONS + 20 * len(WAYS)
    assert tasks_alive() == tasks
    assert descriptors() == files
    # One object for each connection, even of one way only, would be seen here; one piece of memory that is no
    # object to the collector, for each connection, here. (Python's own lists of free objects still grow.)
    assert len(gc.get_objects()) - objects < CONNECTIONS // len(WAYS)
    assert sys.getallocatedblocks() - blocks < CONNECTIONS * 3 // 4
    # And pieces of a size that has the system allocate them: half a buffer of 64 KiB for each of one way.
    assert resident_bytes() - resident < CONNECTIONS // len(WAYS) * 32 * 1024
