"""Apps that do damage where they are told to, and clients that see it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import trio
import trio.lowlevel

from tests.promises.rawclient import Client, close_frame
from tests.promises.stage import new_app
from wsframework import App, Connection, Keepalive, Request


class Own(BaseException):
    """Of the application's own making."""


def app_that_does(deed: Callable[[], object], keepalive: Keepalive | None = None) -> App:
    """An App with an echo, and one place of each kind where `deed` is done."""
    app = new_app(keepalive=keepalive or Keepalive(interval=None))

    async def do() -> None:
        result = deed()
        if result is not None:
            await result  # type: ignore[misc]

    async def guard(request: Request) -> None:
        await do()

    @app.wrap
    @contextlib.asynccontextmanager
    async def wrapper(ws: Connection) -> AsyncIterator[None]:
        yield
        if ws.request.path == "/wrapper":
            await do()

    @app.websocket("/echo")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    @app.websocket("/handler")
    async def handler(ws: Connection) -> None:
        await ws.receive()
        await do()

    @app.websocket("/wrapper")
    async def wrapped(ws: Connection) -> None:
        await ws.receive()

    @app.websocket("/child")
    async def child(ws: Connection) -> None:
        await ws.receive()
        ws.nursery.start_soon(do)
        await trio.sleep_forever()

    @app.websocket("/thread")
    async def thread(ws: Connection) -> None:
        await ws.receive()
        await trio.to_thread.run_sync(trio.from_thread.run, do)

    @app.websocket("/guard", guards=[guard])
    async def guarded(ws: Connection) -> None:
        raise AssertionError("the guard has failed")

    @app.http("/page")
    async def page(request: Request) -> str:
        await do()
        return "page"

    @app.http("/page/guard", guards=[guard])
    async def guarded_page(request: Request) -> str:
        raise AssertionError("the guard has failed")

    return app


async def end(client: Client, code: int) -> None:
    """Answer the server's Close."""
    await client.send(close_frame(code))
    assert await client.read_to_end() == []
    client.vanish()
