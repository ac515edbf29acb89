"""The frameworks that the documentation names, mounted whole, on Trio."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from fastapi import BackgroundTasks, FastAPI, File, HTTPException, UploadFile
from fastapi import WebSocket as FastAPIWebSocket
from litestar import Litestar, get, post, websocket
from litestar import Request as LitestarRequest
from litestar import WebSocket as LitestarWebSocket
from litestar.response import Stream
from quart import request as quart_request
from quart import websocket as quart_websocket
from quart_trio import QuartTrio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.mounting.stage import new_app
from tests.server.plain import Client, port
from tests.server.plain import get as asking
from tests.server.plain import post as posting
from tests.waiting import until
from wsframework import App
from wsframework.testing import connect, request, serve


async def first_piece(events: list[str]) -> AsyncIterator[str]:
    """Yield a piece of an answer that has no end."""
    try:
        yield "first"
        await trio.sleep_forever()
    finally:
        events.append("stream ends")


def starlette(events: list[str]) -> Any:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        events.append("starts")
        yield {"pool": "open"}
        events.append("ends")

    async def hello(request: Request) -> JSONResponse:
        return JSONResponse({"path": request.url.path, "pool": request.state.pool})

    async def echo(request: Request) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            async for piece in request.stream():
                yield piece

        return StreamingResponse(pieces())

    async def endless(request: Request) -> StreamingResponse:
        return StreamingResponse(first_piece(events))

    async def crash(request: Request) -> PlainTextResponse:
        raise ZeroDivisionError("a secret")

    async def talk(ws: WebSocket) -> None:
        await ws.accept(subprotocol=ws.scope["subprotocols"][0])
        while True:
            await ws.send_text((await ws.receive_text()).upper())

    return Starlette(
        routes=[
            Route("/hello", hello),
            Route("/echo", echo, methods=["POST"]),
            Route("/endless", endless),
            Route("/crash", crash),
            WebSocketRoute("/talk", talk),
        ],
        middleware=[Middleware(CORSMiddleware, allow_origins=["*"])],
        lifespan=lifespan,
    )


def fastapi(events: list[str]) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        events.append("starts")
        yield {"pool": "open"}
        events.append("ends")

    app = FastAPI(lifespan=lifespan)

    @app.middleware("http")
    async def pass_on(request: Request, call_next: Callable[..., Any]) -> Any:
        response = await call_next(request)
        response.headers["X-Passed"] = "yes"
        return response

    @app.get("/hello")
    async def hello(request: Request) -> dict[str, str]:
        return {"path": request.url.path, "pool": request.state.pool}

    @app.post("/echo")
    async def echo(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await request.body())

    @app.post("/upload")
    async def upload(file: UploadFile = File()) -> dict[str, Any]:  # noqa: B008
        return {"name": file.filename, "size": len(await file.read())}

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        return StreamingResponse(first_piece(events))

    @app.get("/thread")
    def thread() -> str:
        return "from a thread"

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(events.append, "background")
        return "soon"

    @app.get("/crash")
    async def crash() -> str:
        raise ZeroDivisionError("a secret")

    @app.get("/teapot")
    async def teapot() -> str:
        raise HTTPException(418)

    @app.websocket("/talk")
    async def talk(ws: FastAPIWebSocket) -> None:
        await ws.accept(subprotocol="loud")
        while True:
            await ws.send_text((await ws.receive_text()).upper())

    return app


def litestar(events: list[str]) -> Any:
    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        events.append("starts")
        app.state.pool = "open"
        yield
        events.append("ends")

    @get("/hello")
    async def hello(request: LitestarRequest[Any, Any, Any]) -> dict[str, str]:
        return {"path": request.url.path, "pool": request.app.state.pool}

    @post("/echo", status_code=200)
    async def echo(request: LitestarRequest[Any, Any, Any]) -> bytes:
        return await request.body()

    @get("/endless")
    async def endless() -> Stream:
        return Stream(first_piece(events))

    @get("/crash")
    async def crash() -> str:
        raise ZeroDivisionError("a secret")

    @websocket("/talk")
    async def talk(socket: LitestarWebSocket[Any, Any, Any]) -> None:
        await socket.accept(subprotocols="loud")
        while True:
            await socket.send_text((await socket.receive_text()).upper())

    return Litestar([hello, echo, endless, crash, talk], lifespan=[lifespan], logging_config=None)


def quart(events: list[str]) -> Any:
    app = QuartTrio(__name__)

    @app.before_serving
    async def begin() -> None:
        events.append("starts")

    @app.after_serving
    async def end() -> None:
        events.append("ends")

    @app.get("/hello")
    async def hello() -> dict[str, str]:
        return {"path": quart_request.root_path + quart_request.path, "pool": "open"}

    @app.post("/echo")
    async def echo() -> Any:
        return await quart_request.get_data()

    @app.get("/endless")
    async def endless() -> Any:
        return first_piece(events), 200, {"X-Timeout": "none"}

    @app.get("/crash")
    async def crash() -> str:
        raise ZeroDivisionError("a secret")

    @app.websocket("/talk")
    async def talk() -> None:
        await quart_websocket.accept(subprotocol="loud")
        while True:
            await quart_websocket.send((await quart_websocket.receive()).upper())

    return app


FRAMEWORKS = [starlette, fastapi, litestar, quart]


@pytest.fixture(params=FRAMEWORKS, ids=lambda make: make.__name__)
def make(request: pytest.FixtureRequest) -> Callable[[list[str]], Any]:
    return request.param  # type: ignore[no-any-return]


def app_with(make: Callable[[list[str]], Any], events: list[str]) -> App:
    app = new_app()
    app.mount("/api", make(events))
    return app


async def test_pages_bodies_and_mistakes(
    make: Callable[[list[str]], Any], caplog: pytest.LogCaptureFixture
) -> None:
    events: list[str] = []
    app = app_with(make, events)
    async with serve(app):
        assert events == ["starts"]
        hello = await request(app, "GET", "/api/hello")
        assert json.loads(hello.text) == {"path": "/api/hello", "pool": "open"}
        assert hello.headers.get("x-passed") == ("yes" if make is fastapi else None)
        data = bytes(range(256)) * 200  # before it has sent all of it, this client does not read
        assert (await request(app, "POST", "/api/echo", body=data)).body == data
        assert (await request(app, "HEAD", "/api/hello")).body == b""
        assert (await request(app, "GET", "/api/elsewhere")).status == 404
        assert (await request(app, "POST", "/api/hello")).status == 405
        crashed = await request(app, "GET", "/api/crash")
        assert crashed.status == 500
        assert "secret" not in crashed.text
        assert (await request(app, "GET", "/ours")).text == "ours"
    assert events == ["starts", "ends"]
    if make is not litestar:  # it keeps its exceptions to itself
        assert "ZeroDivisionError" in caplog.text


async def test_websockets(make: Callable[[list[str]], Any], caplog: pytest.LogCaptureFixture) -> None:
    app = app_with(make, [])
    async with connect(app, "/api/talk", subprotocols=["loud"]) as client:
        assert client.subprotocol == "loud"
        for text in "one", "two":
            await client.send(text)
            assert await client.receive() == text.upper()
    assert not [found for found in caplog.records if found.levelno >= logging.ERROR]


async def test_a_stream_ends_with_its_client_and_the_next_connection_is_served(
    make: Callable[[list[str]], Any], caplog: pytest.LogCaptureFixture
) -> None:
    events: list[str] = []
    app = app_with(make, events)
    async with app.running(), port("hub", None, app) as served:
        async with served.connect() as client:
            await client.send(asking("/api/endless"))
            assert (await client.head())[0] == 200
            assert await client.chunk() == b"first"
        await until(lambda: "stream ends" in events)
        async with served.connect() as client:
            await mixed(client)
    assert not [found for found in caplog.records if found.levelno >= logging.ERROR]


async def mixed(client: Client) -> None:
    """Ask the framework and the App in turns, on one connection."""
    for _ in range(2):
        await client.send(asking("/api/hello"))
        assert (await client.answer())[0] == 200
        await client.send(posting("/ours", "x"))
        assert await client.answer() == (200, b"ours")
        await client.send(posting("/api/echo", "hello"))
        assert await client.answer() == (200, b"hello")


async def test_fastapi_has_uploads_threads_and_background_tasks() -> None:
    events: list[str] = []
    app = app_with(fastapi, events)
    async with serve(app):
        head = '--x\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
        upload = head.encode() + bytes(300_000) + b"\r\n--x--\r\n"
        fields = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = await request(app, "POST", "/api/upload", fields, body=upload)
        assert json.loads(answer.text) == {"name": "a.bin", "size": 300_000}
        assert (await request(app, "GET", "/api/thread")).text == '"from a thread"'
        assert (await request(app, "GET", "/api/background")).text == '"soon"'
        assert (await request(app, "GET", "/api/teapot")).status == 418
        document = json.loads((await request(app, "GET", "/api/openapi.json")).text)
        assert document["servers"] == [{"url": "/api"}]
    assert "background" in events
