"""Sockets before they are connections: listeners, TLS handshakes and request heads, in the hub.

No task belongs to a socket until its request's head is whole; a port scan or a health probe costs one object
and no line in the log. One timer bounds TLS and head together.
"""

from __future__ import annotations

import errno
import logging
import socket as stdlib_socket
import ssl
from collections.abc import Callable
from typing import Protocol

from wsframework.config import Limits, Timeouts
from wsframework.errors import HandshakeError
from wsframework.records import record
from wsframework.request import Address, Response
from wsframework.server.admission import Admission
from wsframework.server.http import Head, HeadReader, encode_response
from wsframework.server.hub import HANGUP, READ, WRITE, Hub, tune
from wsframework.server.listeners import address_of
from wsframework.server.logged import socket_transport
from wsframework.server.opening import crowded_response, draining_response
from wsframework.server.socket import NOT_NOW, SocketTransport
from wsframework.timers import Timer, Timers
from wsframework.wire import Deflater, Inflater

__all__ = ["Incoming", "ListenerPollee", "OUT_OF_RESOURCES"]

OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

RESOURCE_PAUSE_SECONDS = 0.1
"""How long to stop accepting when there are no file descriptors left; Trio's own loop waits as long."""

_ACCEPTS_PER_TURN = 64
_HEAD_READ_BYTES = 16 * 1024


class Host(Protocol):
    """The server, as far as its incoming sockets know it."""

    admission: Admission
    timers: Timers
    limits: Limits
    timeouts: Timeouts

    def head_complete(self, incoming: Incoming, head: Head) -> None:
        """Go on with a request; `incoming` waits for `answer` or `upgrade`."""

    def fail(self, error: BaseException) -> None:
        """End the server with a mistake of ours that is not about a single connection."""


class ListenerPollee:
    """A listening socket in the hub."""

    dirty = False

    def __init__(
        self,
        listener: stdlib_socket.socket,
        hub: Hub,
        host: Host,
        tls: ssl.SSLContext | None,
        waiting: set[Incoming],
    ) -> None:
        self._listener = listener
        self._hub = hub
        self._host = host
        self._tls = tls
        self._waiting = waiting
        self._closed = False
        listener.setblocking(False)
        hub.add(listener.fileno(), self, READ)

    def on_ready(self, events: int, now: float) -> None:
        """Accept what is there, a bounded number a turn."""
        try:
            self._accept()
        except Exception as error:
            # A mistake of ours, and not in one connection: a server that cannot accept is none.
            self._host.fail(error)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                socket, peer = self._listener.accept()
            except NOT_NOW:
                return
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    record(logging.ERROR, "server.out_of_resources", error=error.strerror)
                    self._hub.ask(self._listener.fileno(), 0)
                    self._host.timers.after(RESOURCE_PAUSE_SECONDS, self._ask_again)
                    return
                continue  # about a connection that is gone already: ECONNABORTED and its like
            try:
                self._take(socket, address_of(peer))
            except BaseException:
                socket.close()
                raise

    def _take(self, socket: stdlib_socket.socket, remote: Address) -> None:
        try:
            tune(socket)
            if self._tls is not None:
                # Python forgets to close a socket that it finds reset while it wraps it.
                socket.getpeername()
                socket = self._tls.wrap_socket(socket, server_side=True, do_handshake_on_connect=False)
            incoming = Incoming(socket, remote, self._hub, self._host, self._waiting)
        except OSError:
            socket.close()  # the peer has reset it in the meantime
            return
        if self._host.admission.admit(remote):
            incoming.begin()
        else:
            incoming.refuse()

    def _ask_again(self) -> None:
        if not self._closed:
            self._hub.ask(self._listener.fileno(), READ)

    def close(self) -> None:
        """Stop listening."""
        self._closed = True
        self._hub.remove(self._listener.fileno())
        self._listener.close()

    def flush(self) -> None:
        """Nothing is written to a listener."""

    def abort(self) -> None:
        """Go on: a connection that could not be accepted is no reason to stop listening."""


class Incoming:
    """A socket whose opening handshake is not complete."""

    dirty = False

    def __init__(
        self, socket: stdlib_socket.socket, remote: Address, hub: Hub, host: Host, waiting: set[Incoming]
    ) -> None:
        self.remote = remote
        self.local = address_of(socket.getsockname())
        self.secure = isinstance(socket, ssl.SSLSocket)
        self._socket = socket
        self._hub = hub
        self._host = host
        self._waiting = waiting
        self._reader = HeadReader(host.limits.head_bytes, host.limits.head_fields)
        self._handshaking = self.secure
        self._admitted = False
        self._head: Head | None = None
        self._upgraded: SocketTransport | None = None
        self.on_left: Callable[[], None] | None = None
        self._asked = READ
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Wait for the head."""
        self._admitted = True
        self._waiting.add(self)
        self._timer = self._host.timers.after(self._host.timeouts.handshake, self._time_out)
        self._hub.add(self._socket.fileno(), self, READ)

    def refuse(self) -> None:
        """Say that there are too many; over TLS that would cost a handshake, so just leave."""
        record(logging.WARNING, "connection.refused", remote=self.remote)
        if self.secure or not self._host.admission.begin_refusal():
            self._socket.close()
            return
        self._hub.add(self._socket.fileno(), self, READ)
        self.answer(crowded_response())

    def on_ready(self, events: int, now: float) -> None:
        """Go on with TLS or the head."""
        if self._head is not None:
            if events & HANGUP:
                # Reported for ever, and there is nobody to answer any more. The decision is still being made,
                # so it still counts: else a flood of resets would be a way around the limit.
                self._close()
            else:
                # The application is deciding. What comes now stays in the kernel.
                self._ask(0)
            return
        try:
            if self._handshaking and not self._go_on_with_tls():
                return
            data = self._socket.recv(_HEAD_READ_BYTES)
        except ssl.SSLWantWriteError:
            self._ask(READ | WRITE)
            return
        except NOT_NOW:
            self._ask(READ)  # a socket that may be written, and need not be, would be ready for ever
            return
        except OSError as error:
            record(logging.DEBUG, "handshake.lost", remote=self.remote, error=str(error))
            self.abort()
            return
        if not data:
            self.abort()  # a probe: it connected and left, and that is nobody's business
            return
        if not self.secure and not self._reader.started:
            record(logging.DEBUG, "connection.accepted", remote=self.remote, local=self.local)
        try:
            head = self._reader.feed(data)
        except HandshakeError as error:
            self.answer(Response.error(error.status, str(error), error.headers))
            return
        if head is not None:
            self._head = head
            self._stop_waiting()
            self._host.head_complete(self, head)

    def _go_on_with_tls(self) -> bool:
        assert isinstance(self._socket, ssl.SSLSocket)
        self._socket.do_handshake()
        self._handshaking = False
        record(
            logging.DEBUG,
            "connection.accepted",
            remote=self.remote,
            local=self.local,
            tls=self._socket.version(),
        )
        self._ask(READ)
        return True

    def _ask(self, events: int) -> None:
        if events != self._asked:
            self._asked = events
            self._hub.ask(self._socket.fileno(), events)

    def _time_out(self) -> None:
        limit = self._host.timeouts.handshake
        if self._reader.started:
            self.answer(Response.error(408, f"the request's head was not complete within {limit:g} s"))
        else:
            self.abort()

    def drain(self) -> None:
        """The server is stopping: do not wait for the rest."""
        if self._reader.started:
            self.answer(draining_response())
        else:
            self.abort()

    def answer(self, response: Response) -> None:
        """Answer in HTTP and end the connection."""
        self._stop_waiting()
        head_only = self._head is not None and self._head.method == "HEAD"
        transport = self._transport(None, self._release_callback())
        transport.answer(encode_response(response, head_only=head_only))
        transport.begin(b"")

    def upgrade(
        self, codecs: tuple[Deflater, Inflater] | None, on_release: Callable[[], None]
    ) -> SocketTransport:
        """Return the transport that takes over; call `hand_over` when there is a connection to deliver to.

        From here on the caller counts the connection: its handler may outlive its socket.
        """
        self._admitted = False
        self._upgraded = self._transport(codecs, on_release)
        return self._upgraded

    def hand_over(self) -> None:
        """Let the transport move bytes, the first of which came right behind the head."""
        assert self._upgraded is not None
        assert self._head is not None
        # The answer leaves before the handler runs: one that blocks the event loop keeps nobody from knowing
        # that the connection is open. A handler that waits for a message first, as nearly all do, costs no
        # more.
        self._upgraded.flush()
        self._upgraded.begin(self._head.trailing)

    def _transport(
        self, codecs: tuple[Deflater, Inflater] | None, on_release: Callable[[], None]
    ) -> SocketTransport:
        kind = socket_transport(secure=self.secure)
        host = self._host
        self._ask(READ)
        return kind(
            self._socket,
            self._hub,
            limits=host.limits,
            timeouts=host.timeouts,
            timers=host.timers,
            codecs=codecs,
            on_release=on_release,
        )

    def _release_callback(self) -> Callable[[], None]:
        if not self._admitted:
            return self._host.admission.end_refusal
        admission, remote = self._host.admission, self.remote
        return lambda: admission.depart(remote)

    def _stop_waiting(self) -> None:
        self._waiting.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def flush(self) -> None:
        """Nothing is written before the answer."""

    @property
    def gone(self) -> bool:
        """Whether the peer left while the application was deciding."""
        return self._socket.fileno() < 0

    def abort(self) -> None:
        """Close the socket without a word, and count it out."""
        self._close()
        if self._admitted:
            self._admitted = False
            self._host.admission.depart(self.remote)

    def _close(self) -> None:
        self._stop_waiting()
        self._hub.remove(self._socket.fileno())
        self._socket.close()
