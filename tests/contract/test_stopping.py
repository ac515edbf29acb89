"""How servers stop, and the lifespans around their connections."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from tests.contract.hosts import Host, new_app
from tests.contract.lending import lending, setting
from wsframework import App, Closed, Connection, Limits, Timeouts


async def test_a_stopping_server_sends_1001_to_every_client(host: Host) -> None:
    async with lending(host) as lender, lender.connect() as (ws, first), lender.connect() as (_, second):
        lender.served.stop()
        assert (await first.wait_closed()).code == 1001
        assert (await second.wait_closed()).code == 1001
        with trio.fail_after(30):
            await lender.served.stopped.wait()
        closed = ws.closed
        assert isinstance(closed, Closed)
        assert closed.sent is not None
        assert closed.sent.code == 1001
        assert closed.received is not None


async def test_handlers_see_that_the_server_is_stopping(host: Host) -> None:
    app = new_app()
    seen: list[bool] = []

    @app.websocket("/")
    async def watch(ws: Connection) -> None:
        seen.append(ws.draining)
        await ws.send("ready")
        await ws.wait_draining()
        seen.append(ws.draining)

    async with host.serve(app) as served, served.connect() as client:
        await client.receive()
        served.stop()
        with trio.fail_after(30):
            await served.stopped.wait()
    assert seen == [False, True]


async def test_a_connection_that_has_reached_its_age_is_closed_with_1012(host: Host) -> None:
    app = new_app(limits=Limits(connection_age=0.3))
    seen: list[bool] = []

    @app.websocket("/")
    async def watch(ws: Connection) -> None:
        seen.append(ws.draining)
        await ws.wait_draining()
        seen.append(ws.draining)
        await ws.send("last words")
        await ws.wait_closed()

    async with host.serve(app) as served, served.connect() as client:
        assert await client.receive() == "last words"
        assert (await client.wait_closed()).code == 1012
        # The others are not affected, nor is the server.
        async with served.connect() as another:
            assert await another.receive() == "last words"
    assert seen == [False, True] * 2


async def test_a_stopping_server_is_over_by_its_deadline_though_handlers_sleep(host: Host) -> None:
    app = App(timeouts=Timeouts(close=0.2, disconnect_grace=60, drain=0.4))
    cancelled = trio.Event()

    @app.websocket("/")
    async def sleep(ws: Connection) -> None:
        await ws.send("ready")
        with setting(cancelled):
            await trio.sleep_forever()

    async with host.serve(app) as served, served.connect() as client:
        await client.receive()
        served.stop()
        with trio.fail_after(30):
            await served.stopped.wait()
    assert cancelled.is_set()


async def test_a_stopping_server_is_over_though_a_peer_is_mute(host: Host) -> None:
    app = App(timeouts=Timeouts(close=0.2, disconnect_grace=0.2, drain=0.4))

    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    async with host.serve(app) as served, served.connect() as client:
        client.vanish()
        served.stop()
        with trio.fail_after(30):
            await served.stopped.wait()


async def test_a_stopped_server_accepts_nobody(host: Host) -> None:
    async with lending(host) as lender:
        lender.served.stop()
        with trio.fail_after(30):
            await lender.served.stopped.wait()
        with pytest.raises((OSError, RuntimeError)):
            await lender.served.open_stream()


async def test_lifespans_begin_before_the_first_connection_and_end_after_the_last(host: Host) -> None:
    app = new_app()
    events: list[str] = []

    @app.lifespan
    async def outer() -> AsyncIterator[None]:
        events.append("outer begins")
        try:
            yield
        finally:
            events.append("outer ends")

    @app.lifespan
    async def inner(served: App) -> AsyncIterator[None]:
        assert served is app
        events.append("inner begins")
        try:
            yield
        finally:
            events.append("inner ends")

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        events.append("handler begins")
        await ws.send("hi")
        async for _ in ws:
            pass
        events.append("handler ends")

    async with host.serve(app) as served:
        async with served.connect() as client:
            assert await client.receive() == "hi"
            served.stop()
            await client.wait_closed()
        with trio.fail_after(30):
            await served.stopped.wait()
    assert events == [
        "outer begins",
        "inner begins",
        "handler begins",
        "handler ends",
        "inner ends",
        "outer ends",
    ]
