"""Serve an App on a real port for one test, and talk to it with a plain socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from wsframework import App, Connection, Keepalive, Limits, Request, Timeouts
from wsframework.server import Server
from wsframework.server.listeners import open_tcp_listeners
from wsframework.server.native import NativeServer, TransportChoice
from wsframework.server.pollers import Poller

# No keep-alive, because most tests read an answer up to the end of its connection.
QUICK = Timeouts(
    handshake=1.0, guard=1.0, keep_alive=0.0, close=0.5, disconnect_grace=0.2, last_words=0.2, drain=1.0
)


def echo_app(limits: Limits | None = None, keepalive: Keepalive | None = None) -> App:
    app = App(limits=limits, timeouts=QUICK, keepalive=keepalive or Keepalive(interval=None))

    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    @app.http("/page")
    async def page(request: Request) -> str:
        return "a page"

    return app


@asynccontextmanager
async def serving(
    app: App,
    *,
    transport: TransportChoice = "auto",
    poller: Callable[[], Poller] | None = None,
    **options: Any,
) -> AsyncIterator[Server]:
    native = NativeServer(
        app.decide,
        limits=app.limits,
        timeouts=app.timeouts,
        keepalive=app.keepalive,
        proxies=app.proxies,
        proxy_protocol=bool(options.get("proxy_protocol")),
        secure=options.get("ssl") is not None,
        observers=app.observers,
        transport=transport,
        poller=poller,
    )
    listeners = await open_tcp_listeners("127.0.0.1", 0)
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:

            async def run(*, task_status: trio.TaskStatus[Server]) -> None:
                await native.run(listeners, options.get("ssl"), task_status)

            yield await nursery.start(run)
            nursery.cancel_scope.cancel()
