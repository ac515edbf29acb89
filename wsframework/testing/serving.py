"""An App served in memory, and clients that connect to it.

Theory of operation
-------------------
`serve` enters the App's lifespans and runs the native server without any listener; every connection is a
pair of memory streams, whose one end the server gets and whose other end a client. `connect` and `request`
join the server of the App that the block around them serves, and serve it for themselves where there is none,
so a test with one client needs one line and a test with three needs three, and lifespans run once.

An exception of the test's own comes out as it is, never in a group; a handler's exception that no client of
the test has seen is raised where the test's block ends, because a test that crashed its handler has not
passed. An observer of the server's sees it, whatever the program does with its log. It is seen where it was
the reason of what the test got: of Close 1011, of a refusal, of an answer of `request`. What no client has
raised, such as the crash of a connection by `open_stream`, `serve` raises at its end.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar

import attrs
import trio
import trio_websocket

from wsframework.app import App
from wsframework.authority import AllowedHosts, to_ascii
from wsframework.connection import Connection
from wsframework.headers import HeaderFields, Headers
from wsframework.observer import Observer
from wsframework.request import Address, Request, Response
from wsframework.server import Server, serve_streams
from wsframework.session import Acceptance
from wsframework.streamed import Streamed
from wsframework.testing.asking import Answer, Exchange
from wsframework.testing.background import open_background
from wsframework.testing.client import Client, ClientSettings, Link, open_client
from wsframework.testing.deadline import DEADLINE_SECONDS, fail_after
from wsframework.testing.memory import memory_pair

__all__ = ["Answer", "MemoryServer", "connect", "connection_pair", "request", "serve"]

Pair = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]

_HOST = "localhost"
_LOCAL = Address("127.0.0.1", 80)
_ports = itertools.cycle(range(49152, 65536))  # the ports that systems give to clients (RFC 6335 §6)


class MemoryServer:
    """An App that is served in memory; `serve` makes it.

    Attributes:
        app: the App.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self._host = _host_of(app)
        self._server: Server | None = None
        self._links: list[Link] = []

    @property
    def server(self) -> Server:
        """The native server behind it, for its statistics."""
        if self._server is None:
            raise RuntimeError("the server has not started yet")
        return self._server

    def stop(self) -> None:
        """Begin to stop, as cancelling a real server does: drain, Close 1001 to every client."""
        self.server.stop()

    def open_stream(self, pair: Pair = memory_pair) -> trio.abc.Stream:
        """Connect without any handshake and return the client's end, for bytes of the test's own making.

        Args:
            pair: makes the two ends, the client's first.
        """
        return self._open(pair)[0]

    def connect(
        self,
        path: str = "/",
        *,
        subprotocols: Iterable[str] = (),
        headers: HeaderFields = (),
        origin: str | None = None,
        deadline: float = DEADLINE_SECONDS,
        pair: Pair = memory_pair,
    ) -> AbstractAsyncContextManager[Client]:
        """Connect a client; see `connect`."""
        fields = _pairs(headers)
        if origin is not None:
            fields.append(("Origin", origin))
        return self._connect(path, tuple(subprotocols), fields, deadline, pair)

    @asynccontextmanager
    async def _connect(
        self,
        path: str,
        subprotocols: tuple[str, ...],
        fields: list[tuple[str, str]],
        deadline: float,
        pair: Pair,
    ) -> AsyncIterator[Client]:
        stream, link = self._open(pair)
        timeouts = self.app.timeouts
        settings = ClientSettings(
            subprotocols=subprotocols,
            headers=tuple(fields),
            deadline=deadline,
            ending_seconds=timeouts.disconnect_grace + timeouts.close,
        )
        try:
            async with open_client(stream, self._host, path, settings=settings, link=link) as client:
                yield client
        except trio_websocket.ConnectionRejected as rejected:
            if link.crash is not None:
                link.crash_seen = True
                raise rejected from link.crash
            raise

    async def request(
        self,
        method: str,
        path: str,
        headers: HeaderFields = (),
        *,
        body: str | bytes = b"",
        deadline: float = DEADLINE_SECONDS,
    ) -> Answer:
        """Ask for a plain HTTP answer; see `request`."""
        stream, link = self._open(memory_pair)
        fields = _pairs(headers)
        if "host" not in Headers(fields):
            fields.insert(0, ("Host", self._host))
        exchange = Exchange(method, path, fields, body)
        async with stream:
            with fail_after(deadline, lambda: f"waited {deadline:g} s for the answer to {method} {path}"):
                await stream.send_all(exchange.question)
                answer = await exchange.read_answer(stream, link)
        link.crash_seen = answer.crash is not None
        return answer

    def _raise_unseen(self) -> None:
        """Raise a crash that the test was not shown, if there is one."""
        for link in self._links:
            link.raise_unseen()

    def _open(self, pair: Pair) -> tuple[trio.abc.Stream, Link]:
        ours, theirs = pair()
        remote = Address("127.0.0.1", next(_ports))
        link = Link()
        self._links.append(link)
        # Not found again by its address: a trusted proxy, which a test may be, names another one.
        token = _current_link.set(link)
        try:
            self.server.serve_soon(theirs, remote, _LOCAL)
        finally:
            _current_link.reset(token)
        return ours, link

    async def _decide(self, request: Request) -> Acceptance | Response | Streamed:
        decision = await self.app.decide(request)
        if isinstance(decision, Acceptance):
            return attrs.evolve(decision, handler=functools.partial(self._watch, decision.handler))
        return decision

    async def _watch(self, handler: Callable[[Connection], Awaitable[object]], ws: Connection) -> None:
        link = _current_link.get()
        assert link is not None
        link.task = trio.lowlevel.current_task()
        try:
            await handler(ws)
        finally:
            link.finished.set()


def _host_of(app: App) -> str:
    """Return a host that the App answers to, as a browser with the right address would send it."""
    names = app.allowed_hosts
    if names is None:
        return _HOST
    hosts = AllowedHosts.parse(names)
    written = [to_ascii(name.replace("*.", "test.")) for name in names]
    # An IPv6 address stands in brackets in a Host field, and a network has a first address.
    addresses = [name.partition("/")[0] for name in written]
    for host in (_HOST, *written, *addresses, *(f"[{address}]" for address in addresses)):
        if hosts.allow(host, secure=False):
            return host
    return _HOST


class _CrashObserver(Observer):
    """Keeps what crashed, for the client whose connection it was.

    Args:
        unknown: gets the crashes of tasks that no client's connection has started.
    """

    def __init__(self, unknown: list[Link]) -> None:
        self._unknown = unknown

    def handler_crashed(self, request: Request, handler: str, error: BaseException) -> None:
        """A handler of WebSocket or HTTP raised an exception."""
        self._note(error)

    def guard_crashed(self, request: Request, guard: str, error: BaseException) -> None:
        """A guard raised an exception."""
        self._note(error)

    def _note(self, error: BaseException) -> None:
        link = _current_link.get()
        if link is None or link.crash is not None:
            # A second crash of a connection, as of the next page, is one of its own.
            link = Link()
            self._unknown.append(link)
        link.crash = error


_current_link: ContextVar[Link | None] = ContextVar("wsframework.testing.link", default=None)
"""Of the client whose connection a task serves: tasks inherit it from the one that connected."""
_serving: ContextVar[tuple[MemoryServer, ...]] = ContextVar("wsframework.testing.serving", default=())


@asynccontextmanager
async def serve(app: App) -> AsyncIterator[MemoryServer]:
    """Serve an App in memory, for a test with several clients; inside, `connect(app, …)` joins it.

        async with serve(app) as server:
            async with server.connect("/rooms/1") as first, server.connect("/rooms/1") as second:
                ...

    Lifespans are entered before the block and left after the last handler is gone, which `Timeouts.drain`
    bounds; when the block fails or is cancelled, handlers are cancelled at once.

    Raises:
        Exception: a handler's, guard's or given function's, when it crashed and no client of the test has
            seen it; a lifespan's.
    """
    memory = MemoryServer(app)
    failure: Exception | None = None
    async with app.running():
        # Lifespans see a server that stops, as they do in production, not the test's exception.
        try:
            async with open_background() as nursery:
                start = functools.partial(
                    serve_streams,
                    memory._decide,
                    limits=app.limits,
                    timeouts=app.timeouts,
                    keepalive=app.keepalive,
                    proxies=app.proxies,
                    observers=(_CrashObserver(memory._links), *app.observers),
                )
                memory._server = await nursery.start(start)
                _serving.set((*_serving.get(), memory))
                try:
                    yield memory
                except BaseException:
                    memory.stop()
                    raise
                finally:
                    _serving.set(tuple(other for other in _serving.get() if other is not memory))
                    memory.stop()
        except Exception as error:
            failure = error
    if failure is not None:
        raise failure
    memory._raise_unseen()


@asynccontextmanager
async def connect(
    app: App,
    path: str = "/",
    *,
    subprotocols: Iterable[str] = (),
    headers: HeaderFields = (),
    origin: str | None = None,
    deadline: float = DEADLINE_SECONDS,
    pair: Pair = memory_pair,
) -> AsyncIterator[Client]:
    """Connect a client to an App, in memory.

        async with connect(app, "/rooms/1") as client:
            await client.send("hello")
            assert await client.receive() == "1: hello"

    At the end of the block the client closes the connection and waits for its handler, at most for the grace
    that a handler has; then the App's lifespans are left, unless an enclosing `serve` or `connect` of the
    same App goes on.

    Args:
        app: the App; its lifespans are entered first.
        path: path and query.
        subprotocols: what the client offers, the best first.
        headers: more header fields for the opening handshake.
        origin: the Origin field of a browser's page; `http://localhost` is the server's own, or, where the
            App does not answer to `localhost`, the first host of its `allowed_hosts`.
        deadline: seconds that any one wait of the client may take. Virtual ones with Trio's autojump clock.
        pair: makes the two ends of the connection, the client's first; put faults around either.

    Raises:
        trio_websocket.ConnectionRejected: the server refused, with `status_code`, `headers` and `body`.
        DeadlineExceeded: there was no answer to the opening handshake.
        Exception: the handler's, when it crashed and the test did not see the connection end by it.

    Cancellation: the connection is dropped without a Close frame.
    """
    async with (
        _joined(app) as server,
        server.connect(
            path, subprotocols=subprotocols, headers=headers, origin=origin, deadline=deadline, pair=pair
        ) as client,
    ):
        yield client


async def request(
    app: App,
    method: str,
    path: str,
    headers: HeaderFields = (),
    *,
    body: str | bytes = b"",
    deadline: float = DEADLINE_SECONDS,
) -> Answer:
    """Ask an App for a plain HTTP answer, in memory.

        answer = await request(app, "GET", "/health")
        assert (answer.status, answer.text) == (200, "fine")

    Args:
        app: the App; its lifespans are entered around the request, unless it is served already.
        method: the HTTP method.
        path: path and query.
        headers: header fields; Host is `localhost` if there is none, or, where the App does not answer to
            that, the first host of its `allowed_hosts`.
        body: what is sent; `str` as UTF-8. Give `Content-Type` in `headers` where the handler reads it.
        deadline: seconds that the answer may take.

    Raises:
        DeadlineExceeded: there was no whole answer.
        h11.RemoteProtocolError: the answer is not valid HTTP/1.1.

    Cancellation: the connection is closed.
    """
    async with _joined(app) as server:
        return await server.request(method, path, headers, body=body, deadline=deadline)


@asynccontextmanager
async def connection_pair(
    app: App | None = None, *, subprotocols: Iterable[str] = (), deadline: float = DEADLINE_SECONDS
) -> AsyncIterator[tuple[Connection, Client]]:
    """Open a connection and hand over both ends: the one a handler holds, and the client's.

        async with connection_pair() as (ws, client):
            await greet(ws)
            assert await client.receive() == "Welcome!"

    Args:
        app: whose limits and timeouts count; None for the defaults.
        subprotocols: one that the client offers is agreed on.
        deadline: as for `connect`.
    """
    settings = app or App()
    own = App(limits=settings.limits, timeouts=settings.timeouts, keepalive=settings.keepalive)
    opened: list[Connection] = []
    over = trio.Event()
    is_open = trio.Event()
    offered = tuple(subprotocols)

    @own.websocket("/", subprotocols=offered)
    async def lend(ws: Connection) -> None:
        opened.append(ws)
        is_open.set()
        await over.wait()

    async with connect(own, "/", subprotocols=offered, deadline=deadline) as client:
        await is_open.wait()
        try:
            yield opened[0], client
        finally:
            over.set()


@asynccontextmanager
async def _joined(app: App) -> AsyncIterator[MemoryServer]:
    for server in _serving.get():
        if server.app is app and not server.server.draining:
            yield server
            return
    async with serve(app) as own:
        yield own


def _pairs(headers: HeaderFields) -> list[tuple[str, str]]:
    return list(headers.items() if isinstance(headers, Mapping) else headers)
