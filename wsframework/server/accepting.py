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
from wsframework.server.descriptors import (
    ABOUT_THE_PEER,
    OUT_OF_DESCRIPTORS,
    OUT_OF_RESOURCES,
    SpareDescriptors,
)
from wsframework.server.hub import hang_up
from wsframework.server.listeners import address_of

__all__ = ["PAUSE_SECONDS", "Accepted", "Acceptor", "StreamListener"]

PAUSE_SECONDS = 0.1
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
                await trio.sleep(PAUSE_SECONDS)
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
