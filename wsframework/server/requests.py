"""One request, from its complete head to the end of its handler, in a task of its own.

The task decides, and then answers, has a mounted application answer (`Answering`), or upgrades and runs the
`Session`. It runs user code, so an exception of the task ends this connection only. If that code resists the
end of its time, the client gets its answer from here, and the task goes on and counts as a connection.
"""

from __future__ import annotations

import logging

import trio

from wsframework.connection import Connection
from wsframework.crashes import interrupt_in, is_of_the_code
from wsframework.forwarded import Proxies
from wsframework.mounting import MountedAcceptance
from wsframework.records import record, record_failure
from wsframework.request import Address, Response
from wsframework.server.answering import Answering
from wsframework.server.bodies import HTTPBody
from wsframework.server.core import Core
from wsframework.server.draining import contained
from wsframework.server.http import Head, is_persistent
from wsframework.server.incoming import Incoming
from wsframework.server.opening import (
    Circumstances,
    Opening,
    consider,
    crowded_response,
    draining_response,
    late_response,
    mistake_response,
)
from wsframework.server.prefaces import Preface
from wsframework.server.streams import StreamIncoming
from wsframework.session import Decide, Refusal, Session
from wsframework.streamed import Streamed
from wsframework.tasks import GivenUp, UserTasks, begin_deciding, end_deciding, is_late
from wsframework.wire import is_upgrade

__all__ = ["Requests"]

_LOOK_SECONDS = 1.0
"""How often code is looked for that takes too long, while the application decides about requests."""

_LATE_SECONDS = 1.0
"""How long after its limit code is given to end. It is cancelled then, and most code ends at once."""


class Requests:
    """Serves the requests of one server.

    Args:
        core: the server's.
        decide: decides what a request gets.

    Attributes:
        tasks: runs the tasks of requests.
    """

    def __init__(self, core: Core, decide: Decide) -> None:
        self.tasks = UserTasks()
        self._core = core
        self._decide = decide
        self._late: dict[Incoming | StreamIncoming, Address] = {}
        self._looking = False

    def over_stream(
        self,
        stream: trio.abc.Stream,
        remote: Address,
        local: Address,
        received: bytes = b"",
        preface: Preface | None = None,
    ) -> StreamIncoming:
        """Return a connection over a Trio stream; `serve` serves it.

        Args:
            stream: both directions of bytes; it is closed at the end.
            remote: the peer's address, for the application.
            local: the server's address, for the application.
            received: bytes that were read from the stream already.
            preface: reads what comes before TLS and the request.
        """
        return StreamIncoming(stream, remote, local, self._core, self.start, received, preface)

    def start(self, incoming: Incoming | StreamIncoming, head: Head) -> None:
        """Start a task that decides about a request and serves it."""
        proxies = self._core.proxies
        if proxies is not None and not self._identify(proxies, incoming, head):
            return
        if head.body_bytes != 0:
            incoming.body = HTTPBody(
                head,
                max_bytes=self._core.limits.body_bytes,
                standstill=self._core.timeouts.body,
                timers=self._core.timers,
                on_wanted=incoming.want_body,
            )
        # Before the task runs: from here on the drain waits for it, and ends it when the time is over.
        self._core.deciding[incoming] = None
        self._look_soon()
        try:
            self.tasks.start(self._serve, incoming, head)
        except BaseException as error:
            self._core.lifetime.fail(error)  # no request can be served without it
            raise

    def _identify(self, proxies: Proxies, incoming: Incoming | StreamIncoming, head: Head) -> bool:
        """Find the client behind a trusted proxy; refuse it if it has too many connections."""
        peer, announced = incoming.remote, incoming.client
        # A proxy that passes on bytes passes on what its client has written into these fields.
        if not proxies.trusts(peer) or (announced is not None and announced.local):
            return True
        secure = incoming.secure if announced is None else announced.secure
        client = proxies.client_of(peer, head.headers, secure=secure)
        if not self._core.admission.identify(client.remote):
            incoming.answer(crowded_response())
            return False
        incoming.forwarded(client)
        record(logging.DEBUG, "request.forwarded", remote=client.remote, proxy=peer, secure=client.secure)
        return True

    async def _serve(self, incoming: Incoming | StreamIncoming, head: Head) -> None:
        """Decide about a request; answer it, or upgrade and run the handler. It raises nothing."""
        session: Session | Answering | None = None
        try:
            session = await self._open(incoming, head)
            if type(session) is Session:
                # So the client knows that the connection is open even if the handler blocks the event loop.
                await incoming.answered()
            # An idle connection keeps what its task refers to.
            del incoming, head
            if session is not None:
                # Not through a helper: every coroutine on the way to the handler costs each connection 200
                # bytes.
                await session.run()
        except KeyboardInterrupt as interrupt:
            self._core.lifetime.interrupt(interrupt)
            if session is not None:
                contained(session.leave)
        except BaseException as error:
            # A bug in the session. Its client must not wait without end.
            assert session is not None  # `_open` has reported its own
            record_failure(error, remote=session.remote)
            contained(session.give_up)

    async def _open(self, incoming: Incoming | StreamIncoming, head: Head) -> Session | Answering | None:
        opening: Opening | Response | Streamed | None = None
        session: Session | Answering | None = None
        try:
            opening = await self._consider(incoming, head)
            if incoming in self._late:
                if isinstance(opening, Opening) and not isinstance(opening.acceptance, Refusal):
                    self._core.observer.handshake_refused(incoming.remote, 503, "", opening.request)
                return None
            # After the answer, the same connection may have the next request.
            session = self._proceed(incoming, head, opening)
            return session
        except BaseException as error:
            # A bug, or the program's end. It must not end the other connections.
            interrupt = interrupt_in(error)
            if interrupt is None:
                record_failure(error, remote=incoming.remote)
            if incoming not in self._late:
                incoming.abort()
            if interrupt is not None:
                raise interrupt from None
            return None
        finally:
            if incoming in self._late:
                self._core.admission.depart(self._late.pop(incoming))
            if session is None and isinstance(opening, Opening):
                acceptance = opening.acceptance
                if isinstance(acceptance, MountedAcceptance):
                    contained(acceptance.on_dropped)

    # Code that resists its cancellation

    def _look_soon(self) -> None:
        if not self._looking:
            self._looking = True
            self._core.timers.after(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Answer for code whose time has been over for a while: it shields itself, or waits for a thread."""
        self._looking = False
        deciding = self._core.deciding
        if deciding:
            self._look_soon()
        for incoming, task in list(deciding.items()):
            if task is None or not is_late(task, _LATE_SECONDS):
                continue
            assert isinstance(incoming, Incoming | StreamIncoming)
            if not incoming.gone:
                del deciding[incoming]
                self._answer_late(incoming, task)

    def _answer_late(self, incoming: Incoming | StreamIncoming, task: trio.lowlevel.Task) -> None:
        # The code counts until it ends: otherwise clients could start any amount of it.
        self._late[incoming] = incoming.remote
        self._core.admission.linger(incoming.remote)
        end_deciding(task)
        incoming.on_left = None
        record(
            logging.WARNING,
            "request.overdue",
            remote=incoming.remote,
            hint="its guard or handler resists its cancellation: it waits for a thread, or shields itself",
        )
        self._core.observer.http_answered(incoming.remote, 503)
        incoming.answer(late_response())
        if incoming.body is not None:
            incoming.body.fail(503, "the time for an answer was over")

    async def _consider(
        self, incoming: Incoming | StreamIncoming, head: Head
    ) -> Opening | Response | Streamed | None:
        """Have the application decide; None means that the client has left."""
        incoming.on_left = begin_deciding()
        self._core.deciding[incoming] = task = trio.lowlevel.current_task()
        if incoming.body is not None:
            incoming.body.decided_by = task
        try:
            circumstances = Circumstances(
                incoming.secure,
                incoming.remote,
                incoming.local,
                incoming.tls,
                incoming.client,
                incoming.body,
            )
            return await consider(head, circumstances, self._decide, self._core.observer)
        except GivenUp:
            # The client has left, or the time to drain is over; then it waits for an answer.
            return draining_response() if self._core.draining and not incoming.gone else None
        except BaseException as error:
            if not is_of_the_code(error):
                raise
            # Perhaps an `Accept` whose fields were changed, so that no head can be made of them.
            record_failure(error, remote=incoming.remote)
            return mistake_response()
        finally:
            end_deciding()
            self._core.deciding.pop(incoming, None)
            incoming.on_left = None

    @trio.lowlevel.enable_ki_protection
    def _proceed(
        self, incoming: Incoming | StreamIncoming, head: Head, opening: Opening | Response | Streamed | None
    ) -> Session | Answering | None:
        """Carry out a decision; return what runs the connection, or an answer that takes time."""
        core, remote = self._core, incoming.remote
        if incoming.gone or opening is None:
            record(logging.DEBUG, "handshake.lost", remote=remote, error="the client has left")
            incoming.abort()
            return None
        if core.draining and isinstance(opening, Opening):
            if not isinstance(opening.acceptance, Refusal):
                core.observer.handshake_refused(remote, 503, "", opening.request)
            opening = draining_response()
        if isinstance(opening, Response):
            try:
                status = opening.status  # a user's class may compute it, and fail the next time
                incoming.answer(opening, persist=self._may_persist(head, opening))
            except BaseException as error:  # of a user's class, and not what it should be
                if not is_of_the_code(error):
                    raise
                record_failure(error, remote=remote)
                opening = mistake_response()
                status = opening.status
                incoming.answer(opening)
            core.observer.http_answered(remote, status)
            return None
        if not isinstance(opening, Opening):
            return Answering(core, incoming, head, opening, persist=self._may_persist(head))
        limits = opening.acceptance.limits or core.limits
        timeouts = opening.acceptance.timeouts or core.timeouts
        transport = incoming.upgrade(
            opening.codecs, lambda: core.transports.discard(transport), limits=limits, timeouts=timeouts
        )
        session: Session | None = None
        try:
            ws = Connection(
                transport,
                opening.request,
                subprotocol=opening.acceptance.subprotocol,
                compression=opening.compression,
                limits=limits,
            )
            transport.endpoint = ws.endpoint
            transport.write_raw(opening.answer)
            core.transports.add(transport)
            session = Session(
                ws,
                opening.acceptance,
                timers=core.timers,
                timeouts=timeouts,
                observer=core.observer,
                on_over=self._over,
            )
            core.sessions.add(session)
            incoming.hand_over()
        except BaseException:
            core.admission.depart(remote)
            if session is not None:
                core.sessions.discard(session)
            raise
        return session

    def _may_persist(self, head: Head, response: Response | None = None) -> bool:
        """Whether a connection may go on after an answer. After a refused handshake it does not."""
        core = self._core
        if not core.timeouts.keep_alive or core.lifetime.stopping.is_set():
            return False
        return is_persistent(head, response) and not is_upgrade(head.headers)

    def _over(self, session: Session) -> None:
        self._core.sessions.discard(session)
        self._core.admission.depart(session.remote)
