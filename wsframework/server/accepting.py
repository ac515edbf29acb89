"""Accepting connections from a listening socket, whatever the system says to that.

What can go wrong is about the peer (it has gone again: the next one, please), about descriptors (then one of
the spare ones takes the connection, which is told 503 and closed), or about us, and then accepting pauses for
a moment, because the listener stays ready. Nothing ends it, and what goes wrong is logged at a rate.
"""

from __future__ import annotations

import socket as stdlib_socket
import ssl as ssl_module
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import attrs
import trio

from wsframework.request import Address
from wsframework.server.admission import Admission
from wsframework.server.core import Core
from wsframework.server.descriptors import (
    ABOUT_THE_PEER,
    OUT_OF_DESCRIPTORS,
    OUT_OF_RESOURCES,
    SpareDescriptors,
)
from wsframework.server.http import Head
from wsframework.server.hub import Hub, hang_up, tune
from wsframework.server.incoming import Incoming
from wsframework.server.listeners import address_of
from wsframework.server.pollers import READ
from wsframework.server.socket import SocketTransport

__all__ = ["Accepted", "Acceptor", "HubListener", "StreamListener"]

_PAUSE_SECONDS = 0.1
"""How long to stop accepting when it cannot work; Trio's own loop waits as long."""

_ACCEPTS_PER_TURN = 64

_STREAMS_PER_TURN = 8

_LAST_ACCEPTS = 4096
"""The most that a listener's queue has where we ask for 1,024; see `listeners`."""


class _Abortable(Protocol):
    def abort(self) -> None: ...


ToldT = TypeVar("ToldT", bound=_Abortable)


class Acceptor(Generic[ToldT]):
    """What both kinds of listeners have in common.

    Args:
        listener: the socket; it is closed at the end.
        admission: where connections are counted.
        shared: whether other processes may accept from it, and go on when this one stops.
    """

    def __init__(self, listener: stdlib_socket.socket, admission: Admission, *, shared: bool) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._shared = shared
        self._admission = admission
        self._spare = SpareDescriptors()
        self._told: dict[ToldT, None] = {}
        """Connections on spare descriptors, while they are told that there are no others; oldest first."""

    def _take(self, socket: stdlib_socket.socket, remote: Address, short: bool) -> None:
        """Serve a connection, or tell it that we are short of descriptors.

        Raises:
            OSError, MemoryError: it cannot be; the caller closes it.
        """
        raise NotImplementedError

    def _accept(self, most: int = _ACCEPTS_PER_TURN) -> bool:
        """Accept what is there; False when there is no point in trying again at once."""
        failures = 0
        for _ in range(most):
            try:
                socket, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return True
            except (OSError, MemoryError) as error:
                number = error.errno if isinstance(error, OSError) else None
                if number in OUT_OF_DESCRIPTORS and self._make_room():
                    self._admission.short_of(error)
                    continue
                failures += 1
                if number not in ABOUT_THE_PEER or failures == most:
                    self._admission.short_of(error)
                    return False
            else:
                self._take_or_close(socket, address_of(peer))
        return True

    def _make_room(self) -> bool:
        """Free a descriptor for a connection that is to be told that there are none."""
        if self._spare.lend():
            return True
        if not self._told:
            return False
        # It has its answer, and has had as much time to read it as others leave it.
        next(iter(self._told)).abort()
        return self._spare.lend()

    def _take_or_close(self, socket: stdlib_socket.socket, remote: Address) -> None:
        try:
            self._take(socket, remote, not self._spare.refill())
        except (OSError, MemoryError) as error:
            socket.close()
            # Everything else is about the peer, which has reset it in the meantime.
            if isinstance(error, MemoryError) or error.errno in OUT_OF_RESOURCES:
                self._admission.short_of(error)
        except BaseException:
            socket.close()
            raise

    def _accept_last(self) -> None:
        """Accept what is in the kernel's queue: to those clients the connection stands.

        Closing the listener would reset it.
        """
        self._accept(_LAST_ACCEPTS)

    def _close(self) -> None:
        if self._shared:
            self._listener.close()
        else:
            hang_up(self._listener)
        self._spare.close()


class HubListener(Acceptor[SocketTransport]):
    """A listening socket in the hub."""

    dirty = False

    def __init__(
        self,
        listener: stdlib_socket.socket,
        hub: Hub,
        core: Core,
        on_head: Callable[[Incoming, Head], None],
        tls: ssl_module.SSLContext | None,
        *,
        shared: bool,
    ) -> None:
        super().__init__(listener, core.admission, shared=shared)
        self._hub = hub
        self._core = core
        self._on_head = on_head
        self._tls = tls
        self._closed = False
        self._local = _common_address(listener)
        self._is_tcp = listener.family in (stdlib_socket.AF_INET, stdlib_socket.AF_INET6)
        if self._is_tcp:
            listener.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
        self._must_tune: bool | None = None
        hub.add(listener.fileno(), self, READ)

    def on_ready(self, events: int, now: float) -> None:
        """Accept what is there, a bounded number a turn."""
        try:
            if not self._accept():
                # A listener whose connections cannot be accepted stays ready for ever.
                self._hub.ask(self._listener.fileno(), 0)
                self._core.timers.after(_PAUSE_SECONDS, self._ask_again)
        except Exception as error:
            # A mistake of ours, and not in one connection: a server that cannot accept is none.
            self._core.lifetime.fail(error)

    def _take(self, socket: stdlib_socket.socket, remote: Address, short: bool) -> None:
        if self._must_tune is None:
            # Linux, macOS and BSD hand the option down, which saves every connection a system call.
            self._must_tune = self._is_tcp and not socket.getsockopt(
                stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY
            )
        if self._must_tune:
            tune(socket)
        else:
            socket.setblocking(False)
        local = self._local or address_of(socket.getsockname())
        incoming = Incoming(socket, remote, local, self._hub, self._core, self._on_head, self._tls)
        if short:
            self._admission.turn_away()
            incoming.refuse(self._told, self._spare.refill)
        elif self._admission.admit(remote):
            incoming.begin()
        else:
            incoming.refuse()

    def _ask_again(self) -> None:
        if not self._closed:
            self._spare.refill()
            self._hub.ask(self._listener.fileno(), READ)

    def close(self) -> None:
        """Stop listening; take those that have connected by now."""
        self._closed = True
        try:
            self._accept_last()
        finally:
            self._hub.remove(self._listener.fileno())
            self._close()

    def flush(self) -> None:
        """Nothing is written to a listener."""

    def abort(self, cause: str) -> None:
        """Go on: a connection that could not be accepted is no reason to stop listening."""


def _common_address(listener: stdlib_socket.socket) -> Address | None:
    """Return our address in all of a listener's connections; None when it listens on every interface."""
    address = address_of(listener.getsockname())
    return None if address.host in ("0.0.0.0", "::") else address


@attrs.define(eq=False)
class Accepted:
    """A connection over a Trio stream that is to be served.

    Attributes:
        on_spare: whether it has one of the last descriptors, and is only to be told so.
        closed: to be called when its stream is closed.
        scope: to be around what serves it.
    """

    stream: trio.abc.Stream
    remote: Address
    local: Address
    on_spare: bool = False
    closed: Callable[[], None] = lambda: None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def abort(self) -> None:
        """End it, soon."""
        self.scope.cancel(reason="its descriptor is needed")


class StreamListener(Acceptor[Accepted]):
    """A listening socket whose connections are Trio streams, each handed to `start`."""

    def __init__(
        self,
        listener: stdlib_socket.socket,
        tls: ssl_module.SSLContext | None,
        admission: Admission,
        start: Callable[[Accepted], None],
        *,
        shared: bool,
    ) -> None:
        super().__init__(listener, admission, shared=shared)
        self._tls = tls
        self._start = start

    async def run(self) -> None:
        """Accept for ever; call `close` when this is cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._listener)
            # Few at a time: each is a task, whose time for the handshake begins now.
            if not self._accept(_STREAMS_PER_TURN):
                await trio.sleep(_PAUSE_SECONDS)
                self._spare.refill()

    def _take(self, socket: stdlib_socket.socket, remote: Address, short: bool) -> None:
        local = address_of(socket.getsockname())
        stream: trio.abc.Stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket))
        if self._tls is not None:
            stream = trio.SSLStream(stream, self._tls, server_side=True)
        accepted = Accepted(stream, remote, local, short)
        if short:
            self._told[accepted] = None
            accepted.closed = lambda: self._end(accepted)
        self._start(accepted)

    def _end(self, accepted: Accepted) -> None:
        del self._told[accepted]
        self._spare.refill()

    def close(self) -> None:
        """Stop listening; take those that have connected by now."""
        try:
            self._accept_last()
        finally:
            self._close()
