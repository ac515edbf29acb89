"""What a newer trio-websocket or wsproto lacks of the private names that the host uses."""

from __future__ import annotations

import importlib.metadata
import inspect

import pytest
import trio
import trio_websocket

from tests.hosts.trio_websocket.stage import ask, plainly
from tests.test_structure import FOREIGN_PRIVATE_NAMES
from wsframework.hosts.trio_websocket.internals import AcceptingServer

MODULE = "wsframework.hosts.trio_websocket.internals"

# A path from a request of trio-websocket: each private name, with the library that has it.
PATHS = {
    "_event": "trio-websocket",
    "_connection": "trio-websocket",
    "_connection._stream": "trio-websocket",
    "_connection._reader_running": "trio-websocket",
    "_connection._send_channel": "trio-websocket",
    "_connection._wsproto": "trio-websocket",
    "_connection._wsproto.handshake._h11_connection": "wsproto",
}


def missing(library: str, name: str) -> str:
    version = importlib.metadata.version(library)
    return f"{library} {version} has no {name}: {MODULE} has to find what it needs elsewhere"


def found(value: object, path: str) -> bool:
    for name in path.split("."):
        if not hasattr(value, name):
            return False
        value = getattr(value, name)
    return True


async def a_request() -> trio_websocket.WebSocketRequest:
    """Return a request that a server of trio-websocket has read."""
    requests: list[trio_websocket.WebSocketRequest] = []
    came = trio.Event()

    async def handler(request: trio_websocket.WebSocketRequest) -> None:
        requests.append(request)
        came.set()

    async with plainly(handler) as (port, _), await ask(port):
        with trio.fail_after(30):
            await came.wait()
    return requests[0]


@pytest.mark.parametrize("path", PATHS)
async def test_a_request_still_has_the_private_names_that_are_used(path: str) -> None:
    assert found(await a_request(), path), missing(PATHS[path], f"WebSocketRequest.{path}")


def test_a_server_still_calls_what_is_overridden() -> None:
    name = AcceptingServer._handle_connection.__name__
    calls = inspect.getsource(trio_websocket.WebSocketServer.run)
    assert hasattr(trio_websocket.WebSocketServer, name), missing("trio-websocket", f"WebSocketServer.{name}")
    assert name in calls, missing("trio-websocket", f"WebSocketServer.{name} that `run` calls")


def test_each_private_name_that_is_used_is_looked_for() -> None:
    looked_for = {path.rpartition(".")[2] for path in PATHS}
    assert looked_for == FOREIGN_PRIVATE_NAMES[MODULE]


async def test_what_is_missing_is_named() -> None:
    request = await a_request()
    assert not found(request, "_connection._gone")
    assert "trio-websocket" in missing("trio-websocket", "WebSocketRequest._connection._gone")
