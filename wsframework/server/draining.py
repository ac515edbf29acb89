"""How a server stops within `Timeouts.drain`: handshakes finish, clients get Close frames, handlers end.

    settle      connections between two requests are closed; handshakes in progress get a moment to finish
    drain       handlers see `ws.draining`; every client gets Close 1001, or 1012 in a restart, spread
                over time so that the clients do not all reconnect at once
    cut short   the time is over, or `stop` was called twice: every client gets its Close at once
    give up     the server has failed: every client that can be reached gets Close 1011

What is left after that is aborted and cancelled.
"""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Callable

import trio

from wsframework.closes import CloseFrame
from wsframework.endpoint import Endpoint
from wsframework.records import record, record_failure
from wsframework.server.core import Core
from wsframework.server.hub import Hub

__all__ = ["Drain", "contained", "spread_seconds"]

SETTLE_SECONDS = 1.0
"""How long handshakes in progress may take to finish once accepting has stopped. Without this time a rolling
restart on a shared listener lost 148 of 7,195 handshakes, and with it none of 9,882."""

_FAILED = CloseFrame(1011, "the server has failed")

_SPREAD_CLOSES_PER_SECOND = 2000
"""The highest rate of Close frames in a drain. Each client may reconnect at once, and its next server then
spends a handshake on it."""

_SPREAD_SHARE = 0.8
"""The share of `Timeouts.drain` for this: the last client needs time to answer, and its handler to finish."""

_FRAME_DEPARTURE_SECONDS = 0.1
"""How long to wait until the last Close frames are in the sockets' buffers."""


class Drain:
    """The end of one server's connections.

    Args:
        core: the server's.
        hub: the server's hub, or None where it has none.
    """

    def __init__(self, core: Core, hub: Hub | None) -> None:
        self._core = core
        self._hub = hub

    async def run(self) -> None:
        """Close every connection and wait for the handlers, up to `Timeouts.drain`.

        Cancellation: must not be cancelled.
        """
        lifetime = self._core.lifetime
        lifetime.drain_limit.deadline = trio.current_time() + self._core.timeouts.drain
        # A bug in this method is a failure of the server.
        if lifetime.failure is None:
            await lifetime.run_vital(self._drain)
        if lifetime.failure is not None:
            await lifetime.run_vital(self._give_up)
        elif self._core.admission.open:
            await lifetime.run_vital(self._cut_short)

    def end_what_is_left(self) -> None:
        """Cancel the handlers and decisions that are left, and abort their connections."""
        for session in list(self._core.sessions):
            contained(session.cancel)
        self._end_decisions()
        for deciding in list(self._core.deciding):
            # Code that resists its cancellation, or has left its task, does not keep the connection.
            contained(deciding.abandon)
        for running in list(self._core.streamed):
            contained(running.abandon)
        self._abort_all("the time to drain was over")

    async def _drain(self) -> None:
        lifetime = self._core.lifetime
        with lifetime.drain_limit:
            await lifetime.outlast_interrupts(self._settle)
            self._begin()
            await lifetime.outlast_interrupts(self._core.admission.wait_empty)

    async def _settle(self) -> None:
        """Let handshakes in progress finish: their clients came before the server began to stop."""
        core = self._core
        for idle in list(core.idle):
            contained(idle.end)
        until = trio.current_time() + min(SETTLE_SECONDS, core.timeouts.drain / 2)
        while trio.current_time() < until:
            if not (core.waiting or core.handshakes or core.deciding):
                return
            await trio.sleep(0.01)

    def _begin(self) -> None:
        """Begin the drain, unless it has begun: no more upgrades, and every client gets its Close."""
        core = self._core
        if core.draining:
            return
        core.draining = True
        core.observer.server_draining(core.admission.open)
        self._end_handshakes("the server is shutting down")
        spread = spread_seconds(len(core.transports), core.timeouts.drain)
        for endpoint in self._endpoints():
            endpoint.drain()
            core.timers.after(random.uniform(0, spread), _closer(endpoint, core.lifetime.close_frame))

    async def _cut_short(self) -> None:
        self._begin()
        record(
            logging.WARNING,
            "server.drain_timeout",
            connections=self._core.admission.open,
            handlers=len(self._core.sessions),
        )
        self._end_decisions()
        await self._close_all(self._core.lifetime.close_frame)

    async def _give_up(self) -> None:
        """Send Close 1011 to every client that can be reached; handlers get the rest of the drain's time."""
        core, lifetime = self._core, self._core.lifetime
        core.draining = True
        self._end_handshakes("the server has failed")
        for endpoint in self._endpoints():
            contained(endpoint.drain)
        await self._close_all(_FAILED)
        # Time for the frames to arrive: no task may be left that reads the answers, and closing a socket with
        # unread bytes destroys what is on its way.
        await lifetime.outlast_interrupts(_let_frames_depart)
        self._abort_all("the server has failed")
        with trio.CancelScope(deadline=lifetime.drain_limit.deadline):
            await lifetime.outlast_interrupts(core.admission.wait_empty)

    # Its steps

    def _end_handshakes(self, reason: str) -> None:
        """Answer the clients whose request is not complete."""
        for scope in list(self._core.handshakes):
            scope.cancel(reason=reason)
        for waiting in list(self._core.waiting):
            contained(waiting.drain)

    def _end_decisions(self) -> None:
        """Cancel guards, HTTP handlers and mounted applications: a task that obeys answers with 503."""
        for deciding in list(self._core.deciding):
            if deciding.on_left is not None:
                contained(deciding.on_left)
        for running in list(self._core.streamed):
            contained(running.cancel)

    async def _close_all(self, frame: CloseFrame) -> None:
        """Close all connections that are left at once, without the tasks of the hub and without timers."""
        for endpoint in self._endpoints():
            contained(functools.partial(endpoint.start_close, frame, frame.reason))
        self._flush()
        if (
            self._core.deciding
            or self._core.streamed
            or any(transport.outbox_bytes for transport in self._core.transports)
        ):
            await self._core.lifetime.outlast_interrupts(_let_frames_depart)
            self._flush()

    def _flush(self) -> None:
        if self._hub is not None:
            contained(self._hub.flush_now)

    def _abort_all(self, cause: str) -> None:
        for transport in list(self._core.transports):
            contained(functools.partial(transport.abort, cause))

    def _endpoints(self) -> list[Endpoint]:
        endpoints = (transport.endpoint for transport in self._core.transports)
        return [endpoint for endpoint in endpoints if isinstance(endpoint, Endpoint)]


def spread_seconds(clients: int, drain: float) -> float:
    """Return over how many seconds the Close frames of a drain are spread."""
    return min(max(min(1.0, clients / 1000), clients / _SPREAD_CLOSES_PER_SECOND), _SPREAD_SHARE * drain)


def contained(function: Callable[[], object]) -> None:
    """Call a function; if it raises, log the exception and continue."""
    try:
        function()
    except BaseException as error:  # a bug: user code runs elsewhere, and Ctrl-C is held back
        record_failure(error)


async def _let_frames_depart() -> None:
    await trio.sleep(_FRAME_DEPARTURE_SECONDS)


def _closer(endpoint: Endpoint, frame: CloseFrame) -> Callable[[], None]:
    return lambda: endpoint.start_close(frame, frame.reason)
