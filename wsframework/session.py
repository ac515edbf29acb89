"""One connection's life: its nursery, its handler, and the Close frame that follows the handler's end.

Theory of operation
-------------------
    nursery (ws.nursery)   cancelled the moment the connection ends; children are the user's tasks. Shielded
                           from the task's own nursery as soon as it has any
    └─ scope, shielded     the handler; cancelled `disconnect_grace` after the connection ended, or by a
       └─ handler(ws)      child's exception

The handler is shielded from the nursery of its children, because the children end *with* the connection, and
the handler may still finish its work, such as leaving a room. The handler is cancelled only by an explicit
`scope.cancel` in this module, which gives the reason. When a host is cancelled, it drains and ends the
connection; its cancellation does not reach the handler in another way.

The shield also hides a child's exception from the handler. Therefore the first use of `ws.nursery` starts a
guard task beside the children, which cancels the handler when the nursery is cancelled. It does not do so
once the connection is closing: a child that gets `ConnectionClosed` must not cut the handler's work short.

An exception of the handler, `BaseException`s included, ends this connection only. KeyboardInterrupt alone is
raised by `run`, because it concerns the program. A handler may leave its task in a state in which no wait
works any more, so the end is handled by plain calls that do not wait. A session is over when the handler has
ended and the connection is closed, in either order.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import attrs
import trio

from wsframework.closes import CloseFrame, check_close
from wsframework.config import Deflate, Limits, Timeouts
from wsframework.connection import Connection
from wsframework.crashes import (
    forget_earlier_frames,
    forget_frames,
    interrupt_in,
    is_a,
    leaves,
    split,
    unwrap_group,
)
from wsframework.errors import Close, ConnectionClosed, RoomUnavailable, SessionUnavailable, Unavailable
from wsframework.observer import Observer
from wsframework.records import record, record_failure
from wsframework.request import Address, Request, Response
from wsframework.streamed import Streamed
from wsframework.timers import Timer, Timers

__all__ = ["MISTAKE", "OVERDUE", "Acceptance", "CrashResponse", "Decide", "Refusal", "Session"]

MISTAKE = "the server made a mistake; it has been logged"
"""The body of each 500."""

OVERDUE = "the server could not answer in time; try again later"
"""The body of a 503 for code that takes too long."""


@attrs.frozen(eq=False)
class Acceptance:
    """The decision to upgrade: which handler to call, and what the 101 answer contains.

    Attributes:
        handler: called with the connection; path parameters and wrappers are already bound.
        subprotocol: the one that was agreed on, or None.
        headers: extra header fields of the answer.
        compression: whether and how to agree to permessage-deflate.
        name: the handler's name, for log records.
        limits: the connection's limits, or None for the server's.
        timeouts: its timeouts, or None for the server's.
        told: events that are logged once for each handler and have been logged.
    """

    handler: Callable[[Connection], Awaitable[object]]
    subprotocol: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    compression: Deflate | None = None
    name: str = ""
    limits: Limits | None = None
    timeouts: Timeouts | None = None
    told: set[str] = attrs.field(factory=set, repr=False)


@attrs.frozen(eq=False)
class Refusal(Acceptance):
    """The decision to refuse with a Close frame, which a browser's page can read: upgrade, and close at once.

    Observers are told of a refused handshake, and of no connection.

    Attributes:
        status: the HTTP status that the frame stands for.
        frame: what the handler closes with.
    """

    status: int = attrs.field(kw_only=True)
    frame: CloseFrame = attrs.field(kw_only=True)

    @classmethod
    def by(cls, status: int, frame: CloseFrame) -> Refusal:
        """Return a refusal whose handler only closes the connection.

        Raises:
            Exception: the frame is none that may be sent: a subclass of `Reject` may have set it.
        """
        closing = Close(frame.code, frame.reason)

        async def close(ws: Connection) -> None:
            raise closing

        return cls(close, status=status, frame=frame)


@attrs.frozen(eq=False, init=False)
class CrashResponse(Response):
    """The 500 for a request whose guard, given function or HTTP handler raised; observers are told of it.

    Attributes:
        where: a handler, or what was called before it.
        name: the function's name.
        exception: what it raised.
    """

    where: Literal["guard", "handler"] = attrs.field(init=False)
    name: str = attrs.field(init=False)
    exception: BaseException = attrs.field(init=False)

    def __init__(
        self,
        where: Literal["guard", "handler"],
        name: str,
        exception: BaseException,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        answer = Response.error(500, MISTAKE, headers)
        super().__init__(answer.body, answer.status, answer.headers)
        object.__setattr__(self, "where", where)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "exception", exception)

    def take_exception(self) -> BaseException:
        """Return the exception, once: this answer does not refer to it any longer.

        Its frames, and since Python 3.12 those that called them, refer to this answer. The request and its
        socket would live until a garbage collection.
        """
        exception = self.exception
        object.__delattr__(self, "exception")
        return exception


Decide = Callable[[Request], Awaitable[Acceptance | Response | Streamed]]
"""What a host asks for every request: upgrade, or this HTTP answer, or have it streamed. It raises nothing
but cancellation and KeyboardInterrupt; what a user's function raised comes as a `CrashResponse`."""


class Session:
    """One run of a handler for one connection.

    Args:
        ws: the connection; its transport is ready.
        acceptance: which handler to call.
        timers: for the grace after the connection's end.
        timeouts: how long that is.
        observer: is told of the opening, a crash and the end.
        on_over: called once, when the handler has ended and the connection is closed.
    """

    __slots__ = (
        "_acceptance",
        "_child_failed",
        "_ended",
        "_grace",
        "_guarded",
        "_nursery",
        "_observer",
        "_on_over",
        "_over",
        "_scope",
        "_timeouts",
        "_timers",
        "_ws",
    )

    def __init__(
        self,
        ws: Connection,
        acceptance: Acceptance,
        *,
        timers: Timers,
        timeouts: Timeouts,
        observer: Observer,
        on_over: Callable[[Session], None],
    ) -> None:
        self._ws = ws
        self._acceptance = acceptance
        self._timers = timers
        self._timeouts = timeouts
        self._observer = Observer() if isinstance(acceptance, Refusal) else observer
        self._on_over: Callable[[Session], None] | None = on_over
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope(shield=True)
        self._grace: Timer | None = None
        self._guarded = False
        self._child_failed = False
        self._over = False
        self._ended = False

    @property
    def remote(self) -> Address:
        """The peer's address."""
        return self._ws.request.remote

    async def run(self) -> None:
        """Run the handler and its children, and start the close that their end asks for.

        An exception of theirs becomes a close code, and observers are told if it is a crash. `run` itself
        raises only KeyboardInterrupt, outside of any group.

        Cancellation:
            Does not reach the handler; the host ends the connection instead.
        """
        ws = self._ws
        self._observer.connection_opened(ws, self._acceptance.name)
        crash: BaseException | None = None
        left: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                ws.endpoint.begin(self)
                try:
                    with self._scope:
                        result = await self._acceptance.handler(ws)
                        if result is not None:
                            self._tell_of(result)
                except BaseException as error:
                    crash = error
                    forget_earlier_frames(error)
                left = self._handler_ended(crash)
        except BaseExceptionGroup as children:
            left = (
                children
                if left is None
                else BaseExceptionGroup(children.message, [left, *children.exceptions])
            )
            forget_earlier_frames(left)
        except BaseException as error:
            # The nursery itself: the handler has left one of its own open inside it. Then leaving the scope
            # around the handler has failed as well, and that exception is in `crash`.
            left = error if crash is None else left
        finally:
            self._task_ended(left)
        interrupt = interrupt_in(left)
        del crash, left  # their tracebacks hold this frame
        if interrupt is not None:
            raise interrupt from None

    @trio.lowlevel.enable_ki_protection
    def _handler_ended(self, error: BaseException | None) -> BaseException | None:
        """Start the close that the handler's end asks for, before its children have ended.

        Returns:
            The exception that is to be handled once they have ended, or None.
        """
        assert self._nursery is not None
        if self._scope.cancelled_caught and not self._child_failed:
            self._record(logging.INFO, "handler.cancelled", how=self._ws.closed)
        self._over = True
        if not self._child_failed:
            # Before anything else, so that a child which cleans up slowly does not delay the Close frame.
            self._close_after(error)
            error = interrupt_in(error)
        elif self._ws.closed is None:
            # Bounded for the same reason: what the child raised is known only when all others have ended.
            self._timers.after(self._timeouts.disconnect_grace, self._close_late)
        if self._guarded:
            _cancel(self._nursery.cancel_scope, "the handler has returned")
        if self._grace is not None:
            self._grace.cancel()
        return error

    @trio.lowlevel.enable_ki_protection
    def _task_ended(self, error: BaseException | None) -> None:
        self._nursery = None
        self._ended = True
        self._close_after(None if error is None else unwrap_group(error))
        if self._ws.endpoint.is_finished:
            self._finish()

    def give_up(self) -> None:
        """Close with 1011, because `run` has failed with an internal error."""
        self._over = self._ended = True
        self._ws.endpoint.start_close(CloseFrame(1011, "internal error"))
        if self._ws.endpoint.is_finished:
            self._finish()

    def leave(self) -> None:
        """Take note that `run` ended before its time, by a Ctrl-C in it; the drain closes the connection."""
        if self._ended:
            return
        self._over = self._ended = True
        self._ws.endpoint.begin(self)
        if self._ws.endpoint.is_finished:
            self._finish()

    def connection_closed(self) -> None:
        """Take note that the transport has released its socket."""
        if self._ended:
            self._finish()

    def _finish(self) -> None:
        on_over, self._on_over = self._on_over, None
        if on_over is None:
            return
        ws = self._ws
        ws.endpoint.session = None
        on_over(self)
        self._observer.connection_closed(ws, self._acceptance.name)

    def nursery(self) -> trio.Nursery:
        """Return the connection's nursery for its children.

        Raises:
            RuntimeError: the handler and all its children have ended.
        """
        if self._nursery is None:
            raise RuntimeError("ws.nursery is there only while the connection's handler runs")
        if not self._guarded:
            self._guarded = True
            # Only now that there are children: the guard's task would be a part of every connection's cost.
            self._nursery.cancel_scope.shield = True
            if self._over:
                self._nursery.cancel_scope.cancel(reason="the connection has ended")
            else:
                self._nursery.start_soon(self._guard)
        return self._nursery

    async def _guard(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            if not self._over and self._ws.closed is None:
                self._child_failed = True
                _cancel(self._scope, "a task in ws.nursery failed, or the nursery was cancelled")

    def connection_ended(self) -> None:
        """Cancel the children now and the handler after its grace."""
        handler_ended, self._over = self._over, True
        if self._nursery is not None and self._guarded:
            _cancel(self._nursery.cancel_scope, f"the connection ended: {self._ws.closed}")
        if handler_ended:
            return
        grace = self._timeouts.disconnect_grace
        if grace > 0:
            self._grace = self._timers.after(grace, self.cancel)
        else:
            self.cancel()

    def cancel(self) -> None:
        """Cancel the handler now."""
        _cancel(self._scope, f"the connection ended: {self._ws.closed}")

    def _close_after(self, error: BaseException | None) -> None:
        """Start the close that the handler's end asks for, and tell observers of a crash."""
        if error is None and self._ws.closed is not None:
            return
        frame = CloseFrame(1000)
        if error is not None:
            found = list(leaves(error))
            if any(is_a(leaf, KeyboardInterrupt) for leaf in found):
                # It ends the program, and this connection is closed with all others.
                _, rest = split(error, KeyboardInterrupt)
                if rest is None:
                    return
                error = unwrap_group(rest)
                found = list(leaves(error))
            closes = [leaf for leaf in found if is_a(leaf, Close) and _may_be_sent(leaf)]
            # A ConnectionClosed that escapes while this connection is open is about another one: an error.
            ours = [leaf for leaf in found if is_a(leaf, ConnectionClosed) and self._ws.closed is not None]
            unavailable = [leaf for leaf in found if is_a(leaf, Unavailable)]
            if len(closes) + len(ours) + len(unavailable) < len(found):
                frame = CloseFrame(1011, "internal error")
                self._observer.handler_crashed(self._ws.request, self._acceptance.name, error)
            elif closes:
                frame = CloseFrame(closes[0].code, closes[0].reason)
            elif unavailable:
                frame = CloseFrame(1013, "try again later")
                # No traceback: it may happen to all connections at once.
                self._record(logging.WARNING, f"{_what(unavailable[0])}.unavailable", error=unavailable[0])
            for answer in (*closes, *unavailable):
                forget_frames(answer)
        self._ws.endpoint.start_close(frame)

    def _close_late(self) -> None:
        """Close although a child that was cancelled, because another one failed, does not end."""
        self._ws.endpoint.start_close(CloseFrame(1011, "internal error"))

    def _tell_of(self, result: object) -> None:
        """Log, once for each handler, that what it returns is not sent."""
        event, told = "handler.returned", self._acceptance.told
        if event not in told:
            told.add(event)
            self._record(
                logging.WARNING,
                event,
                type=type(result).__name__,
                hint="a WebSocket handler's return value is not sent; use ws.send()",
            )

    def _record(self, level: int, event: str, **fields: Any) -> None:
        request = self._ws.request
        record(
            level,
            event,
            path=request.path,
            remote=request.remote,
            handler=self._acceptance.name,
            **fields,
        )


def _cancel(scope: trio.CancelScope, reason: str) -> None:
    """Cancel user code. What its own abort functions raise (`trio.lowlevel`) does not concern the caller."""
    try:
        scope.cancel(reason=reason)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        record_failure(error)


def _what(unavailable: Unavailable) -> str:
    """Return what is not available, for the name of a log record."""
    if is_a(unavailable, RoomUnavailable):
        return "room"
    return "session" if is_a(unavailable, SessionUnavailable) else "service"


def _may_be_sent(close: Close) -> bool:
    """Whether its code and reason are valid: a subclass may skip `__init__`, and attributes can be set."""
    try:
        check_close(close.code, close.reason)
    except Exception:
        return False
    return True
