"""Sockets that wait for a request: TLS handshakes and request heads, in the hub.

A socket gets a task only when its request's head is complete; a port scan or a health probe costs one object
and is not logged. One timer bounds TLS and head together. The TLS state of a connection is created when its
first bytes come, so a silent client costs as little with TLS as without.
"""

from __future__ import annotations

import logging
import socket as stdlib_socket
import ssl
from collections.abc import Callable

from wsframework.errors import HandshakeError
from wsframework.records import record
from wsframework.request import Address, Response
from wsframework.server.core import Core
from wsframework.server.exchange import HEAD_READ_BYTES, Exchange
from wsframework.server.http import Head, HeadReader, encode_response
from wsframework.server.hub import Hub, hang_up
from wsframework.server.opening import crowded_response, draining_response
from wsframework.server.pollers import READ, WRITE
from wsframework.server.prefaces import Preface
from wsframework.server.socket import NOT_NOW, SocketTransport
from wsframework.server.tls_socket import TLSSocket, has_pending

__all__ = ["Incoming"]

_LATE_READS = 64
"""How many pieces of a head are read when its time is up."""

_LATE_SECONDS = 1.0
"""How much longer a client gets if its bytes came in time and waited in the kernel."""


class Incoming(Exchange):
    """A socket, from the time when it is accepted to its upgrade or its end.

    Args:
        socket, remote, local, hub, core: as for `Exchange`.
        on_head: called with a complete head; then one of `answer`, `upgrade` or `abort` has to be called.
        tls: the context for a TLS handshake.

    Attributes:
        preface: reads what comes before TLS and the first head.
    """

    __slots__ = (
        "_accepted",
        "_extended",
        "_handshaking",
        "_on_head",
        "_reader",
        "_tls",
        "preface",
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
        super().__init__(socket, remote, local, hub, core, secure=tls is not None)
        self.preface: Preface | None = None
        self._on_head = on_head
        self._tls = tls
        self._reader = HeadReader(core.limits.head_bytes, core.limits.head_fields)
        self._handshaking = self.secure
        self._accepted = False  # whether the observers know of it
        self._extended = False

    def begin(self) -> None:
        """Wait for the head.

        Raises:
            OSError: the hub cannot watch the socket; it is closed, and no longer counted.
        """
        self._admitted = True
        self._wait(self._core.timeouts.handshake)
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
            transport = self._write(encode_response(crowded_response()), end)
            if told is not None:
                told[transport] = None
        else:
            hang_up(self._socket)
            end()

    def on_ready(self, events: int, now: float) -> None:
        """Continue with TLS or the head."""
        if self._head is None:
            self._go_on()
        else:
            self._on_ready_deciding(self._head, events)

    def _go_on(self) -> None:
        self._take_step()
        if self._tls is not None:
            self._go_on_pending()

    def _go_on_pending(self) -> None:
        """Take the steps for bytes that no poll reports."""
        while self._head is None and not self._handshaking and has_pending(self._socket):
            if self not in self._core.waiting and self not in self._core.idle:
                break
            self._take_step()

    def _take_step(self) -> None:
        try:
            if self.preface is not None and not self._go_on_with_preface(self.preface):
                return
            if self._handshaking and not self._go_on_with_tls():
                return
            data = self._socket.recv(HEAD_READ_BYTES)
        except ssl.SSLWantWriteError:
            self._ask(WRITE)
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
        if not self._accepted:
            self._accepted = True
            self._core.observer.connection_accepted(self.remote, self.local, None)
        elif self in self._core.idle:
            self._stop_waiting()
            self._wait(self._core.timeouts.handshake)
        self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            head = self._reader.feed(data)
        except HandshakeError as error:
            self._refuse_head(Response.error(error.status, str(error), error.headers))
            return
        if head is not None:
            self._head = head
            self._stop_waiting()
            self._on_head(self, head)

    def _wait(self, seconds: float) -> None:
        """Wait for a head for so long."""
        self._core.waiting.add(self)
        self._timer = self._core.timers.after(seconds, self._time_out)

    def _stop_waiting(self) -> None:
        self._core.waiting.discard(self)
        self._core.idle.discard(self)
        if self._handshaking:
            self._core.admission.end_handshake(self)
        if self._timer is not None:
            self._timer.cancel()

    def _go_on_with(self, data: bytes) -> None:
        core, seconds = self._core, self._core.timeouts.keep_alive
        self._reader = HeadReader(core.limits.head_bytes, core.limits.head_fields)
        self._extended = False
        if data:
            self._wait(core.timeouts.handshake)
            self._take(data)
            self._go_on_pending()
            return
        core.idle.add(self)
        if core.lifetime.stopping.is_set():
            self.end()
        else:
            self._timer = core.timers.after(seconds, self.end)
            self._go_on_pending()

    def _go_on_with_preface(self, preface: Preface) -> bool:
        while not preface.complete:
            if not preface.take(self, self._socket.recv(preface.wants)):
                return False
        self.preface = None
        # The next turn tells whether bytes of TLS are there, or the end.
        return not self.secure

    def _go_on_with_tls(self) -> bool:
        socket = self._socket
        if not isinstance(socket, TLSSocket):
            if not self._unread():
                self.abort()
                return False
            socket = self._begin_tls(socket)
        socket.do_handshake()
        self._handshaking, self._accepted = False, True
        self._core.admission.end_handshake(self)
        self._core.observer.connection_accepted(self.remote, self.local, socket.version())
        self._ask(READ)
        return True

    def _begin_tls(self, socket: stdlib_socket.socket) -> TLSSocket:
        assert self._tls is not None
        self._core.admission.begin_handshake(self)
        self._socket = wrapped = TLSSocket(socket, self._tls)
        return wrapped

    def make_room(self) -> None:
        """End a TLS handshake in favour of a newer one, unless the bytes that have come complete it."""
        self._read_what_waits()
        if self._handshaking:
            self.abort()

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

    def _refuse_head(self, response: Response) -> None:
        self._core.observer.http_answered(self.remote, response.status)
        self.answer(response)

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
            self._refuse_head(Response.error(408, f"the request's head was not complete within {limit:g} s"))
        else:
            self.abort()

    def end(self) -> None:
        """Close a connection that is idle between two requests, unless the next one is there already."""
        if self._unread():
            self._go_on()
        if self in self._core.idle:
            self._stop_waiting()
            self._end()

    def drain(self) -> None:
        """Take note that the server is stopping: do not wait for the rest."""
        self._read_what_waits()
        if self not in self._core.waiting:
            return
        if self._reader.started:
            self._refuse_head(draining_response())
        else:
            self.abort()
