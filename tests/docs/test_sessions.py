"""The program of the page resumes sessions of its own clients, in a browser's language and in Python."""

from __future__ import annotations

import gc
import inspect
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.clients.conftest import HERE, node
from tests.docs.conftest import Follow
from tests.docs.following import exercises
from tests.docs.node import NodeProgram, node_program
from tests.docs.snippets import DOCS, files
from tests.engines.redis.conftest import redis as redis  # the fixture
from tests.engines.redis.redis_server import RedisServer
from tests.examples.conftest import connect
from tests.waiting import until
from wsframework import SENT_CODES, CloseFrame, Sessions
from wsframework.testing import Client, serve

__all__ = ["node"]  # a fixture

PAGE = "howto/sessions.md"


class Page:
    """The page's class in Node.js."""

    def __init__(self, program: NodeProgram) -> None:
        self.say = program.say
        self._program = program

    async def line(self) -> list[Any]:
        """Return what it reports next."""
        found: list[Any] = json.loads(await self._program.line())
        return found


@asynccontextmanager
async def page_at(node: str, folder: Path, url: str) -> AsyncIterator[Page]:
    async with node_program(node, str(HERE / "desk_client.mjs"), str(folder / "desk.mjs"), url) as program:
        yield Page(program)


async def say(module: Any, words: str) -> None:
    await module.rooms["desk"].publish(json.dumps({"from": "Bob", "text": words}))


@pytest.mark.node
@exercises(PAGE, "desk.mjs", "desk.py")
async def test_a_page_that_comes_back_has_its_draft_and_every_message(
    follow: Follow, nursery: trio.Nursery, node: str
) -> None:
    folder = follow(PAGE)
    module = folder.load("desk.py")
    server = await nursery.start(module.app.serve, "127.0.0.1", 0)
    port = server.port
    async with page_at(node, folder.path, f"ws://127.0.0.1:{port}/desk?key=cookie-of-ada") as page:
        assert await page.line() == ["open", False, {"draft": ""}]
        await say(module, "one")
        assert await page.line() == ["message", "Bob", "one"]
        await page.say(json.dumps({"draft": "Dear Bob"}))
        assert await page.line() == ["sent", True]
        await page.say(json.dumps({"say": "hello"}))
        assert sorted([await page.line(), await page.line()]) == [["message", "Ada", "hello"], ["sent", True]]
        server.stop(restarting=True)
        await server.wait_stopped()
        await say(module, "two")
        # The program is the same one, so its sessions are.
        server = await nursery.start(module.app.serve, "127.0.0.1", port)
        assert await page.line() == ["message", "Bob", "two"]
        assert await page.line() == ["open", True, {"draft": "Dear Bob"}]
        await page.say("close")
        assert await page.line() == ["end", 1000]
    server.stop()


@exercises(PAGE, "clerk.py")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_the_python_client_comes_back_with_every_message_and_stops_when_it_should(
    follow: Follow, nursery: trio.Nursery
) -> None:
    folder = follow(PAGE)
    module = folder.load("desk.py")
    server = await nursery.start(module.app.serve, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.port}/desk?key=cookie-of-ada"
    sender, messages = trio.open_memory_channel[dict[str, Any]](100)
    codes: list[int] = []

    async def run() -> None:
        codes.append(await folder.load("clerk.py").follow(url, sender.send_nowait))
        sender.close()

    nursery.start_soon(run)
    with trio.fail_after(30):
        first = await messages.receive()
        assert not first["recovered"]
        await say(module, "one")
        assert (await messages.receive())["text"] == "one"
        (member,) = module.rooms["desk"].members
        member.ws.endpoint.start_close(CloseFrame(1012))
        await say(module, "two")
        assert (await messages.receive())["text"] == "two"
        again = await messages.receive()
        assert again["recovered"]
        # It has answered, so the token before is of no use.
        (member,) = module.rooms["desk"].members
        await until(lambda: member.ws.statistics().messages_received == 2)
        await trio.testing.wait_all_tasks_blocked()
        async with connect(url) as late:
            await late.send_message(json.dumps({"token": first["token"]}))
            assert not json.loads(await late.get_message())["recovered"]
        # Another one with its token, such as a second window.
        async with connect(url) as window:
            await window.send_message(json.dumps({"token": again["token"]}))
            with pytest.raises(trio.EndOfChannel):
                await messages.receive()
    assert codes == [4409]
    server.stop()
    # trio-websocket leaves a stream open that the server has closed first.
    gc.collect()


@exercises(PAGE, "shared.py")
async def test_a_session_is_resumed_in_another_process(redis: RedisServer) -> None:
    async def hello(client: Client, **what: Any) -> dict[str, Any]:
        await client.send(json.dumps(what))
        found: dict[str, Any] = json.loads(await client.receive())
        return found

    text = files(DOCS / PAGE)["shared.py"].replace("redis://localhost", redis.url)
    programs: list[dict[str, Any]] = [{}, {}]
    for program in programs:
        exec(compile(text, PAGE, "exec"), program)
    async with serve(programs[0]["app"]) as one, serve(programs[1]["app"]) as two:
        async with one.connect("/tea/Ada") as client:
            welcome = await hello(client)
            assert not welcome["recovered"]
            await client.send("hello")
            message, position = json.loads(await client.receive())
            assert message == "hello"
        async with two.connect("/tea/Ada") as client:
            assert (await hello(client, token=welcome["token"], after=position))["recovered"]


@exercises(PAGE, "reports.py")
@pytest.mark.virtual_time
async def test_work_goes_on_without_a_connection(follow: Follow) -> None:
    module = follow(PAGE).load("reports.py")
    async with serve(module.app) as server:
        async with server.connect("/report/Ada") as client:
            await client.send("null")
            token = await client.receive()
            await trio.sleep(3)
            await client.disconnect()
        async with server.connect("/report/Ada") as client:
            began = trio.current_time()
            await client.send(json.dumps(token))
            assert await client.receive() != token
            assert await client.receive() == "all is well"
            assert trio.current_time() - began < 3
            assert (await client.wait_closed()).code == 1000
        assert not module.reports


async def test_who_is_not_signed_in_gets_no_session(follow: Follow) -> None:
    async with serve(follow(PAGE).load("desk.py").app) as server, server.connect("/desk") as client:
        assert (await client.wait_closed()).code == 4401


def test_the_clients_stop_after_the_codes_after_which_nobody_comes_back() -> None:
    final = {row.code for row in SENT_CODES if row.reconnect in ("never", "with a fresh token")}
    for name, pattern in (("desk.mjs", r"new Set\(\[([\d, ]+)\]\)"), ("clerk.py", r"FINAL = \{([\d, ]+)\}")):
        (found,) = re.findall(pattern, files(DOCS / PAGE)[name])
        codes = {int(code) for code in found.split(", ")}
        assert codes == final | {1003, 1010, 4403}, name


def test_the_numbers_of_the_page_are_the_defaults() -> None:
    text = " ".join((DOCS / PAGE).read_text().split())
    defaults = {name: each.default for name, each in inspect.signature(Sessions).parameters.items()}
    assert f"for `window` seconds, {defaults['window']:.0f} by default" in text
    assert f"for `overlap` seconds, {defaults['overlap']:.0f} by default" in text
    assert (
        f"`record_bytes`, {defaults['record_bytes'] // 1024} KiB by default, and {defaults['rooms']} rooms"
        in text
    )
