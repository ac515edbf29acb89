"""The hosts and transports that one contract holds for.

To add one: a `Host` with a name, its differences, and `serve`, in `HOSTS`.
"""

from __future__ import annotations

import functools
import ssl
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import trio
import trio_websocket
import trustme

from tests.contract.differences import Difference
from wsframework import App, Limits, Server, Timeouts
from wsframework.hosts.trio_websocket import serve_websocket
from wsframework.server import serve as server_serve
from wsframework.server.native import TransportChoice
from wsframework.testing import Client, ClientSettings, MemoryServer, open_client, serve
from wsframework.testing.background import open_background

__all__ = ["HOSTS", "TIMEOUTS", "Host", "Served", "new_app"]

DEADLINE_SECONDS = 30.0
"""Real seconds that a client waits for one thing."""

TIMEOUTS = Timeouts(handshake=2.0, close=0.5, disconnect_grace=0.2, last_words=0.3, drain=0.6)
"""Short, because sockets need the real clock; and far enough from each other to be told apart."""


def new_app(
    *, limits: Limits | None = None, timeouts: Timeouts = TIMEOUTS, trusted_proxies: Iterable[str] = ()
) -> App:
    return App(limits=limits, timeouts=timeouts, trusted_proxies=trusted_proxies)


class Served:
    """An App that is being served."""

    def __init__(
        self,
        *,
        authority: str,
        open_stream: Callable[[], Awaitable[trio.abc.Stream]],
        stop: Callable[[], None],
    ) -> None:
        self.authority = authority
        self.open_stream = open_stream
        self.stop = stop
        self.stopped = trio.Event()
        self.server: object = None
        """What the host calls its server, for what only some of them count."""

    @asynccontextmanager
    async def connect(
        self,
        path: str = "/",
        *,
        subprotocols: Iterable[str] = (),
        headers: Iterable[tuple[str, str]] = (),
        origin: str | None = None,
    ) -> AsyncIterator[Client]:
        fields = [*headers] if origin is None else [*headers, ("Origin", origin)]
        settings = ClientSettings(
            subprotocols=tuple(subprotocols), headers=tuple(fields), deadline=DEADLINE_SECONDS
        )
        stream = await self.open_stream()
        async with open_client(stream, self.authority, path, settings=settings) as client:
            yield client

    async def exchange(self, request: bytes) -> bytes:
        """Send a request of one's own making and read up to the end, with our side left open."""
        async with await self.open_stream() as stream:
            answer = b""
            with trio.fail_after(DEADLINE_SECONDS):
                await stream.send_all(request)
                while data := await stream.receive_some():
                    answer += data
            return answer

    async def get(self, path: str, *fields: str) -> bytes:
        """Ask for a page and read the answer, after which the connection ends."""
        lines = f"GET {path} HTTP/1.1", f"Host: {self.authority}", *fields, "Connection: close", "", ""
        return await self.exchange("\r\n".join(lines).encode())


class Host(ABC):
    """Something that serves Apps."""

    name: str
    virtual_time = False
    """Whether tests may run on a virtual clock: nothing of the host waits for the kernel."""
    in_asyncio = False
    """Whether Trio runs as a guest in an asyncio event loop."""
    differences: frozenset[Difference] = frozenset()

    def differs(self, difference: Difference) -> bool:
        return difference in self.differences

    def __repr__(self) -> str:
        return self.name

    @abstractmethod
    def serve(self, app: App) -> AbstractAsyncContextManager[Served]:
        """Serve an App for as long as the block lasts."""


class NativeInMemory(Host):
    """The native server, over memory streams."""

    name = "native-memory"
    virtual_time = True

    @asynccontextmanager
    async def serve(self, app: App) -> AsyncIterator[Served]:
        stopping = trio.Event()

        async def start(*, task_status: trio.TaskStatus[object]) -> None:
            async with serve(app) as server:
                # What crashed is what the contract's tests look at.
                server._raise_unseen = lambda: None  # type: ignore[method-assign]
                task_status.started(server)
                await stopping.wait()

        async with _serving(start) as (server, served):
            assert isinstance(server, MemoryServer)

            async def open_stream() -> trio.abc.Stream:
                return server.open_stream()

            served.open_stream = open_stream
            served.stop = stopping.set
            yield served
            stopping.set()
            await served.stopped.wait()


class NativeOnSockets(Host):
    """The native server, on sockets.

    Args:
        kind: what it listens on: "tcp", "tls" or "unix".
        transport: "hub" or "stream"; "auto" is what `App.serve` starts.
    """

    def __init__(self, kind: str, transport: TransportChoice) -> None:
        self.kind = kind
        self.transport: TransportChoice = transport
        self.name = f"native-{kind}" if transport == "auto" else f"native-{kind}-{transport}"

    @asynccontextmanager
    async def serve(self, app: App) -> AsyncIterator[Served]:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "socket") if self.kind == "unix" else None
            tls = _server_tls() if self.kind == "tls" else None

            async def start(*, task_status: trio.TaskStatus[object]) -> None:
                if self.transport == "auto":
                    await app.serve("127.0.0.1", 0, ssl=tls, unix_path=path, task_status=task_status)
                    return
                async with app.running():
                    await server_serve(
                        app.decide,
                        host="127.0.0.1",
                        port=0,
                        ssl=tls,
                        unix_path=path,
                        limits=app.limits,
                        timeouts=app.timeouts,
                        keepalive=app.keepalive,
                        proxies=app.proxies,
                        observers=app.observers,
                        transport=self.transport,
                        task_status=task_status,
                    )

            async with _serving(start) as (server, served):
                if path is not None:
                    served.open_stream = functools.partial(trio.open_unix_socket, path)
                else:
                    assert isinstance(server, Server)
                    served.authority = f"127.0.0.1:{server.port}"
                    served.open_stream = functools.partial(_open_tcp, server.port, tls is not None)
                yield served


class NativeInAsyncio(NativeOnSockets):
    """The native server, on sockets, in an asyncio program: the Trio run is a guest there."""

    in_asyncio = True

    def __init__(self) -> None:
        super().__init__("tcp", "auto")
        self.name = "native-tcp-in-asyncio"


class TrioWebsocketHost(Host):
    """trio-websocket's server, which listens for the App: our `serve_websocket`.

    Args:
        kind: what it listens on: "tcp" or "tls".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.name = "trio-websocket" if kind == "tcp" else f"trio-websocket-{kind}"

    @asynccontextmanager
    async def serve(self, app: App) -> AsyncIterator[Served]:
        tls = _server_tls() if self.kind == "tls" else None
        async with _serving(functools.partial(serve_websocket, app, "127.0.0.1", 0, tls)) as started:
            yield _at_port_of(*started, tls=tls is not None)


class PlainTrioWebsocketHost(Host):
    """A server of trio-websocket's, with the App for its handler and nothing of ours around it."""

    name = "trio-websocket-plain"
    differences = frozenset(Difference)

    @asynccontextmanager
    async def serve(self, app: App) -> AsyncIterator[Served]:
        async def start(*, task_status: trio.TaskStatus[object]) -> None:
            async with app.running():
                await trio_websocket.serve_websocket(app, "127.0.0.1", 0, None, task_status=task_status)

        async with _serving(start) as started:
            yield _at_port_of(*started, tls=False)


def _at_port_of(server: object, served: Served, *, tls: bool) -> Served:
    assert isinstance(server, trio_websocket.WebSocketServer)
    served.authority = f"127.0.0.1:{server.port}"
    served.open_stream = functools.partial(_open_tcp, server.port, tls)
    return served


@asynccontextmanager
async def _serving(start: Callable[..., Awaitable[object]]) -> AsyncIterator[tuple[object, Served]]:
    """Run a server that follows Trio's start protocol, and stop it as its user would: by cancelling it."""
    scope = trio.CancelScope()

    async def not_yet() -> trio.abc.Stream:
        raise AssertionError("the host says where to connect")

    served = Served(authority="localhost", open_stream=not_yet, stop=scope.cancel)

    async def run(*, task_status: trio.TaskStatus[object]) -> None:
        try:
            with scope:
                await start(task_status=task_status)
        finally:
            served.stopped.set()

    async with open_background() as nursery:
        server = served.server = await nursery.start(run)
        yield server, served
        scope.cancel()


async def _open_tcp(port: int, tls: bool) -> trio.abc.Stream:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    if not tls:
        return stream
    return trio.SSLStream(stream, _client_tls(), server_hostname="127.0.0.1", https_compatible=True)


@functools.cache
def _authority() -> trustme.CA:
    return trustme.CA()


@functools.cache
def _server_tls() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _authority().issue_cert("127.0.0.1").configure_cert(context)
    return context


@functools.cache
def _client_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    _authority().configure_trust(context)
    return context


HOSTS: tuple[Host, ...] = (
    NativeInMemory(),
    NativeOnSockets("tcp", "auto"),
    NativeOnSockets("tls", "auto"),
    NativeOnSockets("unix", "auto"),
    NativeInAsyncio(),
    NativeOnSockets("tcp", "stream"),
    NativeOnSockets("tls", "stream"),
    NativeOnSockets("unix", "stream"),
    TrioWebsocketHost("tcp"),
    TrioWebsocketHost("tls"),
    PlainTrioWebsocketHost(),
)
