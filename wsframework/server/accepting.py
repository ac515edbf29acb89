"""Accept connections from a listening socket, and go on after errors.

An error may concern the peer: it has left already, and the next connection is accepted. It may concern
descriptors: then a spare one takes the connection, which is answered with 503 and closed. After any other
error, accepting pauses for a moment, because the listener stays ready. Errors are logged at a limited rate.
"""

from __future__ import annotations

import socket as stdlib_socket
import ssl as ssl_module
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import attrs
import trio

from wsframework.request import Address
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
from wsframework.server.sharing import Politeness
from wsframework.server.socket import SocketTransport

__all__ = ["Accepted", "Acceptor", "HubListener", "StreamListener"]

_PAUSE_SECONDS = 0.1
"""How long to pause after an error; `trio.serve_listeners` waits as long."""

_ACCEPTS_PER_TURN = 64

_STREAMS_PER_TURN = 8

_LAST_ACCEPTS = 4096
"""The longest queue that a listener has when a backlog of 1,024 was asked for; see `listeners`."""


class _Abortable(Protocol):
    def flush_now(self) -> None: ...

    def abort(self) -> None: ...


ToldT = TypeVar("ToldT", bound=_Abortable)


class Acceptor(Generic[ToldT]):
    """What both kinds of listeners have in common.

    Args:
        listener: the socket; it is closed at the end.
        core: the server's.
        shared: whether other processes may accept from it, and continue when this one stops.
    """

    def __init__(self, listener: stdlib_socket.socket, core: Core, *, shared: bool) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._shared = shared
        self._admission = core.admission
        self._prefaces = core.prefaces
        self._politeness = None if core.crowd is None else Politeness(core.crowd, core.admission)
        self._spare = SpareDescriptors()
        self._told: dict[ToldT, None] = {}
        """Connections on spare descriptors, while they get their 503; oldest first."""

    def _take(self, socket: stdlib_socket.socket, remote: Address, short: bool) -> None:
        """Serve a connection, or answer it with 503 if `short`: it has a spare descriptor.

        Raises:
            OSError, MemoryError: the connection cannot be served; the caller closes it.
        """
        raise NotImplementedError

    def _accept(self, most: int = _ACCEPTS_PER_TURN) -> bool:
        """Accept what is in the queue; return False if accepting fails and has to pause."""
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
        """Free a descriptor for a connection that will get a 503."""
        if self._spare.lend():
            return True
        if not self._told:
            return False
        # The oldest has had the most time to read its answer; if it came in this turn, that is not written.
        oldest = next(iter(self._told))
        oldest.flush_now()
        oldest.abort()
        return self._spare.lend()

    def _take_or_close(self, socket: stdlib_socket.socket, remote: Address) -> None:
        if self._prefaces is not None and not self._prefaces.welcome(remote):
            hang_up(socket)
            return
        try:
            self._take(socket, remote, not self._spare.refill())
        except (OSError, MemoryError) as error:
            socket.close()
            # Any other error means that the peer has reset the connection.
            if isinstance(error, MemoryError) or error.errno in OUT_OF_RESOURCES:
                self._admission.short_of(error)
        except BaseException:
            socket.close()
            raise

    def _accept_last(self) -> None:
        """Accept what is in the kernel's queue, unless another process does.

        Closing the last listener would reset these connections.
        """
        if self._politeness is None or not self._politeness.others_accept():
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
        super().__init__(listener, core, shared=shared)
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
        """Accept a bounded number of connections."""
        try:
            polite = self._politeness
            most = _ACCEPTS_PER_TURN if polite is None else polite.most(now)
            if not (most and self._accept(most)):
                # The listener stays ready as long as connections wait in its queue.
                self._hub.ask(self._listener.fileno(), 0)
                pause = _PAUSE_SECONDS if polite is None or most else polite.pause
                self._core.timers.after(pause, self._ask_again)
        except Exception as error:
            # A bug in the server, and not in one connection: without accepting, the server is useless.
            self._core.lifetime.fail(error)

    def _take(self, socket: stdlib_socket.socket, remote: Address, short: bool) -> None:
        if self._must_tune is None:
            # On Linux, macOS and BSD the socket inherits the option, which saves a system call.
            self._must_tune = self._is_tcp and not socket.getsockopt(
                stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY
            )
        if self._must_tune:
            tune(socket)
        else:
            socket.setblocking(False)
        local = self._local or address_of(socket.getsockname())
        incoming = Incoming(socket, remote, local, self._hub, self._core, self._on_head, self._tls)
        if self._prefaces is not None:
            incoming.preface = self._prefaces.begin()
        if short:
            self._admission.turn_away()
            incoming.refuse(self._told, self._spare.refill)
        elif self._admission.admit(remote):
            incoming.begin()
        else:
            incoming.refuse()

    def _ask_again(self) -> None:
        if not self._closed:
            if self._politeness is not None:
                self._politeness.ask_again(trio.current_time())
            self._spare.refill()
            self._hub.ask(self._listener.fileno(), READ)

    def close(self) -> None:
        """Accept what is left in the queue, and stop listening."""
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
        on_spare: whether it has a spare descriptor, and is to be answered with 503.
        closed: to be called when its stream is closed.
        scope: the cancel scope that has to enclose the task that serves it.
    """

    stream: trio.abc.Stream
    remote: Address
    local: Address
    on_spare: bool = False
    closed: Callable[[], None] = lambda: None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def flush_now(self) -> None:
        """Do nothing: so few are accepted at a time that each has been answered."""

    def abort(self) -> None:
        """Cancel the task that serves it."""
        self.scope.cancel(reason="its descriptor is needed")


class StreamListener(Acceptor[Accepted]):
    """A listening socket whose connections are Trio streams, each handed to `start`."""

    def __init__(
        self,
        listener: stdlib_socket.socket,
        tls: ssl_module.SSLContext | None,
        core: Core,
        start: Callable[[Accepted], None],
        *,
        shared: bool,
    ) -> None:
        super().__init__(listener, core, shared=shared)
        self._tls = tls
        self._start = start

    async def run(self) -> None:
        """Accept until cancelled; call `close` afterwards."""
        while True:
            await trio.lowlevel.wait_readable(self._listener)
            # Few at a time: each one starts a task, and its handshake timeout begins now.
            polite, most = self._politeness, _STREAMS_PER_TURN
            if polite is not None:
                most = min(most, polite.most(trio.current_time()))
            if not (most and self._accept(most)):
                await trio.sleep(_PAUSE_SECONDS if polite is None or most else polite.pause)
                if polite is not None:
                    polite.ask_again(trio.current_time())
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
        """Accept what is left in the queue, and stop listening."""
        try:
            self._accept_last()
        finally:
            self._close()
