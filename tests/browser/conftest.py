"""Chromium for every test in this folder: skipped where it is missing, required in CI."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.browser.stage import ChatServer, Window

NewWindow = Callable[..., "Window"]


def _missing(what: str) -> None:
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(f"{what}; CI needs it", pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        from tests.browser.stage import find_chromium, open_browser
    except ImportError:
        _missing("Playwright is not installed: pip install playwright")
    path = find_chromium()
    if path is None:
        _missing("Chromium is not installed: apt-get install chromium")
    assert path is not None
    with open_browser(path) as browser:
        yield browser


@pytest.fixture
def server(browser: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ChatServer]:
    """The chat in a thread; with the marker `process`, `wsframework chat` in a process of its own.

    In the form "redis" it is always that, with two workers.
    """
    from tests.browser.stage import ChatProcess, ChatServer, SharedChat

    if getattr(request, "param", "one process") == "redis":
        shared = SharedChat(tmp_path)
        trio.run(shared.redis.start)
        shared.start()
        yield shared
        shared.stop()
        shared.redis.kill()
        return
    kind = ChatProcess if request.node.get_closest_marker("process") else ChatServer
    server = kind(tmp_path / "chat.db")
    server.start()
    yield server
    server.stop()


in_each_form = pytest.mark.parametrize("server", ["one process", "redis"], indirect=True)
"""Marks a test for a chat of one process, and one of two workers on Redis."""


@pytest.fixture
def new_window(browser: Browser, server: ChatServer) -> Iterator[NewWindow]:
    """Return a function that opens one more window; none of them may complain of anything."""
    from tests.browser.stage import Window

    windows: list[Window] = []

    def new_window(name: str | None = None, fragment: str = "", **options: Any) -> Window:
        window = Window(browser, server.url, **options)
        windows.append(window)
        if name is not None:
            window.come_as(name, fragment)
        return window

    yield new_window
    complaints = [complaint for window in windows for complaint in window.complaints]
    for window in windows:
        window.close()
    assert complaints == []
