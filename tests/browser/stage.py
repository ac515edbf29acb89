"""A chat server in a process of its own, and people in browser windows."""

from __future__ import annotations

import functools
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect, sync_playwright

from tests.engines.redis.redis_server import RedisServer
from wsframework import App
from wsframework.chat import Chat
from wsframework.chat.history import HistoryStore
from wsframework.chat.messages import Draft
from wsframework.engines.redis import RedisEngine

PATIENCE_SECONDS = 30.0

# Debian calls it chromium; the rest is for other systems.
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

_OPTIONS = (
    "--headless",
    "--no-sandbox",  # containers run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium() -> str | None:
    """Return the path of the system's Chromium, or None."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def open_browser(path: str) -> Iterator[Browser]:
    """Start Chromium, and end it with the block."""
    expect.set_options(timeout=PATIENCE_SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


class ChatServer:
    """The chat on one port and one database, in a thread: a process would take longer than most tests."""

    def __init__(self, database: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.database = database
        self._running: tuple[threading.Thread, trio.lowlevel.TrioToken, trio.CancelScope] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def options(self) -> list[str]:
        """The options that say where the messages are."""
        return ["--db", str(self.database)]

    def forget(self) -> None:
        """Remove all messages, while it is stopped."""
        for file in self.database.parent.glob("chat.db*"):
            file.unlink()

    def put(self, messages: list[tuple[str, str]]) -> None:
        """Add messages, (name, text), to the lobby while it is stopped."""
        store = HistoryStore(self.database)
        store.open()
        store.append([Draft("lobby", name, text) for name, text in messages])
        store.close()

    def start(self) -> None:
        """Start it and wait until it listens."""
        assert self._running is None
        started: queue.SimpleQueue[tuple[trio.lowlevel.TrioToken, trio.CancelScope] | None] = (
            queue.SimpleQueue()
        )

        async def serve() -> None:
            app = App()
            app.install(Chat(history=self.database))
            async with trio.open_nursery() as nursery:
                start = functools.partial(app.serve, allow_hosts=["localhost", "127.0.0.1"])
                await nursery.start(start, "127.0.0.1", self.port)
                started.put((trio.lowlevel.current_trio_token(), nursery.cancel_scope))

        def run() -> None:
            try:
                trio.run(serve)
            finally:
                started.put(None)

        thread = threading.Thread(target=run)
        thread.start()
        token_and_scope = started.get()
        assert token_and_scope is not None, "the server did not start"
        self._running = thread, *token_and_scope

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it gracefully; a thread takes no signals."""
        assert number is signal.SIGTERM
        if self._running is not None:
            thread, token, scope = self._running
            self._running = None
            token.run_sync_soon(scope.cancel)
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()


class ChatProcess(ChatServer):
    """`wsframework chat`, whatever happens to its process."""

    _process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        assert self._process is None
        command = [sys.executable, "-m", "wsframework", "chat", "--log-level", "warning"]
        command += ["--port", str(self.port), *self.options()]
        # In a group of its own, which has the workers too.
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "Ctrl-C stops" in line:
                return
        raise AssertionError("the server did not start")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it: gracefully, or with SIGKILL as a power cut would."""
        process, self._process = self._process, None
        if process is not None:
            if number == signal.SIGKILL:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
            process.wait(PATIENCE_SECONDS)
            assert process.stdout is not None
            process.stdout.close()


class SharedChat(ChatProcess):
    """The same with two workers, on a Redis that is the test's."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "chat.db")
        self.redis = RedisServer(folder / "redis", ("appendonly", "yes"), ("appendfsync", "always"))

    def options(self) -> list[str]:
        return ["--redis", self.redis.url, "--workers", "2"]

    def forget(self) -> None:
        trio.run(self.redis.command, "FLUSHALL")

    def put(self, messages: list[tuple[str, str]]) -> None:
        async def put() -> None:
            app, engine = App(), RedisEngine(self.redis.url)
            chat = Chat(engine=engine)
            app.install(engine)
            app.install(chat)
            async with app.running():
                for name, text in messages:
                    await chat.say("lobby", text, name=name)

        trio.run(put)


class Window:
    """One person's browser window, as that person sees it."""

    def __init__(
        self,
        browser: Browser,
        url: str,
        *,
        width: int = 1100,
        height: int = 700,
        dark: bool = False,
    ) -> None:
        self.url = url
        self.context = browser.new_context(
            viewport=ViewportSize(width=width, height=height),
            color_scheme="dark" if dark else "light",
            locale="en-GB",
        )
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        # A connection that cannot be made is what some tests are about, and the browser always reports it.
        self.page.on("console", self._note_console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"a dialog: {dialog.message}"))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _note_console(self, message: Any) -> None:
        if message.type in ("error", "warning") and "WebSocket connection to" not in message.text:
            self.complaints.append(message.text)

    def open(self, fragment: str = "") -> None:
        self.page.goto(self.url + fragment)

    def come_as(self, name: str, fragment: str = "") -> None:
        """Open the page, say who one is, and wait until one is in the room."""
        self.open(fragment)
        self.name_field.fill(name)
        self.page.get_by_role("button", name="Start chatting").click()
        self.wait_online()

    def wait_online(self) -> None:
        expect(self.page.get_by_role("status")).to_have_text("Online")
        expect(self.page.locator("#subtitle")).not_to_be_empty()

    @property
    def name_field(self) -> Locator:
        return self.page.get_by_label("Your name", exact=True)

    @property
    def writing(self) -> Locator:
        return self.page.get_by_label("Message", exact=True)

    @property
    def log(self) -> Locator:
        return self.page.get_by_role("log")

    @property
    def people(self) -> Locator:
        return self.page.get_by_role("list", name="People").get_by_role("listitem")

    def say(self, text: str) -> None:
        self.writing.fill(text)
        self.writing.press("Enter")

    def said(self) -> list[tuple[str, str]]:
        """Return what the log shows that the server has: (name, text), in order."""
        script = """nodes => nodes.map(node =>
            [node.querySelector("bdi").textContent, node.querySelector(".text").textContent])"""
        shown = self.page.locator(".message:not(.pending)").evaluate_all(script)
        return [(str(name), str(text)) for name, text in shown]

    def wait_said(self, count: int) -> list[tuple[str, str]]:
        """Wait until the log shows so many messages."""
        expect(self.page.locator(".message:not(.pending)")).to_have_count(count)
        return self.said()

    def close(self) -> None:
        self.context.close()
