"""A test's stage: servers that really serve and clients that really connect, all gone at the end."""

from __future__ import annotations

import functools
import logging
import ssl as ssl_module
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.promises.rawclient import Answer, Client, open_socket, parse_answer
from wsframework import App, Keepalive, Limits, Timeouts
from wsframework.server import Server, TransportChoice, serve

PATIENT = Timeouts(handshake=10, guard=10, close=10, disconnect_grace=0.2, last_words=5, drain=1)
"""For all tests but those of the timeouts: a busy machine shall not bring one about."""

QUICK = Timeouts(handshake=0.3, guard=0.3, http=0.3, close=0.3, disconnect_grace=0.2, last_words=0.2, drain=1)
"""For tests that wait until a timeout is over."""

SILENT = Keepalive(interval=None)

TEST_SECONDS = 180.0
"""No test of this folder may take longer; it is far above what any of them needs on a busy machine."""


def new_app(
    *, limits: Limits | None = None, timeouts: Timeouts = PATIENT, keepalive: Keepalive = SILENT
) -> App:
    """An App without handlers."""
    return App(limits=limits, timeouts=timeouts, keepalive=keepalive)


class Running:
    """A server in a task of the stage."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.server: Server | None = None

    async def run(
        self, serve: Callable[..., Awaitable[None]], *, task_status: trio.TaskStatus[Server]
    ) -> None:
        with self.scope:
            await serve(task_status=task_status)
        self.ended.set()


async def serve_by(transport: TransportChoice, app: App, **where: Any) -> None:
    """Do what `app.serve` does, on a transport of our choice."""
    async with app.running():
        await serve(
            app.decide,
            limits=app.limits,
            timeouts=app.timeouts,
            keepalive=app.keepalive,
            observers=app.observers,
            transport=transport,
            **where,
        )


class Stage:
    """Start servers, connect clients."""

    def __init__(self, nursery: trio.Nursery, transport: TransportChoice = "auto") -> None:
        self.nursery = nursery
        self.transport = transport
        self._clients: list[Client] = []
        self._running: dict[Server, Running] = {}

    # Servers

    async def serve(
        self,
        app: App,
        host: str | None = "127.0.0.1",
        *,
        ssl: ssl_module.SSLContext | None = None,
        unix_path: str | None = None,
    ) -> Server:
        """Serve `app` on a port that the system chooses."""
        running = Running()
        if self.transport == "auto":
            serve = functools.partial(app.serve, host, 0, ssl=ssl, unix_path=unix_path)
        else:
            serve = functools.partial(
                serve_by, self.transport, app, host=host, port=0, ssl=ssl, unix_path=unix_path
            )
        server: Server = await self.nursery.start(running.run, serve)
        self._running[server] = running
        return server

    def cancel(self, server: Server) -> None:
        """Cancel the server's task."""
        self._running[server].scope.cancel()

    def has_ended(self, server: Server) -> bool:
        return self._running[server].ended.is_set()

    async def wait_ended(self, server: Server) -> None:
        await self._running[server].ended.wait()

    # Clients

    async def dial(
        self,
        server: Server,
        *,
        receive_buffer: int | None = None,
        ssl: ssl_module.SSLContext | None = None,
        address: int = 0,
    ) -> Client:
        """Open a connection and say nothing on it yet."""
        where = server.addresses[address]
        stream = await open_socket(where.host, where.port, receive_buffer=receive_buffer)
        client = Client(stream if ssl is None else trio.SSLStream(stream, ssl, server_hostname="localhost"))
        self._clients.append(client)
        return client

    async def connect(
        self,
        server: Server,
        path: str = "/",
        *,
        subprotocols: Sequence[str] = (),
        extensions: str | None = None,
        behind: bytes = b"",
        receive_buffer: int | None = None,
        ssl: ssl_module.SSLContext | None = None,
        address: int = 0,
    ) -> Client:
        """Open a WebSocket."""
        client = await self.dial(server, receive_buffer=receive_buffer, ssl=ssl, address=address)
        answer = await client.upgrade(path, subprotocols=subprotocols, extensions=extensions, behind=behind)
        assert answer.status == 101, answer
        return client

    async def ask(self, server: Server, request: bytes | str) -> Answer:
        """Send a request and read up to the end, our own side staying open; a RST there is a failure."""
        client = await self.dial(server)
        await client.send(request.encode() if isinstance(request, str) else request)
        answer = parse_answer(await client.read_all(), client.end)
        client.vanish()
        return answer

    def close_clients(self) -> None:
        for client in self._clients:
            client.vanish()
        self._clients.clear()


@asynccontextmanager
async def staging(transport: TransportChoice) -> AsyncIterator[Stage]:
    """Give a test its stage, on one transport; a test that hangs fails."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watchdog)
        stage = Stage(nursery, transport)
        try:
            yield stage
        finally:
            stage.close_clients()
        nursery.cancel_scope.cancel()


async def watchdog(seconds: float = TEST_SECONDS) -> None:
    await trio.sleep(seconds)
    raise AssertionError(f"the test takes more than {seconds} s: something hangs")


@attrs.frozen
class Journal:
    """What was logged, by anybody, from DEBUG up."""

    caplog: pytest.LogCaptureFixture

    def events(self, *, least: int = logging.DEBUG) -> list[str]:
        """The names of what was logged, from `least` up."""
        return [
            str(getattr(entry, "event", entry.getMessage()))
            for entry in self.caplog.records
            if entry.levelno >= least
        ]

    def clear(self) -> None:
        """Forget what was logged so far."""
        self.caplog.clear()

    def tracebacks(self) -> list[logging.LogRecord]:
        return [entry for entry in self.caplog.records if entry.exc_info]

    def fields(self, event: str) -> dict[str, object]:
        """The fields of the only record of an event."""
        (entry,) = (entry for entry in self.caplog.records if getattr(entry, "event", None) == event)
        fields: dict[str, object] = entry.__dict__["fields"]
        return fields


def tasks_alive() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def tasks_at_rest() -> int:
    """Count the tasks once everybody waits for something."""
    await trio.testing.wait_all_tasks_blocked(0.01)
    return tasks_alive()
