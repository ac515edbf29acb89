"""Follow a page as a reader does: save its programs in a folder, import them, serve them, run them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import pytest
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected

from tests.docs.snippets import DOCS, files
from tests.examples.conftest import connect

TestT = TypeVar("TestT", bound=Callable[..., object])

EXERCISED: set[tuple[str, str]] = set()
"""Each file and each command of a page that a test has taken on itself, as (page, name or command line)."""


def exercises(page: str, *names: str) -> Callable[[TestT], TestT]:
    """Say which of a page's programs and commands a test runs; `test_snippets` asks for each of them."""
    EXERCISED.update((page, name) for name in names)
    return lambda test: test


class Folder:
    """A folder with all the files of a page in it."""

    def __init__(self, path: Path, page: str) -> None:
        self.path = path
        self.texts = files(DOCS / page)
        for name, text in self.texts.items():
            (path / name).write_text(text)

    def load(self, name: str) -> ModuleType:
        """Import one of the programs."""
        importlib.invalidate_caches()
        return importlib.import_module(name.removesuffix(".py"))

    async def serve(self, nursery: trio.Nursery, name: str) -> str:
        """Serve a program's App on a free port and return its URL."""
        server = await nursery.start(self.load(name).app.serve, "127.0.0.1", 0)
        return str(server.urls[0])

    def forget(self) -> None:
        """Let nothing of it stay imported."""
        for module in [module for module in sys.modules.values() if self._holds(module)]:
            del sys.modules[module.__name__]

    def _holds(self, module: ModuleType) -> bool:
        return (getattr(module, "__file__", None) or "").startswith(str(self.path))


async def refusal(
    url: str, subprotocols: Sequence[str] = (), headers: Mapping[str, str] | None = None
) -> int:
    """Return the HTTP status that a client gets in place of a connection."""
    with pytest.RaisesGroup(ConnectionRejected, flatten_subgroups=True) as caught:
        async with connect(url, subprotocols=subprotocols or None, headers=headers):
            pass
    (answer,) = caught.value.exceptions
    assert isinstance(answer, ConnectionRejected)
    return answer.status_code


async def close_of(
    url: str,
    *messages: str,
    subprotocols: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Send messages, and return the code and the reason with which the server then closes."""
    async with connect(url, subprotocols=subprotocols or None, headers=headers) as ws:
        for message in messages:
            await ws.send_message(message)
        with trio.fail_after(10):
            try:
                while True:
                    await ws.get_message()
            except ConnectionClosed as closed:
                reason = closed.reason
    assert reason is not None
    return int(reason.code), reason.reason or ""
