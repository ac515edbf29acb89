"""The native server: accepts, reads the opening handshake, upgrades or answers, and stops gracefully.

Theory of operation
-------------------
    watch           one task; feels the caller's cancellation and then calls `stop`
    infrastructure  shielded from that cancellation, and from every user's code:
                    the hub (three tasks for all sockets that it can carry: plain TCP, TLS, unix), or one
                    accepting task a listener and a few tasks a connection where there is no hub; timers;
                    keepalive sweep
    user tasks      one a request, in nurseries of their own (see `tasks`): it decides, and then runs the
                    `Session`

A connection goes through: TLS, head, decision, then either an answer or a transport and a `Session`. What a
user's code raises or does to its task ends that connection. What our own infrastructure raises ends the
server: `fail` closes every connection that can still be told, and `run` raises it. A server is whole or
gone.

Stopping, by cancellation, `stop` or a KeyboardInterrupt from anywhere, reaches nothing but the accepting.
Handshakes that are under way get a moment to finish. Then the drain: handlers see `ws.draining`, every client
gets Close 1001, at moments spread out so that the clients do not all come back at once, and what is left when
`Timeouts.drain` is over is aborted and cancelled.
"""

from __future__ import annotations

import functools
import logging
import random
import socket as stdlib_socket
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterable, Sequence
from threading import get_ident
from typing import Any, Literal

import attrs
import trio

from wsframework.closes import SHUTTING_DOWN, CloseFrame
from wsframework.config import Keepalive, Limits, Timeouts
from wsframework.connection import Connection
from wsframework.crashes import interrupt_in, split_cancelled, unwrap_group
from wsframework.endpoint import Endpoint
from wsframework.errors import WrongThread
from wsframework.observer import Observer
from wsframework.records import describe, record
from wsframework.request import Address, Response
from wsframework.server.accepting import Accepted, StreamListener
from wsframework.server.admission import Admission
from wsframework.server.blocking import LoopWatch
from wsframework.server.framing import FrameTransport
from wsframework.server.http import Head
from wsframework.server.hub import Hub
from wsframework.server.incoming import Incoming, ListenerPollee
from wsframework.server.listeners import address_of, unix_socket_file
from wsframework.server.observers import Observers
from wsframework.server.opening import Opening, consider, draining_response
from wsframework.server.pollers import Poller, hub_is_possible
from wsframework.server.streams import StreamIncoming
from wsframework.session import Decide, Session
from wsframework.tasks import GivenUp, UserTasks, begin_deciding, end_deciding
from wsframework.timers import BEAT_SECONDS, Timer, Timers

__all__ = ["Server", "ServerStatistics", "TransportChoice"]

TransportChoice = Literal["auto", "hub", "stream"]
"""How connections' bytes move: through the hub where the platform has one, or over Trio streams."""

_FAILED = CloseFrame(1011, "the server has failed")

_SETTLE_SECONDS = 1.0
"""How long handshakes that are under way may take to finish once accepting has stopped. Without it a rolling
restart on a shared listener lost 148 of 7,195 handshakes, with it none of 9,882."""

_SPREAD_CLOSES_PER_SECOND = 2000
"""How fast Close frames go out in a drain at the most: every client may come back at once, and each costs the
others of its server, or the next one, a handshake. A thousand clients and more take at least a second, fewer
proportionally less."""

_SPREAD_SHARE = 0.8
"""Of `Timeouts.drain`: the last client needs time to answer, and its handler to finish."""

_FRAME_DEPARTURE_SECONDS = 0.1
"""How long the last Close frames may take into the sockets' buffers."""

_BLOCKED_SECONDS = 0.5
"""A standstill of the event loop that is worth a record: a person notices it, and so does a ping."""


@attrs.frozen
class ServerStatistics:
    """A server's counters at one moment.

    Attributes:
        connections: open now, in their handshake, or with a handler in its grace.
        websockets: open now and upgraded.
        accepted: TCP (or unix) connections accepted since the start.
        refused: of those, closed because there were too many.
    """

    connections: int
    websockets: int
    accepted: int
    refused: int


class Server:
    """A server that listens; what `await nursery.start(app.serve)` returns.

    Attributes:
        addresses: where it listens.
        secure: whether it speaks TLS.
        trio_token: of the Trio run that it serves in: `trio.from_thread.run_sync(…,
            trio_token=server.trio_token)` is how other threads call `room.broadcast`, `ws.send_nowait` and
            `stop`.
    """

    trio_token: trio.lowlevel.TrioToken

    def __init__(
        self,
        decide: Decide,
        *,
        limits: Limits,
        timeouts: Timeouts,
        keepalive: Keepalive,
        secure: bool = False,
        transport: TransportChoice = "auto",
        observers: Iterable[Observer] = (),
        poller: Callable[[], Poller] | None = None,
    ) -> None:
        self.addresses: tuple[Address, ...] = ()
        self.secure = secure
        self.limits = limits
        self.timeouts = timeouts
        self.timers = Timers(on_blocked=self._blocked)
        self.observer = Observers(observers, self.timers, self.interrupt)
        self.admission = Admission(limits, self.timers, self.observer)
        self._hub: Hub | None = None
        self._make_hub: Callable[[], Hub] | None = None
        if transport == "hub" or (transport == "auto" and hub_is_possible()):
            self._make_hub = lambda: Hub(poller() if poller is not None else None)
        self._decide = decide
        self._keepalive = keepalive
        self._users = UserTasks()
        self._infrastructure: trio.Nursery | None = None
        self._transports: set[FrameTransport] = set()
        self._sessions: set[Session] = set()
        self._incoming: set[Incoming] = set()
        self._handshakes: dict[trio.CancelScope, Timer] = {}
        self._deciding: set[Incoming | StreamIncoming] = set()
        self._loop_watch: LoopWatch | None = None
        self._draining = False
        self._stopping = trio.Event()
        self._stopped = trio.Event()
        self._drain_limit = trio.CancelScope()
        self._interrupt: KeyboardInterrupt | None = None
        self._failure: BaseException | None = None
        self._thread: int | None = None
        self._shared = True

    @property
    def port(self) -> int:
        """The TCP port; the one that the system chose when it was asked for port 0.

        Raises:
            RuntimeError: the server listens on a unix socket.
        """
        for address in self.addresses:
            if address.port is not None:
                return address.port
        raise RuntimeError("this server listens on a unix socket, which has no port")

    @property
    def urls(self) -> tuple[str, ...]:
        """A ws:// or wss:// URL for each address that has one."""
        scheme = "wss" if self.secure else "ws"
        return tuple(f"{scheme}://{address}" for address in self.addresses if address.port is not None)

    @property
    def draining(self) -> bool:
        """True once the server has begun to stop."""
        return self._stopping.is_set()

    def statistics(self) -> ServerStatistics:
        """Return the server's counters."""
        counted = self.admission
        return ServerStatistics(counted.open, len(self._transports), counted.accepted, counted.refused)

    def stop(self) -> None:
        """Begin to stop, as cancelling the server's task does; a second call cuts the drain short.

        Raises:
            WrongThread: this is not the server's thread.
        """
        self._check_thread("server.stop")
        if self._stopping.is_set():
            self._drain_limit.cancel(reason="the server was told twice to stop")
        self._stopping.set()

    @property
    def stopped(self) -> bool:
        """True once every connection is closed and every handler has ended."""
        return self._stopped.is_set()

    async def wait_stopping(self) -> None:
        """Wait until the server begins to stop.

        Raises:
            WrongThread: this is not the server's thread.

        Cancellation: nothing is left behind.
        """
        self._check_thread("server.wait_stopping")
        await self._stopping.wait()

    async def wait_stopped(self) -> None:
        """Wait until every connection is closed and every handler has ended.

        Raises:
            WrongThread: this is not the server's thread.

        Cancellation: nothing is left behind.
        """
        self._check_thread("server.wait_stopped")
        await self._stopped.wait()

    def _check_thread(self, verb: str) -> None:
        # None before it runs: then it has no thread yet, and nothing of it could break.
        if self._thread is not None and get_ident() != self._thread:
            raise WrongThread(verb)

    # The server's life

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
            shared: whether other processes may accept from them, and go on when this server stops.

        Raises:
            KeyboardInterrupt: one was raised somewhere in the server, a handler included; after the drain.
            BaseException: a mistake of ours in what all connections stand on; after all of them were closed.

        Cancellation:
            Starts the drain. It is over by `Timeouts.drain`, unless a user's code holds its task against its
            cancellation (a shield, a thread): then `run` waits for it, with every connection closed.
        """
        self.trio_token = trio.lowlevel.current_trio_token()
        self._thread = get_ident()
        self._shared = shared
        self.addresses = tuple(address_of(listener.getsockname()) for listener in listeners)
        try:
            async with trio.open_nursery() as watching:
                with trio.CancelScope(shield=True):
                    async with trio.open_nursery() as holding:
                        try:
                            await holding.start(self._run_vital, self._users.run)
                            await self._run(listeners, ssl, watching, task_status)
                        finally:
                            self._users.close()
                self.observer.server_stopped(self.admission.accepted)
        except BaseException as error:
            # Cancellation says less than what has been going on here. Groups are made by our nurseries.
            if self._failure is None and self._interrupt is None:
                raise interrupt_in(error) or unwrap_group(error) from None
        finally:
            self._stopped.set()
        if self._failure is not None:
            raise self._failure
        if self._interrupt is not None:
            raise self._interrupt

    async def _run(
        self,
        listeners: Sequence[stdlib_socket.socket],
        ssl: ssl_module.SSLContext | None,
        watching: trio.Nursery,
        task_status: trio.TaskStatus[Server],
    ) -> None:
        socket_files = [unix_socket_file(address.host) for address in self.addresses if address.port is None]
        try:
            async with trio.open_nursery() as infrastructure:
                self._infrastructure = infrastructure
                if listeners and _time_is_real():
                    # In memory there is no kernel that could hold an answer back.
                    self.timers.beating = True
                if self.timers.beating:
                    self._loop_watch = LoopWatch(self.timers)
                infrastructure.start_soon(self._run_vital, self.timers.run)
                if self._keepalive.interval is not None:
                    infrastructure.start_soon(self._run_vital, self._keep_alive)
                close_listeners = self._listen(listeners, ssl, watching, infrastructure)
                watching.start_soon(self._watch_caller)
                self.observer.server_listening(self.addresses)
                if listeners:
                    self.admission.fit_descriptors()
                task_status.started(self)
                try:
                    await self._outlast_interrupts(self._stopping.wait)
                finally:
                    watching.cancel_scope.cancel(reason="the server is stopping")
                    # Now and not after the drain: by then they may be another server's.
                    for end in (*socket_files, *close_listeners):
                        try:
                            end()
                        except BaseException as error:
                            self.fail(error)
                await self._end_connections()
                infrastructure.cancel_scope.cancel(reason="the server has stopped")
        finally:
            self._end_what_is_left()
            if self._loop_watch is not None:
                self._loop_watch.stop()
            if self._hub is not None:
                # HTTP answers whose clients linger, requests that were never answered.
                self._hub.close()

    async def _watch_caller(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._stopping.set()

    async def _outlast_interrupts(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Wait; a Ctrl-C that Trio delivers here, in the main task, is a call of `stop`."""
        while True:
            try:
                await wait()
            except KeyboardInterrupt as interrupt:
                self._interrupt = self._interrupt or interrupt
                self.stop()
            else:
                return

    def interrupt(self, interrupt: KeyboardInterrupt) -> None:
        """Stop as for one signal, and raise this at the end: it is about the whole program.

        Code may raise it many times, once for each connection say. So it does not cut the drain short, as a
        second signal does.
        """
        self._interrupt = self._interrupt or interrupt
        self._stopping.set()

    # What all connections stand on

    @trio.lowlevel.enable_ki_protection
    async def _run_vital(
        self, function: Callable[..., Awaitable[object]], task_status: trio.TaskStatus[Any] | None = None
    ) -> None:
        """Run a part of the infrastructure; without it there is no server."""
        try:
            await (function() if task_status is None else function(task_status=task_status))
        except BaseException as error:
            cancelled, mistakes = split_cancelled(error)
            if mistakes is not None:
                self.fail(unwrap_group(mistakes))
            if cancelled is not None:
                raise cancelled from None

    def fail(self, error: BaseException) -> None:
        """Close every connection that can still be told, and end the server with this exception.

        Args:
            error: a mistake of ours that is not about a single connection.
        """
        if (interrupt := interrupt_in(error)) is not None:
            self.interrupt(interrupt)
        elif self._failure is None:
            self._failure = error
            self.observer.server_failed(error)
        self._stopping.set()
        # Without what has failed the drain cannot go on: it may be needed to wake the tasks that wait.
        self._drain_limit.cancel(reason="the server has failed")

    def _listen(
        self,
        listeners: Sequence[stdlib_socket.socket],
        ssl: ssl_module.SSLContext | None,
        watching: trio.Nursery,
        infrastructure: trio.Nursery,
    ) -> list[Callable[[], None]]:
        """Start to accept; return what stops it and closes each listener."""
        if self._make_hub is not None and listeners:
            hub = self._hub = self._make_hub()
            infrastructure.start_soon(self._run_vital, hub.run)
            pollees = [
                ListenerPollee(listener, hub, self, ssl, self._incoming, shared=self._shared)
                for listener in listeners
            ]
            return [pollee.close for pollee in pollees]

        def start(accepted: Accepted) -> None:
            infrastructure.start_soon(self._run_vital, functools.partial(self._serve_accepted, accepted))

        stream_listeners = [
            StreamListener(listener, ssl, self.admission, start, shared=self._shared)
            for listener in listeners
        ]
        for accepting in stream_listeners:
            watching.start_soon(self._run_vital, accepting.run)
        return [accepting.close for accepting in stream_listeners]

    async def _keep_alive(self) -> None:
        """Look after all quiet connections at once: one task, not one a connection."""
        keepalive = self._keepalive
        assert keepalive.interval is not None
        # A ping may come a quarter late; a second keeps 5,000 connections below a tenth of a percent.
        period = min(keepalive.interval / 4, keepalive.timeout / 4, 1.0)
        forgiven = self.timers.forgiven
        while True:
            await trio.sleep(period)
            self.timers.look()
            more, forgiven = self.timers.forgiven - forgiven, self.timers.forgiven
            now = trio.current_time()
            for transport in list(self._transports):
                if more:
                    transport.forgive(more)
                transport.check_alive(now, keepalive)

    def _blocked(self, seconds: float) -> None:
        """Tell of an event loop that stood still, and of who did it, if that was seen."""
        # Always, so that who did a shorter one is not named for the next.
        seen = None if self._loop_watch is None else self._loop_watch.take()
        # It began between the last beat and the one that is late, so on the average half a beat earlier.
        seconds += BEAT_SECONDS / 2
        if seconds < _BLOCKED_SECONDS:
            return
        function, stack = (None, None) if seen is None else (seen.function, seen.stack)
        self.observer.loop_blocked(seconds, function, stack)

    # One request

    def head_complete(self, incoming: Incoming | StreamIncoming, head: Head) -> None:
        """Decide about a request, and serve it, in a task of its own."""
        # Before the task runs: from here on the drain waits for it, and ends it when its time has come.
        self._deciding.add(incoming)
        try:
            self._users.start(self._serve_request, incoming, head)
        except BaseException as error:
            self.fail(error)  # no request could be served any more
            raise

    async def _serve_request(self, incoming: Incoming | StreamIncoming, head: Head) -> None:
        """Decide about a request; answer it, or upgrade and run the handler. Nothing is raised."""
        try:
            session = await self._open(incoming, head)
            if session is not None:
                # So the client knows that the connection is open even if the handler blocks the event loop.
                await incoming.answered()
            # An idle connection keeps what its task refers to.
            del incoming, head
            if session is not None:
                # Not through a helper: every coroutine on the way to the handler costs each connection 200
                # bytes.
                await session.run()
        except KeyboardInterrupt as interrupt:
            self.interrupt(interrupt)
        except BaseException as error:
            # A mistake of ours in the session. Its client must not wait for what will never come.
            assert session is not None  # `_open` has reported its own
            record(
                logging.ERROR,
                "connection.failed",
                exc_info=error,
                remote=session.remote,
                error=describe(error),
            )
            _contained(session.give_up)

    async def _open(self, incoming: Incoming | StreamIncoming, head: Head) -> Session | None:
        incoming.on_left = begin_deciding()
        try:
            opening: Opening | Response | None
            try:
                opening = await consider(
                    head,
                    self._decide,
                    secure=incoming.secure,
                    remote=incoming.remote,
                    local=incoming.local,
                    observer=self.observer,
                )
            except GivenUp:
                opening = None
            return self._proceed(incoming, head, opening)
        except BaseException as error:
            # A mistake of ours, or the program's end; it must not take the other connections along.
            interrupt = interrupt_in(error)
            if interrupt is None:
                record(
                    logging.ERROR,
                    "connection.failed",
                    exc_info=error,
                    remote=incoming.remote,
                    error=describe(error),
                )
            incoming.abort()
            if interrupt is not None:
                raise interrupt from None
            return None
        finally:
            end_deciding()
            self._deciding.discard(incoming)
            incoming.on_left = None

    @trio.lowlevel.enable_ki_protection
    def _proceed(
        self, incoming: Incoming | StreamIncoming, head: Head, opening: Opening | Response | None
    ) -> Session | None:
        """Do what was decided; None is no decision: the client has left, or the server's time is over."""
        if incoming.gone or opening is None:
            record(logging.DEBUG, "handshake.lost", remote=incoming.remote, error="the client has left")
            incoming.abort()
            return None
        if self._draining and isinstance(opening, Opening):
            opening = draining_response()
        if isinstance(opening, Response):
            self.observer.http_answered(incoming.remote, opening.status)
            incoming.answer(opening)
            return None
        remote = incoming.remote
        transport = incoming.upgrade(opening.codecs, lambda: self._transports.discard(transport))
        try:
            ws = Connection(
                transport, opening.request, subprotocol=opening.acceptance.subprotocol, limits=self.limits
            )
            transport.endpoint = ws.endpoint
            transport.write_raw(opening.answer)
            self._transports.add(transport)
            session = Session(
                ws,
                opening.acceptance,
                timers=self.timers,
                timeouts=self.timeouts,
                observer=self.observer,
                on_over=self._session_over,
            )
            self._sessions.add(session)
            incoming.hand_over()
        except BaseException:
            self.admission.depart(remote)
            raise
        return session

    def _session_over(self, session: Session) -> None:
        self._sessions.discard(session)
        self.admission.depart(session.remote)

    # Connections over Trio streams

    def serve_soon(self, stream: trio.abc.Stream, remote: Address, local: Address) -> None:
        """Serve one more connection, beside those that are accepted, in a task of the server's; do not wait.

        Args:
            stream: both directions of bytes, whatever carries them; the server closes it.
            remote: what handlers shall see as the peer's address.
            local: what they shall see as ours.

        Raises:
            RuntimeError: the server does not run yet, or has begun to stop.
            WrongThread: this is not the server's thread.
        """
        self._check_thread("server.serve_soon")
        if self._infrastructure is None or self._stopping.is_set():
            raise RuntimeError("this server does not run, so it can serve no stream")
        serve = StreamIncoming(stream, remote, local, self).serve
        self._infrastructure.start_soon(self._run_vital, serve)

    async def _serve_accepted(self, accepted: Accepted) -> None:
        incoming = StreamIncoming(accepted.stream, accepted.remote, accepted.local, self)
        try:
            with accepted.scope:
                await incoming.serve(refuse=accepted.on_spare)
        finally:
            accepted.closed()

    def begin_handshake(self) -> trio.CancelScope:
        """Return a scope for reading a head over a stream; the drain cancels it."""
        scope = trio.CancelScope()
        # Not the scope's own deadline: time in which this process did not run is forgiven.
        self._handshakes[scope] = self.timers.after(self.timeouts.handshake, scope.cancel)
        return scope

    def end_handshake(self, scope: trio.CancelScope) -> None:
        """The head was read, or will not be."""
        self._handshakes.pop(scope).cancel()

    # The end

    async def _end_connections(self) -> None:
        """Close every connection and wait for the handlers, up to `Timeouts.drain`."""
        self._drain_limit.deadline = trio.current_time() + self.timeouts.drain
        # A mistake in here is a failure like any other.
        if self._failure is None:
            await self._run_vital(self._drain_connections)
        if self._failure is not None:
            await self._run_vital(self._give_up)
        elif self.admission.open:
            await self._run_vital(self._cut_short)

    async def _drain_connections(self) -> None:
        with self._drain_limit:
            await self._outlast_interrupts(self._settle)
            self._drain()
            await self._outlast_interrupts(self.admission.wait_empty)

    async def _cut_short(self) -> None:
        self._drain()
        record(
            logging.WARNING,
            "server.drain_timeout",
            connections=self.admission.open,
            handlers=len(self._sessions),
        )
        await self._say_goodbye(SHUTTING_DOWN)

    def _end_what_is_left(self) -> None:
        for session in list(self._sessions):
            _contained(session.cancel)
        for deciding in list(self._deciding):
            if deciding.on_left is not None:
                _contained(deciding.on_left)
        for transport in list(self._transports):
            _contained(functools.partial(transport.abort, "the time to drain was over"))

    async def _settle(self) -> None:
        """Let handshakes that are under way finish: their clients have come before we said that we stop."""
        until = trio.current_time() + min(_SETTLE_SECONDS, self.timeouts.drain / 2)
        while trio.current_time() < until:
            if not (self._incoming or self._handshakes or self._deciding):
                return
            await trio.sleep(0.01)

    def _drain(self) -> None:
        """Begin the drain, unless it has begun: no more upgrades, and Close 1001 to every client in its
        time."""
        if self._draining:
            return
        self._draining = True
        self.observer.server_draining(self.admission.open)
        for scope in list(self._handshakes):
            scope.cancel(reason="the server is shutting down")
        for incoming in list(self._incoming):
            _contained(incoming.drain)
        spread = spread_seconds(len(self._transports), self.timeouts.drain)
        for transport in list(self._transports):
            endpoint = transport.endpoint
            if isinstance(endpoint, Endpoint):
                endpoint.drain()
                self.timers.after(random.uniform(0, spread), _closer(endpoint))

    async def _say_goodbye(self, frame: CloseFrame) -> None:
        """Close at once whatever was still to be closed, without counting on the hub's tasks or on timers."""
        for transport in list(self._transports):
            if isinstance(endpoint := transport.endpoint, Endpoint):
                _contained(functools.partial(endpoint.start_close, frame, frame.reason))
        if self._hub is not None:
            _contained(self._hub.flush_now)
        if any(transport.outbox_bytes for transport in self._transports):
            await self._outlast_interrupts(_let_frames_depart)
            if self._hub is not None:
                _contained(self._hub.flush_now)

    async def _give_up(self) -> None:
        """Tell all clients that can be told that the server has failed, and give handlers the rest of the
        drain's time."""
        self._draining = True
        for scope in list(self._handshakes):
            scope.cancel(reason="the server has failed")
        for incoming in list(self._incoming):
            _contained(incoming.drain)
        for transport in list(self._transports):
            if isinstance(endpoint := transport.endpoint, Endpoint):
                _contained(endpoint.drain)
        await self._say_goodbye(_FAILED)
        # Time for the frames to arrive: no task may be left that reads the answers, and closing a socket with
        # unread bytes destroys what is on its way.
        await self._outlast_interrupts(_let_frames_depart)
        for transport in list(self._transports):
            _contained(functools.partial(transport.abort, "the server has failed"))
        with trio.CancelScope(deadline=self._drain_limit.deadline):
            await self._outlast_interrupts(self.admission.wait_empty)


def spread_seconds(clients: int, drain: float) -> float:
    """Return over how many seconds the Close frames of a drain are spread."""
    return min(max(min(1.0, clients / 1000), clients / _SPREAD_CLOSES_PER_SECOND), _SPREAD_SHARE * drain)


async def _let_frames_depart() -> None:
    await trio.sleep(_FRAME_DEPARTURE_SECONDS)


def _time_is_real() -> bool:
    """Whether the clock's seconds are those that pass: a test's clock may jump, and nothing was held up."""
    clock = trio.lowlevel.current_clock()
    return 0.9 < clock.deadline_to_sleep_time(clock.current_time() + 1) < 1.1


def _closer(endpoint: Endpoint) -> Callable[[], None]:
    return lambda: endpoint.start_close(SHUTTING_DOWN, SHUTTING_DOWN.reason)


def _contained(function: Callable[[], object]) -> None:
    """Call what must not keep the others from being called."""
    try:
        function()
    except BaseException as error:  # a mistake of ours: user code runs elsewhere, Ctrl-C is held back
        record(logging.ERROR, "connection.failed", exc_info=error, error=describe(error))
