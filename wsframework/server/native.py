"""The native server: accepts, reads the opening handshake, upgrades or answers, and stops gracefully.

Theory of operation
-------------------
    watch           one task, which the caller's cancellation reaches; it then stops the server
    infrastructure  shielded from that cancellation, and separate from all user code:
                    the hub (three tasks for all sockets that it can carry: plain TCP, TLS, unix), or one
                    accepting task a listener and a few tasks a connection where there is no hub; timers;
                    keepalive sweep
    user tasks      one a request, in nurseries of their own (see `tasks`): it decides, and then runs the
                    `Session`

The steps of a connection are TLS, the head, the decision, and then either an answer or a transport and a
`Session`. An exception of user code, or damage that it does to its task, ends that connection. An exception
of the infrastructure ends the server (see `lifetime`): connections are closed, and `run` raises it.

Stopping ends the accepting; `draining` does the rest.
"""

from __future__ import annotations

import functools
import socket as stdlib_socket
import ssl as ssl_module
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from typing import Literal

import trio

from wsframework.config import Keepalive, Limits, Timeouts
from wsframework.crashes import interrupt_in, unwrap_group
from wsframework.forwarded import Proxies
from wsframework.observer import Observer
from wsframework.records import interrupts_passed_to
from wsframework.server.accepting import Accepted, HubListener, StreamListener
from wsframework.server.core import Core
from wsframework.server.crowd import Crowd
from wsframework.server.draining import Drain
from wsframework.server.forks import serving_here
from wsframework.server.http import Head
from wsframework.server.hub import Hub
from wsframework.server.incoming import Incoming
from wsframework.server.listeners import address_of, unix_socket_file
from wsframework.server.pollers import Poller, hub_is_possible
from wsframework.server.requests import Requests
from wsframework.server.server import Server
from wsframework.session import Decide

__all__ = ["NativeServer", "TransportChoice"]

TransportChoice = Literal["auto", "hub", "stream"]
"""How bytes are moved: by the hub where the platform has one, or over Trio streams."""


_SWEEP_SECONDS = 0.002
"""How long quiet connections are checked before other tasks get their turn: to drop one takes 50 µs, and
thousands may have fallen silent in one moment."""

_PER_LOOK = 8
"""How many are checked between two looks at the clock."""


class NativeServer:
    """Runs a server; users get a `Server`.

    Args:
        decide: decides what a request gets.
        secure: whether requests come over TLS, or are to appear so.
        transport: how bytes are moved.
        observers: are told of events, after the log.
        poller: makes the hub's poller, in place of the platform's best one.
        crowd: the servers of other processes that accept from the same listeners.

    Attributes:
        core: what its parts share.
        requests: serves each request.
    """

    def __init__(
        self,
        decide: Decide,
        *,
        limits: Limits,
        timeouts: Timeouts,
        keepalive: Keepalive,
        proxies: Proxies | None = None,
        proxy_protocol: bool = False,
        secure: bool = False,
        transport: TransportChoice = "auto",
        observers: Iterable[Observer] = (),
        poller: Callable[[], Poller] | None = None,
        crowd: Crowd | None = None,
    ) -> None:
        self.core = Core(
            limits=limits,
            timeouts=timeouts,
            proxies=proxies,
            proxy_protocol=proxy_protocol,
            secure=secure,
            observers=observers,
            crowd=crowd,
        )
        self.requests = Requests(self.core, decide)
        self._keepalive = keepalive
        self._wants_hub = transport == "hub" or (transport == "auto" and hub_is_possible())
        self._poller = poller

    @trio.lowlevel.enable_ki_protection
    async def run(
        self,
        listeners: Sequence[stdlib_socket.socket],
        ssl: ssl_module.SSLContext | None,
        task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
        *,
        shared: bool = True,
    ) -> None:
        """Accept connections until cancelled or stopped, then drain; closes the listeners.

        Args:
            listeners: sockets that listen.
            ssl: the context to serve TLS with.
            shared: whether other processes may accept from them, and continue when this server stops.

        Raises:
            KeyboardInterrupt: one was raised in the server or in a handler; after the drain.
            BaseException: an internal error that ended the server; after all connections were closed.

        Cancellation:
            Starts the drain. It is over by `Timeouts.drain`, unless user code resists its cancellation (with
            a shield or a thread): then `run` waits for it, with every connection closed.
        """
        core, lifetime, tasks = self.core, self.core.lifetime, self.requests.tasks
        try:
            async with trio.open_nursery() as watching:
                with (
                    serving_here(),
                    interrupts_passed_to(lifetime.interrupt),
                    trio.CancelScope(shield=True),
                ):
                    async with trio.open_nursery() as holding:
                        try:
                            await holding.start(lifetime.run_vital, tasks.run)
                            await self._run(listeners, ssl, watching, task_status, shared=shared)
                        finally:
                            tasks.close()
                core.observer.server_stopped(core.admission.accepted)
                if core.presence is not None:
                    core.presence.end()
        except BaseException as error:
            # An error takes precedence over the cancellation. Groups are made by our nurseries.
            if lifetime.cause is None:
                raise interrupt_in(error) or unwrap_group(error) from None
        finally:
            lifetime.stopped.set()
        if lifetime.cause is not None:
            raise lifetime.cause

    async def _run(
        self,
        listeners: Sequence[stdlib_socket.socket],
        ssl: ssl_module.SSLContext | None,
        watching: trio.Nursery,
        task_status: trio.TaskStatus[Server],
        *,
        shared: bool,
    ) -> None:
        core, lifetime = self.core, self.core.lifetime
        hub = Hub(self._poller() if self._poller else None) if self._wants_hub and listeners else None
        drain = Drain(core, hub)
        addresses = tuple(address_of(listener.getsockname()) for listener in listeners)
        # The file of a shared socket belongs to who has bound it: others are reached by it.
        own_files = [address.host for address in addresses if address.port is None and not shared]
        socket_files = [unix_socket_file(path) for path in own_files]
        try:
            async with trio.open_nursery() as infrastructure:
                if listeners and _time_is_real():
                    # Memory streams have no kernel that could delay an answer.
                    core.timers.beating = True
                if core.timers.beating:
                    core.blocked_loop.watch()
                infrastructure.start_soon(lifetime.run_vital, core.timers.run)
                if self._keepalive.interval is not None:
                    infrastructure.start_soon(lifetime.run_vital, self._keep_alive)
                if hub is not None:
                    infrastructure.start_soon(lifetime.run_vital, hub.run)
                    close_listeners = self._listen_in_hub(listeners, ssl, hub, shared=shared)
                else:
                    close_listeners = self._listen(listeners, ssl, watching, infrastructure, shared=shared)
                watching.start_soon(self._watch_caller)
                core.observer.server_listening(addresses)
                if listeners:
                    core.admission.fit_descriptors()
                if core.presence is not None:
                    core.presence.begin(core.admission)
                task_status.started(Server(core, self.requests, addresses, infrastructure))
                try:
                    await lifetime.outlast_interrupts(lifetime.stopping.wait)
                finally:
                    watching.cancel_scope.cancel(reason="the server is stopping")
                    if core.presence is not None:
                        core.presence.drain()
                    # Now and not after the drain: by then they may be another server's.
                    for end in (*socket_files, *close_listeners):
                        try:
                            end()
                        except BaseException as error:
                            lifetime.fail(error)
                await drain.run()
                infrastructure.cancel_scope.cancel(reason="the server has stopped")
        finally:
            drain.end_what_is_left()
            core.blocked_loop.stop()
            if hub is not None:
                # HTTP answers whose clients linger, requests that were never answered.
                hub.close()

    async def _watch_caller(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.core.lifetime.stopping.set()

    def _listen_in_hub(
        self,
        listeners: Sequence[stdlib_socket.socket],
        ssl: ssl_module.SSLContext | None,
        hub: Hub,
        *,
        shared: bool,
    ) -> list[Callable[[], None]]:
        """Start to accept in the hub; return the functions that stop it and close each listener."""
        # What observers and log handlers set is in the context of the hub, and a task gets a copy of that in
        # which it is started: the next client's handler would find it.
        context, start = copy_context(), self.requests.start

        def on_head(incoming: Incoming, head: Head) -> None:
            context.copy().run(start, incoming, head)

        return [
            HubListener(listener, hub, self.core, on_head, ssl, shared=shared).close for listener in listeners
        ]

    def _listen(
        self,
        listeners: Sequence[stdlib_socket.socket],
        ssl: ssl_module.SSLContext | None,
        watching: trio.Nursery,
        infrastructure: trio.Nursery,
        *,
        shared: bool,
    ) -> list[Callable[[], None]]:
        """Start to accept streams; return the functions that stop it and close each listener."""
        run_vital = self.core.lifetime.run_vital

        def start(accepted: Accepted) -> None:
            infrastructure.start_soon(run_vital, functools.partial(self._serve_accepted, accepted))

        accepting = [StreamListener(listener, ssl, self.core, start, shared=shared) for listener in listeners]
        for listener in accepting:
            watching.start_soon(run_vital, listener.run)
        return [listener.close for listener in accepting]

    async def _serve_accepted(self, accepted: Accepted) -> None:
        prefaces = self.core.prefaces
        preface = None if prefaces is None else prefaces.begin()
        incoming = self.requests.over_stream(
            accepted.stream, accepted.remote, accepted.local, preface=preface
        )
        try:
            with accepted.scope:
                await incoming.serve(refuse=accepted.on_spare)
        finally:
            accepted.closed()

    async def _keep_alive(self) -> None:
        """Ping all quiet connections: one task for all of them."""
        keepalive, forgiven = self._keepalive, self.core.timers.forgiven
        assert keepalive.interval is not None
        # A ping may come a quarter late; a second keeps 5,000 connections below a tenth of a percent.
        period = min(keepalive.interval / 4, keepalive.timeout / 4, 1.0)
        while True:
            await trio.sleep(period)
            forgiven = self._forgive(forgiven)
            now, end = trio.current_time(), time.perf_counter() + _SWEEP_SECONDS
            for number, transport in enumerate(list(self.core.transports)):
                transport.check_alive(now, keepalive)
                if number % _PER_LOOK == 0 and time.perf_counter() > end:
                    await trio.lowlevel.checkpoint()
                    forgiven = self._forgive(forgiven)
                    now, end = trio.current_time(), time.perf_counter() + _SWEEP_SECONDS

    def _forgive(self, forgiven: float) -> float:
        """Forgive the time in which this process did not run, and return how much there was so far."""
        timers = self.core.timers
        timers.look()
        if more := timers.forgiven - forgiven:
            for transport in self.core.transports:
                transport.forgive(more)
        return timers.forgiven


def _time_is_real() -> bool:
    """Whether the clock follows real time: a test's clock may jump without a blocked loop."""
    clock = trio.lowlevel.current_clock()
    return 0.9 < clock.deadline_to_sleep_time(clock.current_time() + 1) < 1.1
