"""The native server: accepts, reads the opening handshake, upgrades or answers, and stops gracefully.

Theory of operation
-------------------
    watch        one task; feels the caller's cancellation and then sets `_stopping`
    hub          two tasks for all sockets that the hub can carry: plain TCP, TLS, unix
    streams      one accepting task a listener where there is no hub, and a few tasks a connection
    connections  one task a WebSocket, in a nursery that is shielded from the caller's cancellation
    timers, keepalive sweep: one task each

Cancelling `run` therefore reaches nothing but the accepting. What it means for the connections is the drain:
handlers see `ws.draining`, every client gets Close 1001, at moments spread out so that the clients do not all
come back at once, and what is left when `Timeouts.drain` is over is aborted and cancelled.

A connection goes through: TLS, head, decision, then either an answer or a transport and a `Session`.
"""

from __future__ import annotations

import logging
import random
import socket as stdlib_socket
import ssl as ssl_module
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import attrs
import trio

from wsframework.config import Keepalive, Limits, Timeouts
from wsframework.connection import Connection
from wsframework.errors import CloseFrame, HandshakeError
from wsframework.records import describe, record
from wsframework.request import Address, Response
from wsframework.server.admission import Admission
from wsframework.server.framing import FrameTransport
from wsframework.server.http import Head, HeadReader, encode_response, read_head
from wsframework.server.hub import Hub, Poller, hub_is_possible
from wsframework.server.incoming import OUT_OF_RESOURCES, RESOURCE_PAUSE_SECONDS, Incoming, ListenerPollee
from wsframework.server.listeners import address_of, unix_socket_file
from wsframework.server.logged import stream_transport
from wsframework.server.opening import Opening, consider, crowded_response, draining_response
from wsframework.server.stream import BROKEN, StreamTransport
from wsframework.session import Decide, Session
from wsframework.timers import Timers

__all__ = ["Server", "ServerStatistics", "TransportChoice"]

TransportChoice = Literal["auto", "hub", "stream"]
"""How connections' bytes move: through the hub where the platform has one, or over Trio streams."""

_SHUTTING_DOWN = CloseFrame(1001, "the server is shutting down")

_DRAIN_SPREAD_SECONDS = 1.0
"""Over how long the Close frames of a thousand or more clients are spread; fewer take proportionally less."""

_FRAME_DEPARTURE_SECONDS = 0.1
"""How long the last Close frames may take into the sockets' buffers."""


@attrs.frozen
class ServerStatistics:
    """A server's counters at one moment.

    Attributes:
        connections: open now, in their handshake, or with a handler in its grace.
        websockets: open now and upgraded.
        accepted: TCP (or unix) connections accepted since the start.
        refused: of those, closed because there were too many.
    """

    connections: int
    websockets: int
    accepted: int
    refused: int


class Server:
    """A server that listens; what `await nursery.start(app.serve)` returns.

    Attributes:
        addresses: where it listens.
        secure: whether it speaks TLS.
    """

    def __init__(
        self,
        decide: Decide,
        *,
        limits: Limits,
        timeouts: Timeouts,
        keepalive: Keepalive,
        secure: bool = False,
        transport: TransportChoice = "auto",
        poller: Callable[[], Poller] | None = None,
    ) -> None:
        self.addresses: tuple[Address, ...] = ()
        self.secure = secure
        self.limits = limits
        self.timeouts = timeouts
        self.timers = Timers()
        self._hub: Hub | None = None
        self._make_hub: Callable[[], Hub] | None = None
        if transport == "hub" or (transport == "auto" and hub_is_possible()):
            self._make_hub = lambda: Hub(poller() if poller is not None else None)
        self._decide = decide
        self._keepalive = keepalive
        self._connections: trio.Nursery | None = None
        self._transports: set[FrameTransport] = set()
        self._sessions: set[Session] = set()
        self._incoming: set[Incoming] = set()
        self._handshakes: set[trio.CancelScope] = set()
        self.admission = Admission(limits)
        self._draining = False
        self._stopping = trio.Event()
        self._drain_limit = trio.CancelScope()

    @property
    def port(self) -> int:
        """The TCP port; the one that the system chose when it was asked for port 0.

        Raises:
            RuntimeError: the server listens on a unix socket.
        """
        for address in self.addresses:
            if address.port is not None:
                return address.port
        raise RuntimeError("this server listens on a unix socket, which has no port")

    @property
    def urls(self) -> tuple[str, ...]:
        """A ws:// or wss:// URL for each address that has one."""
        scheme = "wss" if self.secure else "ws"
        return tuple(f"{scheme}://{address}" for address in self.addresses if address.port is not None)

    @property
    def draining(self) -> bool:
        """True once the server has begun to stop."""
        return self._draining

    def statistics(self) -> ServerStatistics:
        """Return the server's counters."""
        counted = self.admission
        return ServerStatistics(counted.open, len(self._transports), counted.accepted, counted.refused)

    def stop(self) -> None:
        """Begin to stop, as cancelling the server's task does; a second call cuts the drain short."""
        if self._stopping.is_set():
            self._drain_limit.cancel(reason="the server was told twice to stop")
        self._stopping.set()

    async def run(
        self,
        listeners: Sequence[stdlib_socket.socket],
        ssl: ssl_module.SSLContext | None,
        task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept connections until cancelled or stopped, then drain; closes the listeners."""
        self.addresses = tuple(address_of(listener.getsockname()) for listener in listeners)
        socket_files = [unix_socket_file(address.host) for address in self.addresses if address.port is None]
        async with trio.open_nursery() as watching:
            with trio.CancelScope(shield=True):
                try:
                    async with trio.open_nursery() as connections:
                        self._connections = connections
                        connections.start_soon(self.timers.run)
                        if self._keepalive.interval is not None:
                            connections.start_soon(self._keep_alive)
                        close_listeners = self._listen(listeners, ssl, watching, connections)
                        watching.start_soon(self._watch)
                        record(logging.INFO, "server.listening", on=", ".join(map(str, self.addresses)))
                        task_status.started(self)
                        try:
                            await self._stopping.wait()
                        finally:
                            watching.cancel_scope.cancel(reason="the server is stopping")
                            # Now and not after the drain: by then they may be another server's.
                            for remove_file in socket_files:
                                remove_file()
                            close_listeners()
                        await self._drain()
                        connections.cancel_scope.cancel(reason="the server has stopped")
                finally:
                    if self._hub is not None:
                        # HTTP answers whose clients linger, requests that were never answered.
                        self._hub.close()
            record(logging.INFO, "server.stopped", accepted=self.admission.accepted)

    async def _watch(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._stopping.set()

    def _listen(
        self,
        listeners: Sequence[stdlib_socket.socket],
        ssl: ssl_module.SSLContext | None,
        watching: trio.Nursery,
        connections: trio.Nursery,
    ) -> Callable[[], None]:
        """Start to accept; return what stops it and closes the listeners."""
        if self._make_hub is not None and listeners:
            hub = self._hub = self._make_hub()
            connections.start_soon(hub.run)
            pollees = [ListenerPollee(listener, hub, self, ssl, self._incoming) for listener in listeners]
            return lambda: _close_all(pollees)
        trio_listeners = [trio.socket.from_stdlib_socket(listener) for listener in listeners]
        for listener in trio_listeners:
            watching.start_soon(self._accept, listener, ssl, connections)
        return lambda: _close_all(trio_listeners)

    # Connections in the hub

    def head_complete(self, incoming: Incoming, head: Head) -> None:
        """Decide about a request that came through the hub, in a task of its own."""
        assert self._connections is not None
        self._connections.start_soon(self._serve_incoming, incoming, head)

    async def _serve_incoming(self, incoming: Incoming, head: Head) -> None:
        remote = incoming.remote
        session = await self._open_incoming(incoming, head)
        # An idle connection keeps what its task refers to.
        del incoming, head
        if session is None:
            return
        self._sessions.add(session)
        try:
            # Not through a helper: every coroutine on the way to the handler costs each connection 200 bytes.
            await session.run()
        finally:
            self._sessions.discard(session)
            self.admission.depart(remote)

    async def _open_incoming(self, incoming: Incoming, head: Head) -> Session | None:
        """Decide about a request; answer it, or upgrade and return the session that is to run."""
        upgraded = False
        try:
            opening = await consider(
                head, self._decide, secure=incoming.secure, remote=incoming.remote, local=incoming.local
            )
            if incoming.gone:
                record(logging.DEBUG, "handshake.lost", remote=incoming.remote, error="the client has left")
                return None
            if self._draining:
                opening = draining_response()
            if isinstance(opening, Response):
                record(logging.DEBUG, "http.answered", remote=incoming.remote, status=opening.status)
                incoming.answer(opening)
                return None
            transport = incoming.upgrade(opening.codecs, lambda: self._transports.discard(transport))
            upgraded = True
            session = self._open_session(transport, opening)
            transport.begin(incoming.trailing)
        except Exception as error:
            # A mistake of ours; it must not take the other connections along.
            record(
                logging.ERROR,
                "connection.failed",
                exc_info=error,
                remote=incoming.remote,
                error=describe(error),
            )
            incoming.abort()
            if upgraded:
                self.admission.depart(incoming.remote)
            return None
        finally:
            if not upgraded and incoming.gone:
                incoming.abort()
        return session

    def _open_session(self, transport: FrameTransport, opening: Opening) -> Session:
        ws = Connection(
            transport, opening.request, subprotocol=opening.acceptance.subprotocol, limits=self.limits
        )
        transport.connection = ws
        transport.write_raw(opening.answer)
        self._transports.add(transport)
        return Session(ws, opening.acceptance, timers=self.timers, timeouts=self.timeouts)

    # Connections over Trio streams

    async def _accept(
        self, listener: trio.socket.SocketType, ssl: ssl_module.SSLContext | None, connections: trio.Nursery
    ) -> None:
        while True:
            try:
                socket, peer = await listener.accept()
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    record(logging.ERROR, "server.out_of_resources", error=error.strerror)
                    await trio.sleep(RESOURCE_PAUSE_SECONDS)
                # Everything else (ECONNABORTED and its like) is about a connection that is gone already.
                continue
            stream: trio.abc.Stream = trio.SocketStream(socket)
            remote, local = address_of(peer), address_of(socket.getsockname())
            if ssl is not None:
                stream = trio.SSLStream(stream, ssl, server_side=True)
            connections.start_soon(self.serve_stream, stream, remote, local)

    def serve_soon(self, stream: trio.abc.Stream, remote: Address, local: Address) -> None:
        """Serve one more connection, beside those that are accepted, in a task of the server's; do not wait.

        Args:
            stream: both directions of bytes, whatever carries them; the server closes it.
            remote: what handlers shall see as the peer's address.
            local: what they shall see as ours.

        Raises:
            RuntimeError: the server does not run yet, or has begun to stop.
        """
        if self._connections is None or self._stopping.is_set():
            raise RuntimeError("this server does not run, so it can serve no stream")
        self._connections.start_soon(self.serve_stream, stream, remote, local)

    async def serve_stream(self, stream: trio.abc.Stream, remote: Address, local: Address) -> None:
        """Serve one connection over any Trio stream, from its first byte to its last; always closes it.

        No exception comes out but those that are no `Exception`.
        """
        admitted = self.admission.admit(remote)
        try:
            if admitted:
                await self._serve_stream(stream, remote, local)
            else:
                record(logging.WARNING, "connection.refused", remote=remote)
                if not isinstance(stream, trio.SSLStream) and self.admission.begin_refusal():
                    try:
                        await self._answer(stream, crowded_response())
                    finally:
                        self.admission.end_refusal()
        except Exception as error:
            # A mistake of ours; it must not take the other connections along.
            record(logging.ERROR, "connection.failed", exc_info=error, remote=remote, error=describe(error))
        except BaseExceptionGroup as group:
            # The same, made while the server was being cancelled.
            mistakes, rest = group.split(Exception)
            if mistakes is not None:
                record(
                    logging.ERROR,
                    "connection.failed",
                    exc_info=mistakes,
                    remote=remote,
                    error=describe(mistakes),
                )
            if rest is not None:
                raise rest from None
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
            if admitted:
                self.admission.depart(remote)

    async def _serve_stream(self, stream: trio.abc.Stream, remote: Address, local: Address) -> None:
        secure = self.secure or isinstance(stream, trio.SSLStream)
        try:
            head = await self._read_head(stream)
        except BROKEN as error:
            record(logging.DEBUG, "handshake.lost", remote=remote, error=str(error.__cause__ or error))
            return
        if head is None:
            return  # a probe: it connected and left, and that is nobody's business
        tls = stream.version() if isinstance(stream, trio.SSLStream) else None
        record(logging.DEBUG, "connection.accepted", remote=remote, local=local, tls=tls)
        if isinstance(head, Response):
            await self._answer(stream, head)
            return
        opening = await consider(head, self._decide, secure=secure, remote=remote, local=local)
        if self._draining:
            opening = draining_response()
        if isinstance(opening, Response):
            record(logging.DEBUG, "http.answered", remote=remote, status=opening.status)
            await self._answer(stream, opening, head_only=head.method == "HEAD")
            return
        transport = self._stream_transport(stream, opening)
        session = self._open_session(transport, opening)
        self._sessions.add(session)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.run, head.trailing)
                await session.run()
        finally:
            self._sessions.discard(session)
            self._transports.discard(transport)

    async def _read_head(self, stream: trio.abc.Stream) -> Head | Response | None:
        """Read a request's head; a Response when it is none, None when the peer left or said nothing."""
        reader = HeadReader(self.limits.head_bytes)
        scope = trio.CancelScope(deadline=trio.current_time() + self.timeouts.handshake)
        self._handshakes.add(scope)
        try:
            with scope:
                if isinstance(stream, trio.SSLStream):
                    await stream.do_handshake()
                return await read_head(stream, reader)
        except HandshakeError as error:
            return Response.error(error.status, str(error), error.headers)
        finally:
            self._handshakes.discard(scope)
        if not reader.started:
            return None
        if self._draining:
            return draining_response()
        limit = self.timeouts.handshake
        return Response.error(408, f"the request's head was not complete within {limit:g} s")

    def _stream_transport(self, stream: trio.abc.Stream, opening: Opening | None = None) -> StreamTransport:
        return stream_transport()(
            stream,
            limits=self.limits,
            timeouts=self.timeouts,
            timers=self.timers,
            codecs=None if opening is None else opening.codecs,
        )

    async def _answer(self, stream: trio.abc.Stream, response: Response, *, head_only: bool = False) -> None:
        transport = self._stream_transport(stream)
        transport.answer(encode_response(response, head_only=head_only))
        await transport.run(b"")

    # All connections

    async def _keep_alive(self) -> None:
        """Look after all quiet connections at once: one task, not one a connection."""
        keepalive = self._keepalive
        assert keepalive.interval is not None
        # A ping may come a quarter late; a second keeps 5,000 connections below a tenth of a percent.
        period = min(keepalive.interval / 4, keepalive.timeout / 4, 1.0)
        while True:
            await trio.sleep(period)
            now = trio.current_time()
            for transport in list(self._transports):
                transport.check_alive(now, keepalive)

    async def _drain(self) -> None:
        self._draining = True
        record(logging.INFO, "server.draining", connections=self.admission.open)
        for scope in list(self._handshakes):
            scope.cancel(reason="the server is shutting down")
        for incoming in list(self._incoming):
            incoming.drain()
        spread = min(_DRAIN_SPREAD_SECONDS, self.timeouts.drain / 2)
        spread *= min(1.0, len(self._transports) / 1000)
        for transport in list(self._transports):
            ws = transport.connection
            if isinstance(ws, Connection):
                ws._drain()
                self.timers.after(random.uniform(0, spread), _closer(ws))
        if self.admission.open:
            self._drain_limit.deadline = trio.current_time() + self.timeouts.drain
            with self._drain_limit:
                await self.admission.wait_empty()
        if self.admission.open:
            record(
                logging.WARNING,
                "server.drain_timeout",
                connections=self.admission.open,
                handlers=len(self._sessions),
            )
            await self._say_goodbye()
        for session in list(self._sessions):
            session.cancel()
        for transport in list(self._transports):
            transport.abort()

    async def _say_goodbye(self) -> None:
        """Close at once whatever was still to be closed: the drain was cut short, or given no time."""
        for transport in list(self._transports):
            if isinstance(ws := transport.connection, Connection):
                ws._start_close(_SHUTTING_DOWN, "the server is shutting down")
        if any(transport.outbox_bytes for transport in self._transports):
            await trio.sleep(_FRAME_DEPARTURE_SECONDS)


class _Closeable(Protocol):
    def close(self) -> None: ...


def _close_all(listeners: Sequence[_Closeable]) -> None:
    for listener in listeners:
        listener.close()


def _closer(ws: Connection) -> Callable[[], None]:
    return lambda: ws._start_close(_SHUTTING_DOWN, "the server is shutting down")
