"""Peers that leave in the middle of something: no turn of the hub, no task and no count is left behind."""

from __future__ import annotations

import socket as stdlib_socket
import ssl as ssl_module
import time
from pathlib import Path

import pytest
import trio
import trustme

from tests.promises.rawclient import TEXT, close_frame, frame, upgrade_request
from tests.promises.stage import SILENT, Stage, new_app
from tests.waiting import until
from wsframework import App, Closed, CloseFrame, Connection, Limits, Request, Timeouts
from wsframework.server import Server
from wsframework.server.listeners import open_tcp_listeners
from wsframework.server.native import NativeServer, TransportChoice

PATIENT = Timeouts(disconnect_grace=2, last_words=2, drain=0.1)


async def busy_share(seconds: float = 0.4) -> float:
    """Return how much of one core this process takes while everybody should be waiting."""
    start = time.process_time()
    await trio.sleep(seconds)
    return (time.process_time() - start) / seconds


def sleeping_app(limits: Limits | None = None) -> App:
    app = new_app(limits=limits, timeouts=PATIENT)

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await trio.sleep_forever()

    return app


async def test_a_unix_client_that_closes_behind_a_full_inbox_keeps_nobody_busy(
    stage: Stage, tmp_path: Path
) -> None:
    server = await stage.serve(sleeping_app(Limits(unread_bytes=1000)), unix_path=str(tmp_path / "s"))
    client = await stage.connect(server)
    await client.send(*(frame(TEXT, "x" * 200) for _ in range(50)))
    await trio.sleep(0.1)
    await client.send(frame(TEXT, "not read before the client is gone"))
    client.vanish()
    await trio.sleep(0.05)
    # Its end cannot be unasked: the poll reports it as long as the socket is open.
    assert await busy_share() < 0.5
    assert len(server._core.timers._heap) < 20


async def test_a_unix_client_that_closes_behind_its_close_frame_keeps_nobody_busy(
    stage: Stage, tmp_path: Path
) -> None:
    server = await stage.serve(sleeping_app(), unix_path=str(tmp_path / "s"))
    client = await stage.connect(server)
    await client.send(frame(TEXT, "nobody receives this"), close_frame())
    client.vanish()
    await trio.sleep(0.05)
    assert await busy_share() < 0.5
    assert len(server._core.timers._heap) < 20


async def test_a_tls_client_that_is_slow_to_take_a_long_certificate_keeps_nobody_busy(stage: Stage) -> None:
    authority = trustme.CA()
    tls = ssl_module.create_default_context(ssl_module.Purpose.CLIENT_AUTH)
    authority.issue_cert(*(f"host-{number}.example.org" for number in range(2000))).configure_cert(tls)
    app = sleeping_app()
    native = NativeServer(
        app.decide,
        limits=app.limits,
        timeouts=app.timeouts,
        keepalive=SILENT,
        secure=True,
        transport=stage.transport,
    )
    listeners = await open_tcp_listeners("127.0.0.1", 0)
    listeners[0].setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_SNDBUF, 1)

    async def run(*, task_status: trio.TaskStatus[Server]) -> None:
        await native.run(listeners, tls, task_status)

    server = await stage.nursery.start(run)
    client = await stage.dial(server, receive_buffer=4096)
    hello, said = ssl_module.MemoryBIO(), ssl_module.MemoryBIO()
    context = ssl_module.create_default_context()
    with pytest.raises(ssl_module.SSLWantReadError):
        context.wrap_bio(hello, said, server_hostname="host-1.example.org").do_handshake()
    await client.send(said.read())
    await trio.sleep(0.1)
    received = 0
    with trio.move_on_after(0.3):
        while True:
            received += len(await client.receive_bytes(65536))
    assert received > 20_000
    # Now the server waits for the rest of the client's handshake, which does not come.
    assert await busy_share() < 0.5


async def test_a_client_that_half_closed_behind_a_full_inbox_is_heard_even_by_a_handler_without_grace(
    stage: Stage,
) -> None:
    app = new_app(limits=Limits(unread_bytes=1000), timeouts=Timeouts(disconnect_grace=0))

    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)
            await trio.sleep(0.001)

    server = await stage.serve(app)
    client = await stage.connect(server)
    await client.send(*(frame(TEXT, "x" * 2000) for _ in range(60)), close_frame())
    await client.half_close()
    frames = await client.read_to_end()
    assert len(frames) == 61
    assert frames[-1].close_code == 1000


async def test_a_handler_that_works_on_and_then_stalls_behind_a_full_inbox_does_not_outlive_its_peer(
    stage: Stage, transport: TransportChoice
) -> None:
    if transport == "stream":
        pytest.skip("a Trio stream does not say that its peer is gone while nobody reads it")
    timeouts = Timeouts(disconnect_grace=0.05, last_words=0)
    app = new_app(limits=Limits(unread_bytes=10_000), timeouts=timeouts)
    ended = 0

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        nonlocal ended
        try:
            await trio.sleep(0.02)
            while ws.endpoint.paused:
                await ws.receive()
            # Now it is read on, and the time of whoever watches its progress is over: either may come first.
            time.sleep(0.06)  # noqa: ASYNC251
            await trio.sleep_forever()
        finally:
            ended += 1

    server = await stage.serve(app)
    for _ in range(12):
        client = await stage.connect(server)
        await client.send(*(frame(TEXT, "x" * 3000) for _ in range(50)))
        await client.half_close()
        await trio.sleep(0.1)
    await until(lambda: ended == 12)


async def test_a_close_that_was_received_is_told_though_the_reset_behind_it_came_before_the_answer(
    stage: Stage,
) -> None:
    app = new_app()
    ended: list[Closed | None] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(ws.closed)

    server = await stage.serve(app)
    client = await stage.connect(server)
    await client.send(frame(TEXT, "before"), close_frame(4001, "bye"))
    await trio.sleep(0.1)
    client.reset()
    await until(lambda: ended)
    assert ended[0] is not None
    assert ended[0].received == CloseFrame(4001, "bye")
    assert ended[0].code == 4001
    assert ended[0].sent_first is False


async def test_resets_while_guards_decide_are_no_way_around_the_limit_of_connections(stage: Stage) -> None:
    app = new_app(limits=Limits(connections=5))
    deciding = 0
    most = 0

    @app.guard
    async def guard(request: Request) -> None:
        nonlocal deciding, most
        deciding += 1
        most = max(most, deciding)
        try:
            await trio.sleep(0.5)
        finally:
            deciding -= 1

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        pass

    server = await stage.serve(app)
    for _ in range(20):
        client = await stage.dial(server)
        await client.send(upgrade_request())
        await trio.sleep(0.005)
        client.reset()
    await trio.sleep(0.05)
    assert 1 <= most <= 5
    await until(lambda: not server.statistics().connections)
    assert not deciding


async def test_a_server_that_drains_leaves_the_socket_file_to_its_successor(
    stage: Stage, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    app = new_app()

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    old = await stage.serve(app, unix_path=str(path))
    last = await stage.connect(old)
    stage.cancel(old)
    await until(lambda: old.draining)
    await trio.sleep(0.05)
    new = await stage.serve(app, unix_path=str(path))
    last.vanish()
    await stage.wait_ended(old)
    client = await stage.connect(new)
    await client.send_text("hello")
    assert await client.next_text() == "hello"


async def test_an_exception_that_cannot_even_be_printed_is_a_crash_like_any_other(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    class Unprintable(Exception):
        def __repr__(self) -> str:
            raise Unprintable

        __str__ = __repr__

    app = new_app()

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        raise Unprintable

    @app.http("/page")
    async def page(request: Request) -> str:
        raise Unprintable

    server = await stage.serve(app)
    for _ in range(2):
        client = await stage.connect(server)
        assert (await client.next_frame()).close_code == 1011
        client.vanish()
        assert (
            await stage.ask(server, "GET /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        ).status == 500
    assert "whose repr() fails" in caplog.text


async def test_a_server_told_twice_to_stop_still_says_goodbye_to_every_client(stage: Stage) -> None:
    app = new_app(timeouts=Timeouts(drain=5))

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await trio.sleep_forever()

    server = await stage.serve(app)
    clients = [await stage.connect(server) for _ in range(100)]
    server.stop()
    await trio.sleep(0.005)
    server.stop()
    with trio.fail_after(PATIENT.close * 0.8):
        await stage.wait_ended(server)
    for client in clients:
        assert [found.close_code for found in await client.read_to_end()] == [1001]
