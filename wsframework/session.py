"""One connection's life: its nursery, its handler, and what the handler's end means on the wire.

Theory of operation
-------------------
    nursery (ws.nursery)        cancelled the moment the connection ends; children are the user's tasks
    └─ scope, shielded          the handler; cancelled `disconnect_grace` after the connection ended, or by
       └─ handler(ws)           a child's exception

The handler is shielded from the nursery it gave its children to, because the children end *with* the
connection and the handler may still finish its work, such as saying goodbye to a room. What cancels the
handler is always an explicit `scope.cancel` here, with the reason in it. A host's own cancellation reaches
the handler through the host: it drains, and ends the connection.

The shield also hides a child's exception from the handler, so the first use of `ws.nursery` starts a small
guard task beside the children which, when the nursery is cancelled under it, cancels the handler too. Not so
once the connection is closing: a child that meets `ConnectionClosed` must not cut the handler's work short.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator

import attrs
import trio

from wsframework.config import Deflate, Timeouts
from wsframework.connection import Connection
from wsframework.errors import Close, CloseFrame, ConnectionClosed, unwrap_group
from wsframework.records import describe, logger, record
from wsframework.request import Request, Response
from wsframework.timers import Timer, Timers

__all__ = ["Acceptance", "Decide", "Session"]


@attrs.frozen(eq=False)
class Acceptance:
    """The decision to upgrade: whom to call, and what to say in the 101 answer.

    Attributes:
        handler: called with the connection; path parameters and wrappers are already bound.
        subprotocol: the one that was agreed on, or None.
        headers: extra header fields of the answer.
        compression: whether and how to agree to permessage-deflate.
        name: the handler's name, for log records.
    """

    handler: Callable[[Connection], Awaitable[object]]
    subprotocol: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    compression: Deflate | None = None
    name: str = ""


Decide = Callable[[Request], Awaitable[Acceptance | Response]]
"""What a host asks for every request: upgrade, or this HTTP answer. It never raises but for cancellation."""


class Session:
    """One run of a handler for one connection."""

    __slots__ = (
        "_acceptance",
        "_child_failed",
        "_grace",
        "_guarded",
        "_nursery",
        "_over",
        "_scope",
        "_timeouts",
        "_timers",
        "_ws",
    )

    def __init__(self, ws: Connection, acceptance: Acceptance, *, timers: Timers, timeouts: Timeouts) -> None:
        self._ws = ws
        self._acceptance = acceptance
        self._timers = timers
        self._timeouts = timeouts
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope(shield=True)
        self._grace: Timer | None = None
        self._guarded = False
        self._child_failed = False
        self._over = False

    async def run(self) -> None:
        """Run the handler, close the connection as its end says, and wait until the connection is closed.

        An exception of the handler's is logged and becomes a close code; only exceptions that are not
        `Exception` (such as KeyboardInterrupt) come out.

        Cancellation:
            The handler is not reached by it; the host ends the connection instead. While waiting for the end
            of the connection, cancellation leaves the transport to finish by itself.
        """
        ws = self._ws
        self._record(logging.INFO, "connection.opened", subprotocol=ws.subprotocol)
        crash: BaseException | None = None
        beyond: BaseException | None = None
        try:
            await self._run_handler()
        except BaseExceptionGroup as group:
            # Made by our nursery, so users shall not see it: the exceptions of ws.nursery's children, and the
            # handler's when one of them had cancelled it.
            errors, rest = group.split(Exception)
            crash = None if errors is None else unwrap_group(errors)
            beyond = None if rest is None else unwrap_group(rest)
        self._close_after(crash)
        if beyond is not None:
            raise beyond
        await ws.wait_closed()
        if not logger.isEnabledFor(logging.INFO):
            return
        statistics, closed = ws.statistics(), ws.closed
        assert closed is not None
        self._record(
            logging.INFO,
            "connection.closed",
            how=closed,
            first={True: "server", False: "client", None: None}[closed.sent_first],
            sent_code=None if closed.sent is None else closed.sent.code,
            received_code=None if closed.received is None else closed.received.code,
            seconds=round(trio.current_time() - statistics.opened_at, 3),
            received=statistics.messages_received,
            sent=statistics.messages_sent,
        )

    async def _run_handler(self) -> None:
        """Run the handler and close as its end says; raise what that leaves to be said, as a group."""
        error: Exception | None = None
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._ws._begin(self)
            with self._scope:
                try:
                    await self._acceptance.handler(self._ws)
                except Exception as caught:
                    error = caught
            if self._scope.cancelled_caught and not self._child_failed:
                self._record(logging.INFO, "handler.cancelled", how=self._ws.closed)
            self._over = True
            if not self._child_failed:
                # First of all, so that a child which cleans up slowly cannot hold up the Close frame.
                self._close_after(error)
                error = None
            if self._guarded:
                nursery.cancel_scope.cancel(reason="the handler has returned")
            self._ws._session = None
            if self._grace is not None:
                self._grace.cancel()
            if error is not None:
                raise error

    def nursery(self) -> trio.Nursery:
        """Return the connection's nursery for its children."""
        assert self._nursery is not None
        if not self._guarded:
            self._guarded = True
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
                self._scope.cancel(reason="a task in ws.nursery failed, or the nursery was cancelled")

    def connection_ended(self) -> None:
        """Cancel the children now and the handler after its grace."""
        assert self._nursery is not None
        self._over = True
        if self._guarded:
            self._nursery.cancel_scope.cancel(reason=f"the connection ended: {self._ws.closed}")
        grace = self._timeouts.disconnect_grace
        if grace > 0:
            self._grace = self._timers.after(grace, self.cancel)
        else:
            self.cancel()

    def cancel(self) -> None:
        """Cancel the handler now."""
        self._scope.cancel(reason=f"the connection ended: {self._ws.closed}")

    def _close_after(self, error: BaseException | None) -> None:
        """Start the close that the handler's end asks for, and log an exception that nobody expected."""
        if error is None and self._ws.closed is not None:
            return
        frame = CloseFrame(1000)
        if error is not None:
            leaves = list(_leaves(error))
            closes = [leaf for leaf in leaves if isinstance(leaf, Close)]
            # A ConnectionClosed that escapes while this connection is open is about another one: an error.
            ours = [
                leaf for leaf in leaves if isinstance(leaf, ConnectionClosed) and self._ws.closed is not None
            ]
            if len(closes) + len(ours) < len(leaves):
                frame = CloseFrame(1011, "internal error")
                self._record(logging.ERROR, "handler.crashed", exc_info=error, error=describe(error))
            elif closes:
                frame = CloseFrame(closes[0].code, closes[0].reason)
        self._ws._start_close(frame)

    def _record(
        self, level: int, event: str, *, exc_info: BaseException | None = None, **fields: object
    ) -> None:
        request = self._ws.request
        record(
            level,
            event,
            exc_info=exc_info,
            path=request.path,
            remote=request.remote,
            handler=self._acceptance.name,
            **fields,
        )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
