"""Sockets before they are connections: TLS handshakes and request heads, in the hub.

A socket gets a task only when its request's head is complete; a port scan or a health probe costs one object
and is not logged. One timer bounds TLS and head together. The TLS state of a connection is created when its
first bytes come, so a silent client costs as little with TLS as without.
"""

from __future__ import annotations

import logging
import socket as stdlib_socket
import ssl
from collections.abc import Callable

from wsframework.certificates import TLSEnd
from wsframework.errors import HandshakeError
from wsframework.forwarded import Client
from wsframework.records import record
from wsframework.request import Address, Response
from wsframework.server.core import Core
from wsframework.server.http import Head, HeadReader, encode_response
from wsframework.server.hub import Hub, hang_up
from wsframework.server.observed import socket_transport
from wsframework.server.opening import crowded_response, draining_response
from wsframework.server.pollers import HANGUP, QUIET, READ, WRITE
from wsframework.server.prefaces import Preface
from wsframework.server.socket import NOT_NOW, SocketTransport
from wsframework.timers import Timer
from wsframework.wire import Deflater, Inflater

__all__ = ["Incoming"]

_HEAD_READ_BYTES = 16 * 1024

_LATE_READS = 64
"""How many pieces of a head are read when its time is up."""

_LATE_SECONDS = 1.0
"""How much longer a client gets if its bytes came in time and waited in the kernel."""

_READ_ONLY_METHODS = frozenset({"GET", "HEAD"})


class Incoming:
    """A socket whose opening handshake is not complete.

    Args:
        socket: as it was accepted, non-blocking.
        remote: the client's address.
        local: the server's address.
        hub: watches it.
        core: the server's.
        on_head: called with a complete head; then one of `answer`, `upgrade` or `abort` has to be called.
        tls: the context for a TLS handshake.

    Attributes:
        remote: the client's address.
        local: the server's address.
        secure: whether it speaks TLS.
        client: what a trusted proxy says of its client.
        preface: reads what comes before TLS and the head.
        on_left: called when the client leaves while the application decides about its GET or HEAD; the
            socket is closed then. The decision about another method is not cancelled, and its client may have
            closed one direction only, so its socket stays open for the answer.
    """

    __slots__ = (
        "_admitted",
        "_asked",
        "_core",
        "_early",
        "_extended",
        "_handshaking",
        "_head",
        "_hub",
        "_moving",
        "_on_head",
        "_reader",
        "_socket",
        "_timer",
        "_tls",
        "client",
        "dirty",
        "local",
        "on_left",
        "preface",
        "remote",
        "secure",
    )

    def __init__(
        self,
        socket: stdlib_socket.socket,
        remote: Address,
        local: Address,
        hub: Hub,
        core: Core,
        on_head: Callable[[Incoming, Head], None],
        tls: ssl.SSLContext | None,
    ) -> None:
        self.remote = remote
        self.local = local
        self.secure = tls is not None
        self.client: Client | None = None
        self.preface: Preface | None = None
        self.on_left: Callable[[], None] | None = None
        self.dirty = False
        self._socket = socket
        self._hub = hub
        self._core = core
        self._on_head = on_head
        self._tls = tls
        self._reader = HeadReader(core.limits.head_bytes, core.limits.head_fields)
        self._handshaking = self.secure
        self._admitted = False
        self._head: Head | None = None
        self._early = b""
        self._moving: SocketTransport | None = None
        self._asked = READ
        self._extended = False
        self._timer: Timer | None = None

    @property
    def tls(self) -> TLSEnd | None:
        """The TLS socket, which has the client's certificate if one was asked for."""
        socket = self._socket
        if isinstance(socket, ssl.SSLSocket) and socket.context.verify_mode is not ssl.CERT_NONE:
            return socket
        return None

    def begin(self) -> None:
        """Wait for the head.

        Raises:
            OSError: the hub cannot watch the socket; it is closed, and no longer counted.
        """
        self._admitted = True
        self._core.waiting.add(self)
        self._timer = self._core.timers.after(self._core.timeouts.handshake, self._time_out)
        try:
            self._hub.add(self._socket.fileno(), self, READ)
        except BaseException:
            self.abort()
            raise

    def refuse(
        self, told: dict[SocketTransport, None] | None = None, on_closed: Callable[[], object] | None = None
    ) -> None:
        """Answer that there are too many connections; over TLS, which would cost a handshake, only close.

        Args:
            told: holds the connections that are being refused, the oldest first; this one is added.
            on_closed: called when its descriptor is free again.

        Raises:
            OSError: the hub cannot watch the socket; it is closed.
        """
        admission = self._core.admission
        may_tell = admission.begin_refusal(self.remote)

        def end() -> None:
            if may_tell:
                admission.end_refusal()
            if told is not None and transport is not None:
                told.pop(transport, None)
            if on_closed is not None:
                on_closed()

        transport: SocketTransport | None = None
        if may_tell and not self.secure:
            try:
                self._hub.add(self._socket.fileno(), self, READ)
            except BaseException:
                self._close()
                end()
                raise
            transport = self._answer(crowded_response(), end)
            if told is not None:
                told[transport] = None
        else:
            hang_up(self._socket)
            end()

    def on_ready(self, events: int, now: float) -> None:
        """Continue with TLS or the head."""
        if self._head is None:
            self._go_on()
        elif events & HANGUP:
            self._hung_up(self._head.method)
        elif self._head.method not in _READ_ONLY_METHODS:
            self._ask(0)
        elif self._has_finished():
            self._leave()

    def _go_on(self) -> None:
        try:
            if self.preface is not None and not self._go_on_with_preface(self.preface):
                return
            if self._handshaking and not self._go_on_with_tls():
                return
            data = self._socket.recv(_HEAD_READ_BYTES)
        except ssl.SSLWantWriteError:
            self._ask(READ | WRITE)
            return
        except NOT_NOW:
            self._ask(READ)  # an idle socket is always ready to be written
            return
        except OSError as error:
            record(logging.DEBUG, "handshake.lost", remote=self.remote, error=str(error))
            self.abort()
            return
        if not data:
            self.abort()  # port probe: not logged
            return
        if not self.secure and not self._reader.started:
            self._core.observer.connection_accepted(self.remote, self.local, None)
        try:
            head = self._reader.feed(data)
        except HandshakeError as error:
            self.answer(Response.error(error.status, str(error), error.headers))
            return
        if head is not None:
            self._head = head
            self._stop_waiting()
            self._on_head(self, head)

    def _go_on_with_preface(self, preface: Preface) -> bool:
        while not preface.complete:
            if not preface.take(self, self._socket.recv(preface.wants)):
                return False
        self.preface = None
        # The next turn tells whether bytes of TLS are there, or the end.
        return not self.secure

    def _go_on_with_tls(self) -> bool:
        socket = self._socket
        if not isinstance(socket, ssl.SSLSocket):
            if not self._unread():
                self.abort()
                return False
            socket = self._begin_tls(socket)
        socket.do_handshake()
        self._handshaking = False
        self._core.admission.end_handshake(self)
        self._core.observer.connection_accepted(self.remote, self.local, socket.version())
        self._ask(READ)
        return True

    def _begin_tls(self, socket: stdlib_socket.socket) -> ssl.SSLSocket:
        assert self._tls is not None
        # Python does not close a socket that it finds reset while wrapping it.
        socket.getpeername()
        self._core.admission.begin_handshake(self)
        self._socket = wrapped = self._tls.wrap_socket(
            socket, server_side=True, do_handshake_on_connect=False
        )
        return wrapped

    def make_room(self) -> None:
        """End a TLS handshake in favour of a newer one, unless the bytes that have come complete it."""
        self._read_what_waits()
        if self._handshaking:
            self.abort()

    def _ask(self, events: int) -> None:
        if events != self._asked:
            self._asked = events
            self._hub.ask(self._socket.fileno(), events)

    def _unread(self) -> bool:
        """Whether bytes wait in the kernel; FIN and a reset do not count, and `recv` reports them."""
        try:
            # On the plain socket, because OpenSSL would consume them.
            return bool(stdlib_socket.socket.recv(self._socket, 1, stdlib_socket.MSG_PEEK))
        except OSError:
            return False

    def _read_what_waits(self) -> bool:
        """Read what came while the event loop was busy; return whether there was anything."""
        anything = False
        for _ in range(_LATE_READS):
            if self not in self._core.waiting or not self._unread():
                break
            anything = True
            self._go_on()
        return anything

    def _time_out(self) -> None:
        late = self._read_what_waits()
        if self not in self._core.waiting:
            return
        limit = self._core.timeouts.handshake
        if late and not self._extended:
            # The server did not read for a while, or answered late. Only once: a client may do it on purpose.
            self._extended = True
            self._timer = self._core.timers.after(min(limit, _LATE_SECONDS), self._time_out)
        elif self._reader.started:
            self.answer(Response.error(408, f"the request's head was not complete within {limit:g} s"))
        else:
            self.abort()

    def drain(self) -> None:
        """Take note that the server is stopping: do not wait for the rest."""
        self._read_what_waits()
        if self not in self._core.waiting:
            return
        if self._reader.started:
            self.answer(draining_response())
        else:
            self.abort()

    # While the application decides

    def _hung_up(self, method: str) -> None:
        if method in _READ_ONLY_METHODS:
            # The poller would report it again and again, and the client cannot be answered. The decision is
            # still being made, so the connection still counts: otherwise a flood of resets would evade the
            # limit.
            self._leave()
        else:
            self._ask(QUIET)

    def _has_finished(self) -> bool:
        """Check what followed the head: return whether it is the end, without bytes before it."""
        if self._trailing:
            self._ask(0)
            return False
        try:
            if self.secure:
                # Only OpenSSL can tell bytes from the end. One record at most: then we ask for no more.
                self._early = data = self._socket.recv(_HEAD_READ_BYTES)
            else:
                # Further bytes stay in the kernel.
                data = self._socket.recv(1, stdlib_socket.MSG_PEEK)
        except NOT_NOW:
            self._ask(READ)
            return False
        except OSError:
            return True
        if data:
            self._ask(0)
        return not data

    def _leave(self) -> None:
        self._close()
        if self.on_left is not None:
            self.on_left()

    def abandon(self) -> None:
        """Close the connection, unless the application has decided."""
        if self._moving is None:
            self.abort()

    # The end

    def answer(self, response: Response) -> None:
        """Answer in HTTP and end the connection."""
        admission, remote = self._core.admission, self.remote
        self._answer(response, lambda: admission.depart(remote))
        self._admitted = False

    def _answer(self, response: Response, on_release: Callable[[], None]) -> SocketTransport:
        self._stop_waiting()
        head_only = self._head is not None and self._head.method == "HEAD"
        self._moving = transport = self._transport(None, on_release)
        transport.answer(encode_response(response, head_only=head_only))
        transport.begin(b"")
        return transport

    def upgrade(
        self, codecs: tuple[Deflater, Inflater] | None, on_release: Callable[[], None]
    ) -> SocketTransport:
        """Return the connection's transport; call `hand_over` when its endpoint is there.

        From here on the caller counts the connection: its handler may outlive its socket.
        """
        self._admitted = False
        self._moving = self._transport(codecs, on_release)
        return self._moving

    def hand_over(self) -> None:
        """Let the transport move the bytes, beginning with those that followed the head."""
        assert self._moving is not None
        self._moving.begin(self._trailing)

    async def answered(self) -> None:
        """Wait until the answer to the upgrade was offered to the socket.

        Cancellation: cannot be cancelled.
        """
        assert self._moving is not None
        # Not a flush of its own: sent one by one between tasks, answers cost a tenth of a connection more.
        await self._hub.flushed(self._moving)

    @property
    def _trailing(self) -> bytes:
        return b"" if self._head is None else self._head.trailing + self._early

    def _transport(
        self, codecs: tuple[Deflater, Inflater] | None, on_release: Callable[[], None]
    ) -> SocketTransport:
        core = self._core
        make = socket_transport(core.observer, secure=self.secure)
        self._ask(READ)
        return make(
            self._socket,
            self._hub,
            limits=core.limits,
            timeouts=core.timeouts,
            timers=core.timers,
            codecs=codecs,
            on_release=on_release,
        )

    def _stop_waiting(self) -> None:
        self._core.waiting.discard(self)
        if self._handshaking:
            self._core.admission.end_handshake(self)
        if self._timer is not None:
            self._timer.cancel()

    def flush(self) -> None:
        """Do nothing: before the answer there is nothing to write."""

    @property
    def gone(self) -> bool:
        """Whether the peer left while the application was deciding."""
        return self._socket.fileno() < 0

    def abort(self, cause: str = "") -> None:
        """Close the socket without an answer, or without more of it, and stop counting it."""
        if self._moving is not None:
            # The socket is the transport's, and would be closed under it.
            self._moving.abort(cause)
            return
        self._close()
        if self._admitted:
            self._admitted = False
            self._core.admission.depart(self.remote)

    def _close(self) -> None:
        self._stop_waiting()
        self._hub.remove(self._socket.fileno())
        hang_up(self._socket)
