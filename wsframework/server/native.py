"""The native server: accepts, reads the opening handshake, upgrades or answers, and stops gracefully.

Theory of operation
-------------------
    accepting    one task a listener; feels the caller's cancellation and then sets `_stopping`
    connections  one task a connection, in a nursery that is shielded from the caller's cancellation
    timers, keepalive sweep: one task each

Cancelling `run` therefore reaches nothing but the accepting tasks. What it means for the connections is the
drain: handlers see `ws.draining`, every client gets Close 1001, at moments spread out so that the clients do
not all come back at once, and what is left when `Timeouts.drain` is over is aborted and cancelled.

A connection's task goes through: TLS, head, decision, then either an answer or a transport and a `Session`.
"""

from __future__ import annotations

import errno
import logging
import random
import signal
import ssl as ssl_module
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from wsframework.config import Keepalive, Limits, Timeouts
from wsframework.connection import Connection
from wsframework.errors import CloseFrame, HandshakeError, unwrap_group
from wsframework.records import record
from wsframework.request import Address, Headers, Request, Response
from wsframework.server.framing import FrameTransport
from wsframework.server.http import Head, HeadReader, encode_response, read_head
from wsframework.server.listeners import (
    address_of,
    open_tcp_listeners,
    open_unix_listener,
    remove_unix_socket,
)
from wsframework.server.stream import BROKEN, StreamTransport, end_stream
from wsframework.session import Acceptance, Decide, Session
from wsframework.timers import Timers
from wsframework.wire import Upgrade, encode_101, is_upgrade, negotiate_deflate, read_upgrade, server_codecs

__all__ = ["Server", "ServerStatistics", "run_server", "serve", "serve_streams"]

_SHUTTING_DOWN = CloseFrame(1001, "the server is shutting down")

_DRAIN_SPREAD_SECONDS = 1.0
"""Over how long the Close frames of a thousand or more clients are spread; fewer take proportionally less."""

_REFUSALS_AT_ONCE = 64
"""Connections over the limit that get a 503 at the same time; more are closed without a word."""

_REFUSAL_SECONDS = 1.0

_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@attrs.frozen
class ServerStatistics:
    """A server's counters at one moment.

    Attributes:
        connections: open now, those still in their handshake included.
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
    ) -> None:
        self.addresses: tuple[Address, ...] = ()
        self.secure = secure
        self._decide = decide
        self._limits = limits
        self._timeouts = timeouts
        self._keepalive = keepalive
        self._timers = Timers()
        self._connections: trio.Nursery | None = None
        self._transports: set[FrameTransport] = set()
        self._handshakes: set[trio.CancelScope] = set()
        self._open = 0
        self._open_by_address: Counter[str] = Counter()
        self._accepted = 0
        self._refused = 0
        self._refusing = 0
        self._draining = False
        self._stopping = trio.Event()
        self._empty = trio.Event()
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
        return ServerStatistics(self._open, len(self._transports), self._accepted, self._refused)

    def stop(self) -> None:
        """Begin to stop, as cancelling the server's task does; a second call cuts the drain short."""
        if self._stopping.is_set():
            self._drain_limit.cancel(reason="the server was told twice to stop")
        self._stopping.set()

    async def run(
        self,
        listeners: Sequence[trio.socket.SocketType],
        ssl: ssl_module.SSLContext | None,
        task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept connections until cancelled or stopped, then drain."""
        self.addresses = tuple(address_of(listener.getsockname()) for listener in listeners)
        async with trio.open_nursery() as accepting:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as connections:
                    self._connections = connections
                    connections.start_soon(self._timers.run)
                    if self._keepalive.interval is not None:
                        connections.start_soon(self._keep_alive)
                    accepting.start_soon(self._accept_all, listeners, ssl, connections)
                    record(
                        logging.INFO,
                        "server.listening",
                        on=", ".join(str(address) for address in self.addresses),
                    )
                    task_status.started(self)
                    await self._stopping.wait()
                    accepting.cancel_scope.cancel(reason="the server is stopping")
                    await self._drain()
                    connections.cancel_scope.cancel(reason="the server has stopped")
            record(logging.INFO, "server.stopped", accepted=self._accepted)

    async def _accept_all(
        self,
        listeners: Sequence[trio.socket.SocketType],
        ssl: ssl_module.SSLContext | None,
        connections: trio.Nursery,
    ) -> None:
        try:
            async with trio.open_nursery() as nursery:
                if not listeners:
                    nursery.start_soon(trio.sleep_forever)
                for listener in listeners:
                    nursery.start_soon(self._accept, listener, ssl, connections)
        finally:
            for listener in listeners:
                listener.close()
            self._stopping.set()

    async def _accept(
        self, listener: trio.socket.SocketType, ssl: ssl_module.SSLContext | None, connections: trio.Nursery
    ) -> None:
        while True:
            try:
                socket, peer = await listener.accept()
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    # There are no file descriptors left; some will come back. Trio's own loop waits as long.
                    record(logging.ERROR, "server.out_of_resources", error=error.strerror)
                    await trio.sleep(0.1)
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
        self._accepted += 1
        limits = self._limits
        full = limits.connections is not None and self._open >= limits.connections
        crowded = limits.connections_per_address
        if full or (crowded is not None and self._open_by_address[remote.host] >= crowded):
            self._refused += 1
            record(logging.WARNING, "connection.refused", remote=remote, open=self._open)
            await self._refuse(stream)
            return
        self._open += 1
        self._open_by_address[remote.host] += 1
        try:
            await self._serve(stream, remote, local)
        except Exception as error:
            # A mistake of ours; it must not take the other connections along.
            record(logging.ERROR, "connection.failed", exc_info=error, remote=remote, error=repr(error))
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
            self._open -= 1
            self._open_by_address[remote.host] -= 1
            if not self._open_by_address[remote.host]:
                del self._open_by_address[remote.host]
            if self._draining and not self._open:
                self._empty.set()

    async def _refuse(self, stream: trio.abc.Stream) -> None:
        if self._refusing < _REFUSALS_AT_ONCE and not isinstance(stream, trio.SSLStream):
            self._refusing += 1
            try:
                response = Response.error(503, "too many connections; try again later", {"Retry-After": "5"})
                await _answer(stream, response, _REFUSAL_SECONDS)
            finally:
                self._refusing -= 1
        await trio.aclose_forcefully(stream)

    async def _serve(self, stream: trio.abc.Stream, remote: Address, local: Address) -> None:
        reader = HeadReader(self._limits.head_bytes)
        head: Head | None = None
        refusal: Response | None = None
        scope = trio.CancelScope(deadline=trio.current_time() + self._timeouts.handshake)
        self._handshakes.add(scope)
        with scope:
            try:
                if isinstance(stream, trio.SSLStream):
                    await stream.do_handshake()
                head = await read_head(stream, reader)
            except HandshakeError as error:
                refusal = Response.error(error.status, str(error), error.headers)
            except BROKEN as error:
                record(logging.DEBUG, "handshake.lost", remote=remote, error=str(error.__cause__ or error))
                return
        self._handshakes.discard(scope)
        if scope.cancelled_caught and reader.started and not self._draining:
            limit = self._timeouts.handshake
            refusal = Response.error(408, f"the request's head was not complete within {limit:g} s")
        if self._draining:
            refusal = Response.error(503, "the server is shutting down", {"Retry-After": "5"})
        if head is None and refusal is None:
            return  # a probe: it connected and left, and that is nobody's business
        upgrade: Upgrade | None = None
        decision: Response | Acceptance
        if head is not None and refusal is None:
            upgrade, decision = await self._consider(head, remote, local)
        else:
            assert refusal is not None
            decision = refusal
        if isinstance(decision, Response):
            record(logging.DEBUG, "http.answered", remote=remote, status=decision.status)
            head_only = head is not None and head.method == "HEAD"
            await _answer(stream, decision, self._timeouts.close, head_only=head_only)
            return
        assert head is not None
        assert upgrade is not None
        await self._run_websocket(
            stream, self._request(head, upgrade, remote, local), head, upgrade, decision
        )

    async def _consider(
        self, head: Head, remote: Address, local: Address
    ) -> tuple[Upgrade | None, Response | Acceptance]:
        upgrade: Upgrade | None = None
        if is_upgrade(head.headers):
            try:
                upgrade = read_upgrade(head.method, head.http_version, head.headers)
            except HandshakeError as error:
                record(logging.DEBUG, "handshake.refused", remote=remote, error=str(error))
                return None, Response.error(error.status, str(error), error.headers)
        decision = await self._decide(self._request(head, upgrade, remote, local))
        if self._draining:
            return None, Response.error(503, "the server is shutting down", {"Retry-After": "5"})
        return upgrade, decision

    def _request(self, head: Head, upgrade: Upgrade | None, remote: Address, local: Address) -> Request:
        return Request(
            target=head.target,
            headers=Headers(head.headers),
            subprotocols=() if upgrade is None else upgrade.subprotocols,
            method=head.method,
            is_websocket=upgrade is not None,
            secure=self.secure,
            remote=remote,
            local=local,
        )

    async def _run_websocket(
        self, stream: trio.abc.Stream, request: Request, head: Head, upgrade: Upgrade, acceptance: Acceptance
    ) -> None:
        codecs = extensions = None
        if acceptance.compression is not None and upgrade.extensions:
            agreed = negotiate_deflate(acceptance.compression, upgrade.extensions)
            if agreed is not None:
                extensions, parameters = agreed
                codecs = server_codecs(parameters, acceptance.compression)
        transport = StreamTransport(
            stream, limits=self._limits, timeouts=self._timeouts, timers=self._timers, codecs=codecs
        )
        ws = Connection(transport, request, subprotocol=acceptance.subprotocol, limits=self._limits)
        transport.connection = ws
        transport.write_raw(encode_101(upgrade.key, acceptance.subprotocol, extensions, acceptance.headers))
        self._transports.add(transport)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.run, head.trailing)
                await Session(ws, acceptance, timers=self._timers, timeouts=self._timeouts).run()
        finally:
            self._transports.discard(transport)

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
        record(logging.INFO, "server.draining", connections=self._open)
        for scope in list(self._handshakes):
            scope.cancel(reason="the server is shutting down")
        spread = min(_DRAIN_SPREAD_SECONDS, self._timeouts.drain / 2)
        spread *= min(1.0, len(self._transports) / 1000)
        for transport in list(self._transports):
            transport.connection._drain()
            self._timers.after(random.uniform(0, spread), _closer(transport))
        if self._open:
            self._drain_limit.deadline = trio.current_time() + self._timeouts.drain
            with self._drain_limit:
                await self._empty.wait()
        if self._open:
            record(logging.WARNING, "server.drain_timeout", connections=self._open)
            for transport in list(self._transports):
                transport.abort()
                transport.connection._cancel_handler()


def _closer(transport: FrameTransport) -> Callable[[], None]:
    return lambda: transport.connection._start_close(_SHUTTING_DOWN, "the server is shutting down")


async def _answer(
    stream: trio.abc.Stream, response: Response, limit_seconds: float, *, head_only: bool = False
) -> None:
    with trio.move_on_after(limit_seconds):
        try:
            await stream.send_all(encode_response(response, head_only=head_only))
            await end_stream(stream)
        except BROKEN:
            return


async def serve(
    decide: Decide,
    *,
    host: str | None,
    port: int,
    ssl: ssl_module.SSLContext | None = None,
    unix_path: str | None = None,
    limits: Limits,
    timeouts: Timeouts,
    keepalive: Keepalive,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen and serve until cancelled, then drain.

    Raises:
        ListenError: the address cannot be listened on.

    Cancellation:
        Starts the drain, which is over by `Timeouts.drain`.
    """
    if unix_path is not None:
        listeners = [open_unix_listener(unix_path)]
    else:
        listeners = await open_tcp_listeners(host, port)
    server = Server(decide, limits=limits, timeouts=timeouts, keepalive=keepalive, secure=ssl is not None)
    try:
        await server.run(listeners, ssl, task_status)
    finally:
        if unix_path is not None:
            remove_unix_socket(unix_path)


async def serve_streams(
    decide: Decide,
    *,
    secure: bool = False,
    limits: Limits,
    timeouts: Timeouts,
    keepalive: Keepalive,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve without listening: connections are what `Server.serve_soon` is given.

    Args:
        decide: as for `serve`, like the rest.
        secure: whether requests shall look as if they came over TLS.

    Cancellation:
        Starts the drain, which is over by `Timeouts.drain`.
    """
    server = Server(decide, limits=limits, timeouts=timeouts, keepalive=keepalive, secure=secure)
    await server.run((), None, task_status)


async def run_server(
    start: Callable[..., Awaitable[object]], on_listening: Callable[[Server], None] | None = None
) -> None:
    """Serve until SIGINT or SIGTERM and through the drain; a second signal cuts the drain short.

    Args:
        start: serves, with Trio's start protocol: `start(task_status=…)` reports a `Server`.
        on_listening: called with it once it listens.
    """
    try:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:

                async def stop_on_signals(server: Server) -> None:
                    async for number in signals:
                        record(logging.INFO, "server.signal", signal=signal.Signals(number).name)
                        server.stop()

                async def serve_and_leave(*, task_status: trio.TaskStatus[Server]) -> None:
                    await start(task_status=task_status)
                    nursery.cancel_scope.cancel(reason="the server has stopped")

                server: Server = await nursery.start(serve_and_leave)
                if on_listening is not None:
                    on_listening(server)
                nursery.start_soon(stop_on_signals, server)
    except BaseExceptionGroup as group:
        # Made by our nursery.
        raise unwrap_group(group) from None
