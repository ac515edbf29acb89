"""FastAPI on uvicorn, and wsframework in its lifespan: one process, one thread, and one Ctrl-C for both."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from websockets.asyncio.client import connect

from tests.asyncio.conftest import Run, until
from wsframework import App, Connection, Room
from wsframework.asyncio import House, from_trio, serve

MESSAGES = 1000


class Site:
    """A FastAPI application and an App that share a room and a counter."""

    def __init__(self) -> None:
        self.app = App()
        self.room = Room("room")
        self.houses: list[House] = []
        self.counted = 0
        self.pages = FastAPI(lifespan=self.lifespan)
        self.app.websocket("/count")(self.count)
        self.app.websocket("/room")(self.listen)
        self.pages.post("/say/{text}")(self.say)

    @asynccontextmanager
    async def lifespan(self, pages: FastAPI) -> AsyncIterator[None]:
        async with serve(self.app, port=0) as house:
            self.houses.append(house)
            yield

    async def in_asyncio(self, number: int) -> int:
        await asyncio.sleep(0)
        self.counted += number
        return self.counted

    async def count(self, ws: Connection) -> None:
        async for message in ws:
            await ws.send(str(await from_trio(self.in_asyncio, int(message))))

    async def listen(self, ws: Connection) -> None:
        async with self.room.join(ws):
            async for _ in ws:
                pass

    async def say(self, text: str) -> int:
        for number in range(MESSAGES):
            self.room.broadcast(f"{text} {number}")
        return len(self.room.members)


@asynccontextmanager
async def on_uvicorn(pages: FastAPI) -> AsyncIterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(pages, log_config=None, timeout_graceful_shutdown=60))
        task = asyncio.create_task(server.serve([listener]))
        await until(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


def test_they_share_a_room_and_call_each_other(run: Run) -> None:
    async def main() -> None:
        site = Site()
        async with on_uvicorn(site.pages) as url, httpx.AsyncClient(base_url=url) as client:
            house = site.houses[0]
            async with (
                connect(f"{house.urls[0]}/count") as counter,
                connect(f"{house.urls[0]}/room") as reader,
            ):
                await until(lambda: site.room.members)
                answer = asyncio.create_task(client.post("/say/hello"))
                for number in range(1, MESSAGES + 1):
                    await counter.send("1")
                    assert await counter.recv() == str(number)
                assert (await answer).json() == 1
                heard = [await reader.recv() for _ in range(MESSAGES)]
                assert heard == [f"hello {number}" for number in range(MESSAGES)]
        assert site.houses[0].server.stopped

    run(main)


def test_one_ctrl_c_ends_both(run: Run) -> None:
    async def main() -> None:
        site = Site()
        async with on_uvicorn(site.pages), connect(f"{site.houses[0].urls[0]}/room") as reader:
            await until(lambda: site.room.members)
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(Exception, match="1001"):
                await reader.recv()
        assert site.houses[0].server.stopped

    # uvicorn raises the signal once more when it has ended, for whom it was before.
    with pytest.raises(KeyboardInterrupt):
        run(main)
