"""One request of a socket in the hub, from its complete head to its answer or to the upgrade.

While the application decides, this notices that the client leaves, and reads the body if it is asked for. An
answer may be the last thing on the connection; if it is not, the socket then waits for the next head, which
`incoming` reads.
"""

from __future__ import annotations

import contextlib
import socket as stdlib_socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

from wsframework.certificates import TLSEnd
from wsframework.config import Limits, Timeouts
from wsframework.forwarded import Client
from wsframework.request import Address, Response
from wsframework.server.bodies import CONTINUE, HTTPBody
from wsframework.server.core import Core
from wsframework.server.ending import NoReceiver
from wsframework.server.framing import READ_BYTES
from wsframework.server.http import Head, encode_response
from wsframework.server.hub import Hub, hang_up
from wsframework.server.observed import socket_transport
from wsframework.server.pollers import HANGUP, QUIET, READ
from wsframework.server.socket import NOT_NOW, SocketTransport
from wsframework.server.tls_socket import TLSSocket, has_pending
from wsframework.timers import Timer
from wsframework.wire import Deflater, Inflater

__all__ = ["HEAD_READ_BYTES", "Exchange"]

HEAD_READ_BYTES = 16 * 1024

_READ_ONLY_METHODS = frozenset({"GET", "HEAD"})


class Exchange(ABC):
    """A socket whose request is being decided about, or answered.

    Args:
        socket: as it was accepted, non-blocking.
        remote: the client's address.
        local: the server's address.
        hub: watches it.
        core: the server's.
        secure: whether it speaks TLS.

    Attributes:
        remote: the client's address.
        local: the server's address.
        secure: whether it speaks TLS.
        client: what a trusted proxy says of its client.
        body: the request's body, if it has one.
        on_left: called when the client leaves while the application decides about its GET or HEAD; the
            socket is closed then. The decision about another method is not cancelled, and its client may have
            closed one direction only, so its socket stays open for the answer.
    """

    __slots__ = (
        "_admitted",
        "_answered",
        "_asked",
        "_core",
        "_early",
        "_head",
        "_hub",
        "_moving",
        "_proxy",
        "_socket",
        "_timer",
        "body",
        "client",
        "dirty",
        "local",
        "on_left",
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
        *,
        secure: bool,
    ) -> None:
        self.remote = remote
        self.local = local
        self.secure = secure
        self.client: Client | None = None
        self.body: HTTPBody | None = None
        self.on_left: Callable[[], None] | None = None
        self.dirty = False
        self._socket = socket
        self._hub = hub
        self._core = core
        self._admitted = False
        self._answered = False
        self._head: Head | None = None
        self._proxy: tuple[Address, Client | None] | None = None
        self._early = b""
        self._moving: SocketTransport | None = None
        self._asked = READ
        self._timer: Timer | None = None

    @abstractmethod
    def on_ready(self, events: int, now: float) -> None:
        """Go on with what the socket allows."""

    @abstractmethod
    def _stop_waiting(self) -> None:
        """Wait for no head any longer."""

    @abstractmethod
    def _go_on_with(self, data: bytes) -> None:
        """Wait for the head of the next request, which begins with these bytes."""

    @property
    def tls(self) -> TLSEnd | None:
        """The TLS socket, which has the client's certificate if one was asked for."""
        socket = self._socket
        if self.gone or not isinstance(socket, TLSSocket) or socket.context.verify_mode is ssl.CERT_NONE:
            return None
        return socket

    @property
    def gone(self) -> bool:
        """Whether the peer left while the application was deciding."""
        return self._socket.fileno() < 0

    def _ask(self, events: int) -> None:
        if events != self._asked:
            self._asked = events
            self._hub.ask(self._socket.fileno(), events)

    def forwarded(self, client: Client) -> None:
        """Take note that the request comes from this client of the peer, as the next one may not."""
        self._proxy = self.remote, self.client
        self.remote, self.client = client.remote, client

    # While the application decides

    def _on_ready_deciding(self, head: Head, events: int) -> None:
        """Read the body if it is wanted, or notice that the client leaves."""
        if self.body is not None and self.body.wants:
            self._read_body(self.body)
        elif events & HANGUP:
            self._hung_up(head.method)
        elif head.method not in _READ_ONLY_METHODS or self.body is not None:
            self._ask(0)
        elif self._has_finished(head):
            self._leave()

    def want_body(self) -> None:
        """Read the body, because somebody waits for it."""
        assert self.body is not None
        if self.body.awaits_continue:
            self.body.awaits_continue = False
            # The socket has taken all answers before this one, so it has room. If the client is gone instead,
            # reading tells.
            with contextlib.suppress(OSError):
                self._socket.send(CONTINUE)
        self._ask(READ)
        if has_pending(self._socket):
            self._read_body(self.body)  # no poll reports what has left the kernel

    def _read_body(self, body: HTTPBody) -> None:
        data = b""
        while body.wants:
            try:
                data = self._socket.recv(body.step)
            except NOT_NOW:
                return
            except OSError:
                data = b""
            if data:
                body.feed(data)
            else:
                body.fail(400, "the connection ended before the body was complete")
            if not has_pending(self._socket):
                break
        if body.wants:
            return
        self._ask(QUIET)
        if self._answered and data:
            self._begin_again()
        elif self._answered:
            self.abort()

    def _hung_up(self, method: str) -> None:
        if method in _READ_ONLY_METHODS:
            # The poller would report it again and again, and the client cannot be answered. The decision is
            # still being made, so the connection still counts: otherwise a flood of resets would evade the
            # limit.
            self._leave()
        else:
            self._ask(QUIET)

    def _has_finished(self, head: Head) -> bool:
        """Check what followed the head: return whether it is the end, without bytes before it."""
        if head.trailing or self._early:
            self._ask(0)
            return False
        try:
            if self.secure:
                # Only OpenSSL can tell bytes from the end. One record at most: then we ask for no more.
                self._early = data = self._socket.recv(HEAD_READ_BYTES)
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

    # The answer

    def answer(self, response: Response, *, persist: bool = False) -> None:
        """Answer in HTTP, and end the connection or, with `persist`, wait for the next request on it."""
        self._stop_waiting()
        head_only = self._head is not None and self._head.method == "HEAD"
        persist = persist and (self.body is None or self.body.drop_rest())
        data = encode_response(response, head_only=head_only, persist=persist)
        if not persist:
            self._end(data)
            return
        self._answered = True
        if not self.secure:
            data = data[self._write_at_once(data) :]
        if data:
            self._write(data, partial(self._core.admission.depart, self.remote), self._begin_again)
        else:
            self._begin_again()

    def stream(self, receiver: NoReceiver) -> SocketTransport:
        """Return a transport for an answer in pieces; it gives all that the client sends to the receiver."""
        self._stop_waiting()
        self._moving = transport = self._transport(None, partial(self._core.admission.depart, self.remote))
        transport.carry(receiver)
        transport.begin(b"")
        return transport

    @property
    def kept(self) -> bool:
        """Whether anything has come behind a request without a body."""
        return bool(self._trailing)

    def keep(self, data: bytes) -> None:
        """Keep what came behind the request while its answer was streamed."""
        self._early += data

    def end_stream(self, receiver: NoReceiver, *, persist: bool) -> None:
        """Have the connection wait for the next request after an answer in pieces, or else end."""
        self._answered = persist and (self.body is None or self.body.drop_rest())
        if self._answered:
            receiver.then = self._begin_again

    def _end(self, data: bytes = b"") -> None:
        """Write the last bytes of the connection, and end it."""
        self._write(data, partial(self._core.admission.depart, self.remote))
        self._admitted = False

    def _write_at_once(self, data: bytes) -> int:
        """Write without a transport what the socket takes; return how many bytes that is."""
        try:
            return self._socket.send(data[:READ_BYTES])
        except OSError:
            return 0  # what is wrong with it, the transport will see

    def _write(
        self, data: bytes, on_release: Callable[[], None], then: Callable[[], None] | None = None
    ) -> SocketTransport:
        self._moving = transport = self._transport(None, on_release)
        transport.answer(data, then)
        transport.begin(b"")
        if then is not None:
            transport.pause_reading()  # what comes is the next request
        return transport

    def _begin_again(self) -> None:
        """Drop what is left of the body, and then wait for the next request."""
        head, body = self._head, self.body
        assert head is not None
        self._moving = None
        self._stop_waiting()
        self._hub.add(self._socket.fileno(), self, READ)
        self._asked = READ
        if body is not None and body.wants:
            self._timer = self._core.timers.after(self._core.timeouts.body, self.abort)
            if has_pending(self._socket):
                self._read_body(body)
            return
        rest = (head.trailing if body is None else body.trailing) + self._early
        self._head = self.body = None
        self._early = b""
        self._answered = False
        if self._proxy is not None:
            self._core.admission.forget(self.remote)
            (self.remote, self.client), self._proxy = self._proxy, None
        self._go_on_with(rest)

    # The upgrade

    def upgrade(
        self,
        codecs: tuple[Deflater, Inflater] | None,
        on_release: Callable[[], None],
        *,
        limits: Limits,
        timeouts: Timeouts,
    ) -> SocketTransport:
        """Return the connection's transport; call `hand_over` when its endpoint is there.

        From here on the caller counts the connection: its handler may outlive its socket.
        """
        self._admitted = False
        self._moving = self._transport(codecs, on_release, limits, timeouts)
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
        self,
        codecs: tuple[Deflater, Inflater] | None,
        on_release: Callable[[], None],
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
    ) -> SocketTransport:
        core = self._core
        make = socket_transport(core.observer, secure=self.secure)
        self._ask(READ)
        return make(
            self._socket,
            self._hub,
            limits=limits or core.limits,
            timeouts=timeouts or core.timeouts,
            timers=core.timers,
            codecs=codecs,
            on_release=on_release,
        )

    # The end

    def flush(self) -> None:  # noqa: B027
        """Do nothing: before the answer there is nothing to write."""

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
