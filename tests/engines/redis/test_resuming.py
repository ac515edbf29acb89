"""A program whose sessions and rooms are in Redis, as its clients see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines.redis.redis_server import RedisServer
from tests.sessions.stage import cancel_resuming_everywhere
from wsframework import App, Connection, Rooms, Sessions
from wsframework.engines.redis import RedisEngine, RedisSessionStore
from wsframework.testing import Client, connection_pair, serve


def program(url: str) -> App:
    app = App()
    engine = RedisEngine(url, outage=0.3, timeout=1.0)
    sessions = Sessions(store=RedisSessionStore(engine))
    app.install(sessions)  # the order does not matter
    app.install(engine)
    rooms = Rooms(engine=engine, stamp=lambda message, position: json.dumps([message, position]))

    @app.websocket("/")
    async def chat(ws: Connection) -> None:
        hello = json.loads(await ws.receive())
        async with (
            sessions.open(ws, hello.get("token"), user="Ada") as session,
            session.join(rooms["tea"], after=hello.get("after")),
        ):
            await ws.send(json.dumps({"token": session.token, "recovered": session.recovered}))
            async for message in ws:
                await rooms["tea"].publish(message)

    return app


async def hello(client: Client, **what: Any) -> dict[str, Any]:
    await client.send(json.dumps(what))
    found: dict[str, Any] = json.loads(await client.receive())
    return found


async def test_a_client_is_told_that_redis_has_lost_everything(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    async with server.running(), serve(program(server.url)) as served:
        async with served.connect("/") as client:
            welcome = await hello(client)
            await client.send("hello")
            _, position = json.loads(await client.receive())
            await server.command("FLUSHALL")
            await client.send("another")
            assert (await client.wait_closed()).code == 1013  # the room has a gap
        async with served.connect("/") as client:
            again = await hello(client, token=welcome["token"], after=position)
            assert not again["recovered"]


async def test_without_redis_a_client_is_closed_with_1013_and_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path)
    async with server.running(), serve(program(server.url)) as served:
        server.kill()
        async with served.connect("/") as client:
            await client.send("{}")
            closed = await client.wait_closed()
        assert (closed.code, closed.reason) == (1013, "try again later")
    lines = [entry.getMessage() for entry in caplog.records if "unavailable" in entry.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("session.unavailable ")


async def test_wherever_opening_is_cancelled_the_client_can_resume(redis: RedisServer) -> None:
    engine = RedisEngine(redis.url)
    store = RedisSessionStore(engine)
    async with engine.run(), store.run(), connection_pair() as (ws, _):
        await cancel_resuming_everywhere(Sessions(store=store), Rooms(engine=engine), ws)
