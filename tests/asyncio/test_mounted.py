"""Applications that need asyncio, mounted in an App: they run in asyncio tasks, on the App's own port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from websockets.asyncio.client import connect

from tests.asyncio.conftest import Run, until
from wsframework import App, Connection, MountError, Room
from wsframework.asyncio import serve
from wsframework.testing import serve as serve_in_memory


class Site:
    """A FastAPI application that does nothing without asyncio, and an App that has it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.pages = FastAPI(lifespan=self.lifespan)
        self.pages.get("/hello")(self.hello)
        self.pages.get("/plain")(self.plain)
        self.pages.post("/length")(self.length)
        self.pages.get("/stream")(self.stream)
        self.pages.get("/leak")(self.leak)
        self.pages.websocket("/upper")(self.upper)
        self.app = App()
        self.room = Room("room")
        self.app.websocket("/room")(self.listen)
        self.app.mount("/", self.pages)

    @asynccontextmanager
    async def lifespan(self, pages: FastAPI) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        self.events.append("started")
        yield
        await asyncio.sleep(0)
        self.events.append("ended")

    async def hello(self) -> str:
        await asyncio.sleep(0)
        self.room.broadcast("hello")
        return "hello"

    def plain(self) -> str:
        return "plain"

    async def length(self, request: Request) -> int:
        return sum([len(part) async for part in request.stream()])

    async def stream(self) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(100):
                await asyncio.sleep(0)
                yield bytes(10_000)

        return StreamingResponse(parts())

    async def leak(self) -> None:
        raise asyncio.CancelledError

    async def upper(self, ws: WebSocket) -> None:
        await ws.accept()
        try:
            async for text in ws.iter_text():
                await asyncio.sleep(0)
                await ws.send_text(text.upper())
        finally:
            self.events.append("left")

    async def listen(self, ws: Connection) -> None:
        async with self.room.join(ws):
            async for _ in ws:
                pass


def test_pages_bodies_and_streams_of_an_asyncio_application(run: Run) -> None:
    async def main() -> None:
        site = Site()
        async with serve(site.app, port=0) as house:
            assert site.events == ["started"]
            async with (
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{house.port}") as client,
                connect(f"{house.urls[0]}/room") as reader,
            ):
                await until(lambda: site.room.members)
                assert (await client.get("/hello")).json() == "hello"
                assert await reader.recv() == "hello"
                assert (await client.get("/plain")).json() == "plain"
                assert (await client.post("/length", content=bytes(3_000_000))).json() == 3_000_000
                assert len((await client.get("/stream")).content) == 1_000_000
                assert (await client.get("/leak")).status_code == 500
                assert (await client.get("/hello")).json() == "hello"
        assert site.events == ["started", "ended"]

    run(main)


def test_websockets_of_an_asyncio_application(run: Run) -> None:
    async def main() -> None:
        site = Site()
        async with serve(site.app, port=0) as house:
            async with connect(f"{house.urls[0]}/upper") as client:
                for number in range(1000):
                    await client.send(f"m{number}")
                    assert await client.recv() == f"M{number}"
            await until(lambda: "left" in site.events)

    run(main)


def test_an_application_that_cannot_start_keeps_the_server_from_starting(run: Run) -> None:
    @asynccontextmanager
    async def lifespan(pages: FastAPI) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        if pages.routes:
            raise OSError("no database")
        yield

    app = App()
    app.mount("/", FastAPI(lifespan=lifespan))

    async def main() -> None:
        async with serve(app, port=0):
            raise AssertionError

    with pytest.raises(MountError, match="no database"):
        run(main)


async def test_in_a_plain_trio_program_it_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    with pytest.raises(MountError, match=r"this needs asyncio, .*wsframework\.asyncio\.serve"):
        await site.app.serve(port=0)
    app = App()

    async def asks_asyncio(scope: object, receive: object, send: object) -> None:
        await asyncio.sleep(0.01)

    app.mount("/", asks_asyncio)
    async with serve_in_memory(app) as server:
        assert (await server.request("GET", "/")).status == 500
    assert "wsframework.asyncio.serve" in caplog.text
