"""A route's own limits and timeouts count for its connections and requests, and for no others."""

from __future__ import annotations

import attrs
import pytest
import trio

from tests.contract.differences import Difference
from tests.contract.hosts import TIMEOUTS, Host, new_app
from tests.contract.test_crashes import ask
from tests.waiting import until
from wsframework import App, Connection, Request, Rooms, TooManyRooms


def site() -> App:
    app = new_app()
    small = attrs.evolve(app.limits, message_bytes=10, memberships=1, body_bytes=10)
    quick = attrs.evolve(app.timeouts, guard=0.01, http=0.01, disconnect_grace=0)

    @app.websocket("/app")
    @app.websocket("/small", limits=small)
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    rooms = Rooms()

    @app.websocket("/rooms", limits=small)
    async def join(ws: Connection) -> None:
        async with rooms["a"].join(ws):
            with pytest.raises(TooManyRooms):
                await rooms["b"].join(ws).__aenter__()
            await ws.send("one room only")

    async def slow(request: Request) -> None:
        await trio.sleep(0.05)

    async def late(request: Request) -> str:
        await trio.sleep(0.05)
        return "late"

    app.http("/late")(late)
    app.http("/quick", timeouts=quick)(late)
    app.http("/guarded", guards=[slow])(late)
    app.http("/guarded/quick", guards=[slow], timeouts=quick)(late)
    app.websocket("/guarded/quick", guards=[slow], timeouts=quick)(echo)
    return app


async def test_messages_and_memberships(host: Host) -> None:
    async with host.serve(site()) as served:
        async with served.connect("/app") as large, served.connect("/small") as small:
            for client in (large, small):
                await client.send("x" * 10)
                assert await client.receive() == "x" * 10
                await client.send("x" * 11)
            assert await large.receive() == "x" * 11
            assert (await small.wait_closed()).code == 1009
        async with served.connect("/rooms") as client:
            assert await client.receive() == "one room only"


async def test_the_time_of_guards_and_pages(host: Host) -> None:
    if host.differs(Difference.SPEAKS_NO_HTTP):
        return
    async with host.serve(site()) as served:
        for path, status in (("/late", 200), ("/quick", 503), ("/guarded", 200), ("/guarded/quick", 503)):
            assert (await ask(served, path)).startswith(b"HTTP/1.1 %d " % status), path


async def test_the_grace_of_handlers(host: Host) -> None:
    app = new_app(timeouts=attrs.evolve(TIMEOUTS, disconnect_grace=60, drain=0.1))
    ended: list[str] = []

    async def sleeper(ws: Connection) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(ws.request.path)

    app.websocket("/app")(sleeper)
    app.websocket("/quick", timeouts=attrs.evolve(app.timeouts, disconnect_grace=0))(sleeper)
    async with host.serve(app) as served:
        async with served.connect("/app"), served.connect("/quick"):
            pass
        await until(lambda: ended)
        assert ended == ["/quick"]
