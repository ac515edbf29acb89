from __future__ import annotations

import re

import pytest
import trio
import trio_websocket

from tests.contract.differences import Difference
from tests.docs.conftest import Follow
from tests.docs.following import exercises, refusal
from tests.docs.snippets import DOCS
from tests.examples.conftest import connect
from wsframework.hosts.trio_websocket import serve_websocket

PAGE = DOCS / "moving.md"


async def check_echo(url: str) -> None:
    async with connect(f"{url}/echo") as ws:
        await ws.send_message("hello")
        assert await ws.get_message() == "hello"
    assert await refusal(f"{url}/elsewhere") == 404


@exercises("moving.md", "before.py", "after.py")
async def test_before_and_after_do_the_same(follow: Follow, nursery: trio.Nursery) -> None:
    folder = follow("moving.md")
    await check_echo(await folder.serve(nursery, "after.py"))
    before = folder.load("before.py").handler
    server = await nursery.start(trio_websocket.serve_websocket, before, "127.0.0.1", 0, None)
    await check_echo(f"ws://127.0.0.1:{server.port}")
    nursery.cancel_scope.cancel()


@exercises("moving.md", "halfway.py")
async def test_halfway_is_the_app_on_our_serve_websocket(follow: Follow, nursery: trio.Nursery) -> None:
    module = follow("moving.md").load("halfway.py")
    assert module.serve_websocket is serve_websocket
    server = await nursery.start(module.serve_websocket, module.app, "127.0.0.1", 0, None)
    await check_echo(f"ws://127.0.0.1:{server.port}")
    nursery.cancel_scope.cancel()


@exercises("moving.md", "plain.py")
async def test_plain_is_the_app_on_the_other_server(follow: Follow, nursery: trio.Nursery) -> None:
    module = follow("moving.md").load("plain.py")
    started: list[str] = []
    listening = trio.Event()

    async def serve_on_a_free_port(handler: object, host: str, port: int, ssl_context: None) -> None:
        async with trio.open_nursery() as inner:
            server = await inner.start(trio_websocket.serve_websocket, handler, host, 0, ssl_context)
            started.append(f"ws://{host}:{server.port}")
            listening.set()

    assert module.serve_websocket is trio_websocket.serve_websocket
    module.serve_websocket = serve_on_a_free_port  # type: ignore[attr-defined]
    nursery.start_soon(module.main)
    await listening.wait()
    await check_echo(started[0])
    assert await refusal(f"{started[0]}/old") == 410
    nursery.cancel_scope.cancel()


def test_the_differences_are_those_that_the_contract_suite_checks() -> None:
    told = re.findall(r"^\| `([A-Z_]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert told == [difference.name for difference in Difference]


@pytest.mark.parametrize("line", [line for line in PAGE.read_text().splitlines() if line.startswith("| `")])
def test_every_name_of_trio_websocket_in_the_table_is_one(line: str) -> None:
    left = line.split(" | ")[0]
    connection, request = trio_websocket.WebSocketConnection, trio_websocket.WebSocketRequest
    for kind, names in (
        (connection, re.findall(r"\bws\.(\w+)", left)),
        (request, re.findall(r"\brequest\.(\w+)", left)),
    ):
        for name in names:
            assert hasattr(kind, name), f"{kind.__name__}.{name}"
