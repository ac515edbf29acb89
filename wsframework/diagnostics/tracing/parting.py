"""The end of TCP: who sends FIN first, and what the kernel makes of it.

    the server first (as RFC 6455 §7.1.1 wants it)     we first
    ESTABLISHED  <- FIN   CLOSE_WAIT                    ESTABLISHED  -> FIN   FIN_WAIT1
                 -> FIN   LAST_ACK                                   <- ACK   FIN_WAIT2
                 <- ACK   CLOSED                                     <- FIN   TIME_WAIT

Whoever sends FIN first ends in TIME_WAIT, and keeps the port for a minute (Linux) so that no late segment can
reach a later connection (RFC 9293 §3.6).
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from wsframework.diagnostics.kernel import read_kernel, read_state, time_wait_ends, watch_states
from wsframework.diagnostics.problems import Problem
from wsframework.diagnostics.reaching import Clock, Tell
from wsframework.diagnostics.tracing.channel import Channel, Ending
from wsframework.diagnostics.tracing.steps import Fin, Reset, TCPClosed, TLSClosed

__all__ = ["Parting"]

_SETTLE_SECONDS = 1.0
"""How long the peer's kernel may take to acknowledge our FIN."""


class Parting:
    """The end of one connection.

    Args:
        channel: whose.
        clock: what steps are timed with.
        tell: gets each step.
        diagnose: gets each problem.
    """

    def __init__(
        self, channel: Channel, clock: Clock, tell: Tell, diagnose: Callable[[Problem], None]
    ) -> None:
        self._channel = channel
        self._socket = channel.socket
        # A connection that was reset has forgotten them.
        self._local = self._socket.getsockname()[:2]
        self._remote = self._socket.getpeername()[:2]
        self._clock = clock
        self._tell = tell
        self._diagnose = diagnose
        self._first: str | None = None

    async def part(self, ending: Ending | None, *, clean: bool, patience_seconds: float) -> None:
        """End the connection and tell how that went.

        Args:
            ending: how the peer's bytes have ended already, if they have.
            clean: whether both Close frames crossed, so that it is the server's turn to send FIN.
            patience_seconds: how long to wait for its FIN.
        """
        if clean and ending in (None, Ending.CLOSE_NOTIFY):
            ending = await self._wait_for_end(ending, patience_seconds)
            if ending is None:
                self._diagnose(
                    Problem(
                        "tcp.not_closed",
                        f"The server has not closed TCP within {patience_seconds:g} s after the closing "
                        "handshake, which is its part; so we do, and TIME_WAIT is ours (RFC 6455 §7.1.1).",
                        "warning",
                    )
                )
        elif ending is None and read_state(self._socket) == "CLOSE_WAIT":
            # Its FIN is in the kernel already, behind bytes that nobody wanted.
            ending = await self._wait_for_end(ending, patience_seconds)
        elif ending is Ending.CLOSE_NOTIFY:
            self._tell(TLSClosed(at=self._clock.now(), direction="received"))
        if ending is Ending.FIN:
            self._received_fin()
        if ending is not Ending.RESET:
            await self._send_fin()
        if ending is None or ending is Ending.CLOSE_NOTIFY:
            ending = await self._wait_for_end(ending, patience_seconds)
            if ending is Ending.FIN:
                self._received_fin()
        self._finish(ending, clean)

    async def _wait_for_end(self, ending: Ending | None, seconds: float) -> Ending | None:
        """Read and drop what still comes, up to the end of it."""
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
            # The kernel has taken the connection from the socket to wait out its time.
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

    async def _send_fin(self) -> None:
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
                    "The server ended TCP with RST instead of FIN, and RST throws away what is still on its "
                    "way; a kernel does that when its program closes a socket with unread bytes "
                    "(RFC 6455 §7.1.1, RFC 1122 §4.2.2.13).",
                    "warning" if clean else "error",
                )
            )
        elif ending is None:
            self._diagnose(
                Problem(
                    "tcp.half_open",
                    "The server has not ended its half of TCP; we leave without its FIN (RFC 9293 §3.6).",
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
