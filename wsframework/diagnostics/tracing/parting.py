"""The end of TCP: which side sends FIN first, and the states of the kernel.

    the server first (as in RFC 6455 §7.1.1)           the client first
    ESTABLISHED  <- FIN   CLOSE_WAIT                    ESTABLISHED  -> FIN   FIN_WAIT1
                 -> FIN   LAST_ACK                                   <- ACK   FIN_WAIT2
                 <- ACK   CLOSED                                     <- FIN   TIME_WAIT

The side that sends FIN first ends in TIME_WAIT, and keeps the port for a minute (on Linux), so that no late
segment can reach a later connection (RFC 9293 §3.6).
"""

from __future__ import annotations

import socket as stdlib_socket
from collections.abc import Callable

import trio

from wsframework.diagnostics.kernel import read_kernel, read_state, time_wait_ends, watch_states
from wsframework.diagnostics.problems import Problem
from wsframework.diagnostics.reaching import Clock, Tell
from wsframework.diagnostics.tracing.channel import Channel, Ending
from wsframework.diagnostics.tracing.steps import Fin, Reset, TCPClosed, TLSClosed

__all__ = ["Parting"]

_SETTLE_SECONDS = 1.0
"""How long to wait for the acknowledgement of our FIN."""


class Parting:
    """The end of one connection.

    Args:
        channel: the connection.
        clock: gives the times of steps.
        tell: is called with each step.
        diagnose: is called with each problem.
    """

    def __init__(
        self, channel: Channel, clock: Clock, tell: Tell, diagnose: Callable[[Problem], None]
    ) -> None:
        self._channel = channel
        self._socket = channel.socket
        # Read now: a socket that was reset no longer has its addresses.
        self._local, self._remote = _addresses(channel.socket)
        self._clock = clock
        self._tell = tell
        self._diagnose = diagnose
        self._first: str | None = None

    async def part(self, ending: Ending | None, *, clean: bool, patience_seconds: float) -> None:
        """End the connection, and report each step.

        Args:
            ending: how the peer's bytes have ended, or None while they have not.
            clean: whether both Close frames crossed, so that the server has to send FIN first.
            patience_seconds: how long to wait for the server's FIN.
        """
        if clean and ending in (None, Ending.CLOSE_NOTIFY):
            ending = await self._wait_for_end(ending, patience_seconds)
            if ending is None:
                self._diagnose(
                    Problem(
                        "tcp.not_closed",
                        f"The server did not close TCP within {patience_seconds:g} s after the closing "
                        "handshake, as it should; the client did, and TIME_WAIT is on its side "
                        "(RFC 6455 §7.1.1).",
                        "warning",
                    )
                )
        elif ending is None and read_state(self._socket) == "CLOSE_WAIT":
            # The server's FIN is in the kernel already, behind bytes that were not read.
            ending = await self._wait_for_end(ending, patience_seconds)
        elif ending is Ending.CLOSE_NOTIFY:
            self._tell(TLSClosed(at=self._clock.now(), direction="received"))
        if ending is Ending.FIN:
            self._received_fin()
        if ending is not Ending.RESET:
            await self._send_fin(patience_seconds)
        if ending is None or ending is Ending.CLOSE_NOTIFY:
            ending = await self._wait_for_end(ending, patience_seconds)
            if ending is Ending.FIN:
                self._received_fin()
        self._finish(ending, clean)

    async def _wait_for_end(self, ending: Ending | None, seconds: float) -> Ending | None:
        """Read and drop what still comes, until it ends."""
        if ending is Ending.CLOSE_NOTIFY:
            self._tell(TLSClosed(at=self._clock.now(), direction="received"))
        with trio.move_on_after(seconds):
            while True:
                data = await self._channel.receive()
                if data is Ending.CLOSE_NOTIFY:
                    self._tell(TLSClosed(at=self._clock.now(), direction="received"))
                elif isinstance(data, Ending):
                    return data
        return None

    def _received_fin(self) -> None:
        state = read_state(self._socket)
        if state == "CLOSED" and "client" in (time_wait_ends(self._local, self._remote) or ()):
            # The kernel keeps the connection, without its socket, until TIME_WAIT is over.
            state = "TIME_WAIT"
        self._tell(
            Fin(
                at=self._clock.now(),
                direction="received",
                first=self._first is None,
                states=() if state is None else (state,),
            )
        )
        self._first = self._first or "server"

    async def _send_fin(self, seconds: float) -> None:
        with trio.move_on_after(seconds):  # a server that does not read takes no close_notify either
            if await self._channel.close_tls():
                self._tell(TLSClosed(at=self._clock.now(), direction="sent"))
        at, first = self._clock.now(), self._first is None
        self._first = self._first or "client"
        states = await watch_states(self._socket, self._channel.shut_down, _SETTLE_SECONDS)
        self._tell(Fin(at=at, direction="sent", first=first, states=states))

    def _finish(self, ending: Ending | None, clean: bool) -> None:
        if ending is Ending.RESET:
            self._tell(Reset(at=self._clock.now(), direction="received", state=read_state(self._socket)))
            self._diagnose(
                Problem(
                    "tcp.reset",
                    "The server ended TCP with RST instead of FIN, so data in flight is lost; a kernel sends "
                    "RST when a program closes a socket that has unread bytes "
                    "(RFC 6455 §7.1.1, RFC 1122 §4.2.2.13).",
                    "warning" if clean else "error",
                )
            )
        elif ending is None:
            self._diagnose(
                Problem(
                    "tcp.half_open",
                    "The server did not send FIN; the client closed the socket without it (RFC 9293 §3.6).",
                    "warning",
                )
            )
        how = {Ending.FIN: "fin", Ending.RESET: "reset"}.get(ending, "abandoned") if ending else "abandoned"
        self._tell(
            TCPClosed(
                at=self._clock.now(),
                how=how,
                first=self._first,
                time_wait=time_wait_ends(self._local, self._remote),
                kernel=read_kernel(self._socket),
            )
        )


def _addresses(socket: stdlib_socket.socket) -> tuple[tuple[str, int], tuple[str, int]]:
    """Return a connected socket's own address and its peer's, without what IPv6 adds to them."""
    local = socket.getsockname()[:2]
    try:
        return local, socket.getpeername()[:2]
    except OSError:  # the server has reset the connection already
        return local, local
