from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
from websockets.asyncio.client import connect

from tests.asyncio.conftest import until
from tests.docs.conftest import Follow
from tests.docs.following import exercises
from tests.examples import conftest as examples
from wsframework.asyncio import House, serve
from wsframework.testing import serve as serve_in_memory

PAGE = "howto/asyncio.md"


@exercises(PAGE, "pages.py")
def test_a_page_of_fastapi_broadcasts_to_a_room(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    module = follow(PAGE).load("pages.py")
    houses: list[House] = []

    @asynccontextmanager
    async def on_a_free_port(app: object, *, port: int) -> AsyncIterator[House]:
        async with serve(module.app, port=0) as house:
            houses.append(house)
            yield house

    monkeypatch.setattr("wsframework.asyncio.serve", on_a_free_port)

    async def main() -> None:
        async with (
            module.lifespan(module.site),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=module.site), base_url="http://site.example"
            ) as client,
            connect(f"{houses[0].urls[0]}/orders") as reader,
        ):
            await until(lambda: module.orders.members)
            assert (await client.post("/orders/tea")).json() == {"told": 1}
            assert await reader.recv() == "one tea"

    asyncio.run(main())


@exercises(PAGE, "remind.py")
async def test_asyncio_code_sends_through_a_connection_and_a_ctrl_c_ends_it(follow: Follow) -> None:
    folder = follow(PAGE)
    command, pipe = [sys.executable, "remind.py", "0"], subprocess.PIPE
    # Its signals are what is tested, and Trio's own function would wait for it.
    with subprocess.Popen(command, cwd=folder.path, stdout=pipe, stderr=pipe) as process:  # noqa: ASYNC220
        assert process.stdout is not None
        assert process.stderr is not None
        url = (await trio.to_thread.run_sync(process.stdout.readline)).decode().strip()
        try:
            async with examples.connect(f"{url}/reminders") as client:
                assert "you are 0.0" in await client.get_message()
                process.send_signal(signal.SIGINT)
                assert (await trio.to_thread.run_sync(process.stderr.read)).endswith(b"KeyboardInterrupt\n")
        finally:
            process.kill()


@exercises(PAGE, "office.py")
async def test_django_has_the_port_of_the_websockets(follow: Follow) -> None:
    folder, pipe = follow(PAGE), subprocess.PIPE
    with subprocess.Popen([sys.executable, "office.py", "0"], cwd=folder.path, stdout=pipe) as process:  # noqa: ASYNC220
        assert process.stdout is not None
        url = (await trio.to_thread.run_sync(process.stdout.readline)).decode().strip()
        try:
            async with (
                examples.connect(f"{url}/news") as reader,
                httpx.AsyncClient(base_url=url.replace("ws://", "http://")) as client,
            ):
                await reader.ping()
                assert (await client.get("/tell/it")).text == "told"
                assert await reader.get_message() == "it"
                assert (await client.get("/nothing")).status_code == 404
        finally:
            process.kill()


@exercises(PAGE, "slow_query.py")
def test_a_handler_awaits_an_asyncio_library(follow: Follow) -> None:
    app = follow(PAGE).load("slow_query.py").app

    async def main() -> None:
        async with serve(app, port=0) as house, connect(f"{house.urls[0]}/inbox/Ada") as client:
            await client.send("?")
            assert await client.recv() == "Ada has 3 messages"

    asyncio.run(main())


async def test_in_a_plain_trio_program_the_record_says_what_to_do(
    follow: Follow, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = follow(PAGE).load("slow_query.py")
    monkeypatch.setattr(module, "from_trio", lambda function, *args: function(*args))
    async with serve_in_memory(module.app) as server, server.connect("/inbox/Ada") as client:
        await client.send("?")
        assert (await client.wait_closed()).code == 1011
    assert "wsframework.asyncio.serve" in caplog.text
