"""Promise 5: a handler's end becomes a close code, and whatever it does, its neighbours never notice."""

from __future__ import annotations

import logging

import pytest
import trio
import trio_websocket

from tests.promises.rawclient import End, close_frame
from tests.promises.stage import Journal, Stage, new_app
from tests.waiting import until
from wsframework import App, Close, Connection, ConnectionClosed, Request


def crashing_app() -> App:
    app = new_app()

    @app.websocket("/echo")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    @app.websocket("/crash")
    async def crash(ws: Connection) -> None:
        await ws.receive()
        raise LookupError("nobody expected this")

    @app.websocket("/crash/child")
    async def crash_in_a_child(ws: Connection) -> None:
        async def child() -> None:
            await trio.sleep(0.01)
            raise LookupError("nobody expected this")

        ws.nursery.start_soon(child)
        await trio.sleep_forever()

    @app.http("/crash")
    async def page(request: Request) -> str:
        raise LookupError("nobody expected this")

    return app


@pytest.mark.parametrize("path", ["/crash", "/crash/child"])
async def test_a_crash_is_1011_for_its_client_one_traceback_in_the_log_and_nothing_for_others(
    stage: Stage, journal: Journal, path: str
) -> None:
    server = await stage.serve(crashing_app())
    neighbour = await stage.connect(server, "/echo")
    client = await stage.connect(server, path)
    host, port = client.socket.getsockname()
    await client.send_text("go")
    close = await client.next_frame()
    assert close.close_code == 1011
    assert "LookupError" not in close.close_reason, "a client learns nothing about our insides"
    await client.send(close_frame(1011))
    assert await client.read_to_end() == []
    assert client.end is End.FIN

    await neighbour.send_text("are you there?")
    assert await neighbour.next_text() == "are you there?"
    assert len(await neighbour.close_well()) == 1
    newcomer = await stage.connect(server, "/echo")
    await newcomer.close_well()

    (entry,) = journal.tracebacks()
    assert entry.exc_info is not None
    assert entry.exc_info[0] is LookupError, "a single exception, no group of our nurseries"
    assert entry.levelno == logging.ERROR
    assert f"path={path} " in entry.getMessage()
    assert f"remote={host}:{port} " in entry.getMessage()
    assert journal.events(least=logging.WARNING) == ["handler.crashed"]


async def test_a_crash_of_an_http_handler_is_a_500_and_one_traceback(stage: Stage, journal: Journal) -> None:
    server = await stage.serve(crashing_app())
    neighbour = await stage.connect(server, "/echo")
    answer = await stage.ask(server, "GET /crash HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.status == 500
    assert b"LookupError" not in answer.body
    assert len(journal.tracebacks()) == 1
    await neighbour.send_text("are you there?")
    assert await neighbour.next_text() == "are you there?"


async def test_an_uncaught_connection_closed_after_a_normal_close_is_silent(
    stage: Stage, journal: Journal
) -> None:
    app = new_app()
    escaped: list[trio_websocket.ConnectionClosed] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        try:
            while True:
                await ws.receive()
        except trio_websocket.ConnectionClosed as error:
            escaped.append(error)
            raise

    server = await stage.serve(app)
    client = await stage.connect(server)
    (close,) = await client.close_well(1000)
    assert close.close_code == 1000
    await until(lambda: not server.statistics().connections)
    assert isinstance(escaped[0], ConnectionClosed), "ours is one of theirs"
    assert journal.tracebacks() == []
    assert journal.events(least=logging.WARNING) == []


async def test_a_client_that_vanishes_is_no_news_either(stage: Stage, journal: Journal) -> None:
    app = new_app()

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        while True:
            await ws.send("x" * 1000)
            await trio.lowlevel.checkpoint()

    server = await stage.serve(app)
    for vanish in ("vanish", "reset"):
        client = await stage.connect(server)
        await client.next_frame()
        getattr(client, vanish)()
        await until(lambda: not server.statistics().connections)
    assert journal.events(least=logging.WARNING) == []


async def test_a_handler_that_returns_closes_with_1000(stage: Stage) -> None:
    app = new_app()

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await ws.send("that is all")

    server = await stage.serve(app)
    client = await stage.connect(server)
    assert await client.next_text() == "that is all"
    assert (await client.next_frame()).close_code == 1000


async def test_close_raised_in_a_handler_or_in_its_child_is_that_code_and_no_news(
    stage: Stage, journal: Journal
) -> None:
    app = new_app()

    @app.websocket("/handler")
    async def handler(ws: Connection) -> None:
        raise Close(4001, "because")

    @app.websocket("/child")
    async def parent(ws: Connection) -> None:
        async def child() -> None:
            raise Close(4001, "because")

        ws.nursery.start_soon(child)
        await trio.sleep_forever()

    server = await stage.serve(app)
    for path in ("/handler", "/child"):
        client = await stage.connect(server, path)
        close = await client.next_frame()
        assert (close.close_code, close.close_reason) == (4001, "because")
        await client.send(close_frame(4001))
        await client.read_to_end()
    assert journal.events(least=logging.WARNING) == []


async def test_a_hundred_crashes_at_once_leave_the_server_serving(stage: Stage, journal: Journal) -> None:
    server = await stage.serve(crashing_app())
    clients = [await stage.connect(server, "/crash") for _ in range(100)]
    for client in clients:
        await client.send_text("go")
    for client in clients:
        assert (await client.next_frame()).close_code == 1011
        client.vanish()
    await until(lambda: not server.statistics().connections)
    assert len(journal.tracebacks()) == 100
    client = await stage.connect(server, "/echo")
    await client.send_text("still there?")
    assert await client.next_text() == "still there?"
