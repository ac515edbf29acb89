from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest
import trio

from tests.clients.conftest import HERE, node
from tests.docs.conftest import Follow
from tests.docs.following import exercises
from tests.docs.node import NodeProgram, node_program
from tests.docs.snippets import DOCS, files
from tests.examples.conftest import connect
from wsframework import SENT_CODES, Close, Connection, Server

__all__ = ["node"]  # a fixture

PAGE = "howto/reconnect.md"


class Feed:
    """The page's class in Node.js, and how long it has waited each time."""

    def __init__(self, program: NodeProgram) -> None:
        self.say = program.say
        self.waits: list[int] = []
        self._program = program

    async def line(self) -> str:
        """Return what it reports next; how long it waits is noted in `waits`."""
        while (line := await self._program.line()).startswith("wait "):
            self.waits.append(int(line.removeprefix("wait ")))
        return line


@asynccontextmanager
async def feed_at(node: str, folder: Path, url: str) -> AsyncIterator[Feed]:
    async with node_program(node, str(HERE / "feed_client.mjs"), str(folder / "feed.mjs"), url) as program:
        yield Feed(program)


async def start(nursery: trio.Nursery, module: ModuleType, port: int = 0) -> Server:
    server: Server = await nursery.start(module.app.serve, "127.0.0.1", port)
    return server


@pytest.mark.node
@exercises(PAGE, "feed.mjs")
async def test_the_client_comes_back_with_every_message_once(
    follow: Follow, nursery: trio.Nursery, node: str
) -> None:
    folder = follow(PAGE)
    module = folder.load("feed.py")
    server = await start(nursery, module)
    port = server.port
    assert port is not None
    module.publish("zero")
    async with feed_at(node, folder.path, f"ws://127.0.0.1:{port}/feed") as feed:
        assert await feed.line() == "message 1 zero"
        await feed.say("one")
        assert {await feed.line(), await feed.line()} == {"sent true", "message 2 one"}
        server.stop()
        await server.wait_stopped()
        module.publish("two")
        await feed.say("lost")
        assert await feed.line() == "sent false"
        server = await start(nursery, module, port)
        assert await feed.line() == "message 3 two"
        module.publish("three")
        assert await feed.line() == "message 4 three"
        # The history of another process: it has another name, and its numbers begin again.
        module.log = "another"  # type: ignore[attr-defined]
        module.history.clear()
        module.history.append({"id": 1, "text": "new"})
        server.stop()
        await server.wait_stopped()
        server = await start(nursery, module, port)
        assert [await feed.line(), await feed.line()] == ["gap", "message 1 new"]
        await feed.say("close")
        assert await feed.line() == "end 1000 "
    assert len(feed.waits) >= 2
    assert all(0 <= wait <= 30_000 for wait in feed.waits)
    server.stop()


@pytest.mark.node
async def test_the_client_stops_or_waits_as_the_close_code_says(
    follow: Follow, nursery: trio.Nursery, node: str
) -> None:
    folder = follow(PAGE)
    module = folder.load("feed.py")
    codes: list[int] = []

    @module.app.websocket("/codes")  # type: ignore[untyped-decorator]
    async def close(ws: Connection) -> None:
        raise Close(codes.pop(0))

    server = await start(nursery, module)
    for final in (1000, 1003, 1007, 1008, 1009, 1010, 4401, 4403):
        codes[:] = [1001, 1012, 1011, 1013, 4999, final]
        async with feed_at(node, folder.path, f"ws://127.0.0.1:{server.port}/codes") as feed:
            assert await feed.line() == f"end {final} "
        assert not codes
        for attempt, (wait, least) in enumerate(zip(feed.waits, (0, 0, 0, 5000, 0), strict=True)):
            assert least <= wait <= least + 500 * 2**attempt
    server.stop()


def test_the_table_of_codes_says_what_the_client_does() -> None:
    text = (DOCS / PAGE).read_text()
    rows = re.findall(r"^\| ([\d, ]+) \| [^|]+ \| (\w+)", text, re.MULTILINE)
    told = {int(code): verb for codes, verb in rows for code in codes.split(", ")}
    (final,) = re.findall(r"new Set\(\[([\d, ]+)\]\)", files(DOCS / PAGE)["feed.mjs"])
    stops = {int(code) for code in final.split(", ")}
    assert {code for code, verb in told.items() if verb == "Stop"} == {code for code in stops if code < 4000}
    assert {code for code, verb in told.items() if verb == "Reconnect"} == {1001, 1006, 1011, 1012, 1013}
    for sent in SENT_CODES:
        assert (sent.reconnect in ("never", "with a fresh token")) is (sent.code in stops), sent


@exercises(PAGE, "feed.py")
@pytest.mark.parametrize(
    ("query", "complete", "ids"),
    [
        ("", False, range(501, 1501)),
        ("?log={log}&after=500", True, range(501, 1501)),
        ("?log={log}&after=499", False, range(501, 1501)),
        ("?log={log}&after=1499", True, [1500]),
        ("?log={log}&after=1500", True, []),
        ("?log={log}&after=1501", False, range(501, 1501)),
        ("?log={log}&after=x", False, range(501, 1501)),
        ("?log=another&after=1499", False, range(501, 1501)),
    ],
)
async def test_the_server_says_whether_it_has_all_that_was_missed(
    follow: Follow, nursery: trio.Nursery, query: str, complete: bool, ids: list[int]
) -> None:
    folder = follow(PAGE)
    module = folder.load("feed.py")
    url = await folder.serve(nursery, "feed.py")
    for number in range(1500):
        module.publish(str(number))
    async with connect(f"{url}/feed{query.format(log=module.log)}") as ws:
        first = json.loads(await ws.get_message())
        assert first == {"log": module.log, "complete": complete, "messages": []}
        got: list[int] = []
        module.publish("last")
        while 1501 not in got:
            got += [message["id"] for message in json.loads(await ws.get_message())["messages"]]
    assert got == [*ids, 1501]


async def test_a_server_without_messages_yet_has_everything(follow: Follow, nursery: trio.Nursery) -> None:
    folder = follow(PAGE)
    module = folder.load("feed.py")
    url = await folder.serve(nursery, "feed.py")
    async with connect(f"{url}/feed?log={module.log}&after=0") as ws:
        assert json.loads(await ws.get_message())["complete"] is True
