"""Serve the requests that a plain `trio_websocket.serve_websocket(app, …)` hands to the App, one by one.

Theory of operation
-------------------
Nothing here runs in trio-websocket's own tasks but one wait for each connection, because whatever one of
those tasks raises ends its server. The native `Server` that does the work runs in a system task of Trio's,
one for each App in each `trio.run`: it must outlive any single connection, and it need not know who listens.
It starts with the App's first request and ends with the run.

A *guest* is one connection in its care. When trio-websocket's server is cancelled, the wait is, and the guest
is drained: Close 1001, and the handler is cancelled after `Timeouts.drain`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Any, Protocol

import attrs
import trio
import trio_websocket

from wsframework.closes import CloseFrame
from wsframework.config import Keepalive, Limits, Timeouts
from wsframework.connection import Connection
from wsframework.crashes import interrupt_in
from wsframework.errors import unwrap_group
from wsframework.hosts.trio_websocket.handover import socket_of, take_over
from wsframework.observer import Observer
from wsframework.records import describe, record
from wsframework.request import Request, Response
from wsframework.server import Server
from wsframework.server.listeners import address_of
from wsframework.server.opening import draining_response
from wsframework.server.streams import StreamIncoming
from wsframework.session import Acceptance, Decide
from wsframework.tasks import GivenUp, giving_up
from wsframework.timers import Timers

__all__ = ["Application", "make_server", "serve_request"]

_SHUTTING_DOWN = CloseFrame(1001, "the server is shutting down")


class Application(Protocol):
    """An App, as far as its host knows it."""

    limits: Limits
    timeouts: Timeouts
    keepalive: Keepalive

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Observers to tell of what happens."""

    async def decide(self, request: Request) -> Acceptance | Response:
        """Choose what a request gets."""

    def running(self) -> AbstractAsyncContextManager[Any]:
        """Enter the lifespans."""


async def serve_request(proposal: trio_websocket.WebSocketRequest, app: Application) -> None:
    """Serve one connection of a trio-websocket server, from behind its request's head to the end.

    Whatever user code raises or does is contained, as on the native server.

    Raises:
        KeyboardInterrupt: one was raised in some handler of the App's; all its connections were drained.

    Cancellation:
        Starts the drain: Close 1001, and the handler is cancelled after `Timeouts.drain` at the latest.
    """
    home = _home_of(app)
    with trio.CancelScope(shield=True):
        await home.ready.wait()
    guest = _Guest(proposal, home)
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


def make_server(app: Application, decide: Decide, *, secure: bool = False) -> Server:
    """Make a native server for connections that another server accepts."""
    server = Server(
        decide,
        limits=app.limits,
        timeouts=app.timeouts,
        keepalive=app.keepalive,
        secure=secure,
        observers=app.observers,
    )
    # Its peers are real, though it does not listen itself.
    server.timers.beating = True
    return server


class _Guest:
    """One connection, from its request's head to its end."""

    def __init__(self, proposal: trio_websocket.WebSocketRequest, home: _Home) -> None:
        self.over = trio.Event()
        self._proposal: trio_websocket.WebSocketRequest | None = proposal
        self._home = home
        self._draining = False
        self._give_up: Callable[[], None] | None = None
        self._ws: Connection | None = None
        self._handler_ended = trio.Event()

    async def serve(self, server: Server) -> None:
        """Serve it, and wait for its handler too. Nothing is raised but cancellation."""
        _current_guest.set(self)
        try:
            await self._serve(server)
        except Exception as error:
            record(logging.ERROR, "connection.failed", exc_info=error, error=describe(error))
        finally:
            self.over.set()

    async def _serve(self, server: Server) -> None:
        # An idle connection does not keep what trio-websocket made for it.
        proposal, self._proposal = self._proposal, None
        assert proposal is not None
        try:
            socket = socket_of(proposal._connection._stream)
            remote, local = address_of(socket.getpeername()), address_of(socket.getsockname())
            taken = await take_over(proposal)
        except OSError as error:
            record(logging.DEBUG, "handshake.lost", error=str(error))
            return
        del proposal, socket
        await StreamIncoming(taken.stream, remote, local, server, taken.received).serve()
        if self._ws is not None:
            await self._handler_ended.wait()

    async def decide(self, request: Request) -> Acceptance | Response:
        """Have the App decide, and keep hold of the handler."""
        self._give_up = giving_up()
        try:
            decision = await self._home.app.decide(request)
        except GivenUp:
            return draining_response()
        if isinstance(decision, Response):
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
        self._ws.endpoint.start_close(_SHUTTING_DOWN, "the server is shutting down")
        timers.after(patience, self._ws.endpoint.cancel_handler)

    def _end_decision(self) -> None:
        if self._give_up is not None:
            self._give_up()


_current_guest: ContextVar[_Guest] = ContextVar("wsframework_guest")


async def _decide(request: Request) -> Acceptance | Response:
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
        return self._server.timers

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
        if not self._server.draining:
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
