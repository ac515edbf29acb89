"""Applications for tests of mounts, and a port where one is served with its lifespan."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs

from tests.server.plain import Client, Contexts, Port, port
from tests.server.serving import QUICK
from wsframework import App, Connection, Limits, Request, Timeouts
from wsframework.mounting.worlds import Message, Receive, Scope, Send

LASTING = attrs.evolve(QUICK, keep_alive=60.0, handshake=30.0, body=30.0, http=30.0, close=30.0, guard=30.0)
"""Nothing ends for being late on a busy machine."""

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


def new_app(timeouts: Timeouts = LASTING, *, limits: Limits | None = None, **settings: object) -> App:
    """Return an App with routes of its own."""
    app = App(timeouts=timeouts, limits=limits, **settings)  # type: ignore[arg-type]

    @app.http("/ours", methods=["GET", "POST"])
    async def ours(request: Request) -> str:
        return "ours"

    @app.websocket("/ws")
    async def ws(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    return app


def application(handler: Handler, *, kinds: tuple[str, ...] = ("http", "websocket")) -> Handler:
    """Return an application without a lifespan."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in kinds:
            raise NotImplementedError(scope["type"])
        await handler(scope, receive, send)

    return app


def start(status: int = 200, *fields: tuple[bytes, bytes], **more: object) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(fields), **more}


def body(data: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


@attrs.define
class Plain:
    """Answers in one piece, and keeps what it was told."""

    answer: bytes = b"mounted"
    scopes: list[Scope] = attrs.field(factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        self.scopes.append(scope)
        await send(start())
        await send(body(self.answer))


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body, piece by piece, as it comes."""
    await send(start(200, (b"content-type", b"text/plain")))
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message["more_body"]
        await send(body(message["body"], more=more))


@asynccontextmanager
async def mounted_at(path: str, handler: Handler, kind: str, contexts: Contexts) -> AsyncIterator[Port]:
    """Serve an App with an application at a path."""
    app = new_app()
    app.mount(path, handler)
    async with app.running(), port(kind, contexts, app) as served:
        yield served


@asynccontextmanager
async def connected(app: App, kind: str, contexts: Contexts) -> AsyncIterator[Client]:
    """Serve an App, and connect to it."""
    async with app.running(), port(kind, contexts, app) as served, served.connect() as client:
        yield client
