"""Serve connections that another server has accepted: what every host has in common.

Theory of operation
-------------------
A *host* is a server that is not ours and accepts connections for an App. It calls `serve_guest` once for each
connection, with a function that takes the connection over. No user code runs in the host's own tasks, because
what it raises there might end the host. The native `Server` that does the work runs in a system task of Trio,
one for each App in each `trio.run`, because it must outlive every single connection. It starts with the App's
first connection and ends with the run.

A *guest* is one such connection. When the host is cancelled, the call of `serve_guest` is cancelled too, and
the guest is drained: Close 1001, and the handler is cancelled after `Timeouts.drain`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Any, Protocol

import attrs
import trio

from wsframework.closes import SHUTTING_DOWN
from wsframework.config import Keepalive, Limits, Timeouts
from wsframework.connection import Connection
from wsframework.crashes import interrupt_in, unwrap_group
from wsframework.forwarded import Proxies
from wsframework.observer import Observer
from wsframework.records import record, record_failure
from wsframework.request import Address, Request, Response
from wsframework.server.native import NativeServer
from wsframework.server.opening import draining_response
from wsframework.server.streams import StreamIncoming
from wsframework.session import Acceptance, Decide
from wsframework.streamed import Streamed
from wsframework.tasks import GivenUp, giving_up
from wsframework.timers import Timers

__all__ = ["Application", "HandedOver", "TakeOver", "make_server", "serve_guest"]


class Application(Protocol):
    """An App, as far as its host knows it."""

    limits: Limits
    timeouts: Timeouts
    keepalive: Keepalive
    proxies: Proxies

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Observers to tell of what happens."""

    async def decide(self, request: Request) -> Acceptance | Response | Streamed:
        """Choose what a request gets."""

    def running(self) -> AbstractAsyncContextManager[Any]:
        """Enter the lifespans."""


@attrs.frozen
class HandedOver:
    """A connection that another server has handed over.

    Attributes:
        stream: both directions of its bytes.
        received: what was read from it already: the request's head, and the bytes behind it.
        remote: the client's address.
        local: the server's.
    """

    stream: trio.abc.Stream
    received: bytes
    remote: Address
    local: Address


_CANCELLED_SECONDS = 1.0
"""How long a guard or an HTTP handler that was cancelled may take until its connection is closed."""

TakeOver = Callable[[], Awaitable[HandedOver]]


async def serve_guest(app: Application, take_over: TakeOver) -> None:
    """Serve one connection that another server has accepted, until it ends.

    Whatever user code raises is contained, as on the native server.

    Args:
        app: the App.
        take_over: takes the connection from the server that accepted it; called once, in another task. It
            raises OSError if the client has left.

    Raises:
        KeyboardInterrupt: a handler of the App raised it; all of the App's connections were drained.

    Cancellation:
        Starts the drain: Close 1001, and the handler is cancelled after `Timeouts.drain` at the latest.
    """
    home = _home_of(app)
    with trio.CancelScope(shield=True):
        await home.ready.wait()
    guest = _Guest(take_over, home)
    home.take(guest)
    try:
        await guest.over.wait()
    except trio.Cancelled:
        guest.drain()
        with trio.CancelScope(shield=True):
            await guest.over.wait()
        raise
    finally:
        await home.raise_failure()


def make_server(app: Application, decide: Decide, *, secure: bool = False) -> NativeServer:
    """Make a native server for connections that another server accepts."""
    server = NativeServer(
        decide,
        limits=app.limits,
        timeouts=app.timeouts,
        keepalive=app.keepalive,
        secure=secure,
        proxies=app.proxies,
        observers=app.observers,
    )
    # Its peers are real, though it does not listen itself.
    server.core.timers.beating = True
    return server


class _Guest:
    """One connection, from its request's head to its end."""

    def __init__(self, take_over: TakeOver, home: _Home) -> None:
        self.over = trio.Event()
        self._take_over: TakeOver | None = take_over
        self._home = home
        self._draining = False
        self._give_up: Callable[[], None] | None = None
        self._incoming: StreamIncoming | None = None
        self._ws: Connection | None = None
        self._handler_ended = trio.Event()

    async def serve(self, server: NativeServer) -> None:
        """Serve it, and wait for its handler too. Nothing is raised but cancellation."""
        _current_guest.set(self)
        try:
            await self._serve(server)
        except Exception as error:
            record_failure(error)
        finally:
            self.over.set()

    async def _serve(self, server: NativeServer) -> None:
        # Dropped here, so that an idle connection does not keep what its listener made for it.
        take_over, self._take_over = self._take_over, None
        assert take_over is not None
        try:
            taken = await take_over()
        except OSError as error:
            record(logging.DEBUG, "handshake.lost", error=str(error))
            return
        del take_over
        self._incoming = server.requests.over_stream(taken.stream, taken.remote, taken.local, taken.received)
        await self._incoming.serve()
        if self._ws is not None:
            await self._handler_ended.wait()

    async def decide(self, request: Request) -> Acceptance | Response | Streamed:
        """Have the App decide, and keep hold of the handler."""
        self._give_up = giving_up()
        try:
            decision = await self._home.app.decide(request)
        except GivenUp:
            return draining_response()
        if not isinstance(decision, Acceptance):
            return decision
        return attrs.evolve(decision, handler=functools.partial(self._handle, decision))

    async def _handle(self, acceptance: Acceptance, ws: Connection) -> object:
        self._ws = ws
        try:
            if self._draining:
                self.drain()
            return await acceptance.handler(ws)
        finally:
            self._handler_ended.set()

    def drain(self) -> None:
        """Tell the client and the handler that the server is stopping."""
        self._draining = True
        timers, patience = self._home.timers, self._home.app.timeouts.drain
        if self._ws is None:
            timers.after(patience, self._end_decision)
            return
        self._ws.endpoint.drain()
        self._ws.endpoint.start_close(SHUTTING_DOWN, SHUTTING_DOWN.reason)
        timers.after(patience, self._ws.endpoint.cancel_handler)

    def _end_decision(self) -> None:
        if self._give_up is not None:
            self._give_up()
        if self._incoming is not None:
            # What resists its cancellation, or has left its task, does not keep the connection.
            self._home.timers.after(_CANCELLED_SECONDS, self._incoming.abandon)


_current_guest: ContextVar[_Guest] = ContextVar("wsframework_guest")


async def _decide(request: Request) -> Acceptance | Response | Streamed:
    return await _current_guest.get().decide(request)


class _Home:
    """The native server of one App's guests."""

    def __init__(self, app: Application) -> None:
        self.app = app
        self.ready = trio.Event()
        self.ended = trio.Event()
        self._server = make_server(app, _decide)
        self._nursery: trio.Nursery | None = None
        self._failure: BaseException | None = None

    @property
    def timers(self) -> Timers:
        """The server's deadlines."""
        return self._server.core.timers

    async def run(self) -> None:
        """Serve guests until the end of the run; a failure is kept for `raise_failure`."""
        server = self._server
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(server.run, (), None)
                self._nursery = nursery
                self.ready.set()
        except trio.Cancelled:
            raise
        except BaseException as error:
            # A system task may raise nothing.
            self._failure = interrupt_in(error) or unwrap_group(error)
        finally:
            self._nursery = None
            self.ended.set()
            self.ready.set()

    def take(self, guest: _Guest) -> None:
        """Take a connection into care."""
        if self._nursery is None:
            guest.over.set()
        else:
            self._nursery.start_soon(guest.serve, self._server)

    async def raise_failure(self) -> None:
        """Raise what ended the server, in the task of one of its guests."""
        if not self._server.core.lifetime.stopping.is_set():
            return
        with trio.CancelScope(shield=True):
            await self.ended.wait()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


_homes: trio.lowlevel.RunVar[dict[Application, _Home]] = trio.lowlevel.RunVar("wsframework_homes")


def _home_of(app: Application) -> _Home:
    try:
        homes = _homes.get()
    except LookupError:
        homes = {}
        _homes.set(homes)
    home = homes.get(app)
    if home is None or home.ended.is_set():
        home = homes[app] = _Home(app)
        trio.lowlevel.spawn_system_task(home.run)
    return home
