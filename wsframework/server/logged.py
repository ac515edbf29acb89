"""The log: an observer that writes a record for each event of a server and its connections.

The level is checked before a field is made, so an event that is not logged costs one call. Frames are logged
at level debug, for connections that open while the level of the logger `wsframework` is debug. Frames that a
handler of the log sends when it gets such a record are not logged.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from wsframework.connection import Connection
from wsframework.crashes import hint_for
from wsframework.observer import ObservedFrame, Observer, TransportStep
from wsframework.records import describe, logger, record
from wsframework.request import Address, Request
from wsframework.server.rated import RatedRecord
from wsframework.timers import Timers

__all__ = ["LogObserver"]


class LogObserver(Observer):
    """Logs every event.

    Args:
        timers: the server's, for records at a limited rate.
    """

    def __init__(self, timers: Timers) -> None:
        self._refusals = RatedRecord(timers, logging.WARNING, "connection.refused")
        self._logging_frame = False

    # The server

    def server_listening(self, addresses: Sequence[Address]) -> None:
        """Log `server.listening`."""
        record(logging.INFO, "server.listening", on=", ".join(map(str, addresses)) or None)

    def server_draining(self, connections: int) -> None:
        """Log `server.draining`."""
        record(logging.INFO, "server.draining", connections=connections)

    def server_stopped(self, accepted: int) -> None:
        """Log `server.stopped`."""
        record(logging.INFO, "server.stopped", accepted=accepted)

    def server_failed(self, error: BaseException) -> None:
        """Log `server.failed`."""
        record(logging.CRITICAL, "server.failed", exc_info=error, error=describe(error))

    def loop_blocked(self, seconds: float, function: str | None, stack: str | None) -> None:
        """Log `loop.blocked`."""
        record(logging.WARNING, "loop.blocked", seconds=round(seconds, 3), handler=function, stack=stack)

    # From the accepted socket to the answer

    def connection_accepted(self, remote: Address, local: Address, tls: str | None) -> None:
        """Log `connection.accepted`."""
        if logger.isEnabledFor(logging.DEBUG):
            record(logging.DEBUG, "connection.accepted", remote=remote, local=local, tls=tls)

    def connection_refused(self, remote: Address) -> None:
        """Log `connection.refused`, at a limited rate."""
        self._refusals.write(remote=remote)

    def handshake_refused(self, remote: Address, status: int, reason: str, request: Request | None) -> None:
        """Log `handshake.refused`."""
        record(logging.DEBUG, "handshake.refused", remote=remote, status=status, error=reason or None)

    def http_answered(self, remote: Address, status: int) -> None:
        """Log `http.answered`."""
        record(logging.DEBUG, "http.answered", remote=remote, status=status)

    def guard_crashed(self, request: Request, guard: str, error: BaseException) -> None:
        """Log `guard.crashed`."""
        _log_crash("guard.crashed", request, error, guard=guard)

    # A WebSocket connection

    def connection_opened(self, connection: Connection, handler: str) -> None:
        """Log `connection.opened`."""
        if not logger.isEnabledFor(logging.INFO):
            return
        request = connection.request
        record(
            logging.INFO,
            "connection.opened",
            path=request.path,
            remote=request.remote,
            handler=handler,
            subprotocol=connection.subprotocol,
        )

    def connection_closed(self, connection: Connection, handler: str) -> None:
        """Log `connection.closed`."""
        if not logger.isEnabledFor(logging.INFO):
            return
        request, statistics, closed = connection.request, connection.statistics(), connection.closed
        assert closed is not None
        record(
            logging.INFO,
            "connection.closed",
            path=request.path,
            remote=request.remote,
            handler=handler,
            how=closed,
            first={True: "server", False: "client", None: None}[closed.sent_first],
            sent_code=None if closed.sent is None else closed.sent.code,
            received_code=None if closed.received is None else closed.received.code,
            seconds=round(trio.current_time() - statistics.opened_at, 3),
            received=statistics.messages_received,
            sent=statistics.messages_sent,
        )

    def handler_crashed(self, request: Request, handler: str, error: BaseException) -> None:
        """Log `handler.crashed`."""
        _log_crash("handler.crashed", request, error, handler=handler)

    # Frames

    def wants_frames(self) -> bool:
        """Return whether the next connection's frames are to be logged."""
        return logger.isEnabledFor(logging.DEBUG)

    def frame_received(self, request: Request, frame: ObservedFrame) -> None:
        """Log `message.received`, `ping.received`, `pong.received` or `close.received`."""
        self._log_frame(request, frame, "received")

    def frame_sent(self, request: Request, frame: ObservedFrame) -> None:
        """Log `message.sent`, `ping.sent`, `pong.sent` or `close.sent`."""
        self._log_frame(request, frame, "sent")

    def _log_frame(self, request: Request, frame: ObservedFrame, direction: str) -> None:
        if self._logging_frame:
            return  # a handler of the log sends what it gets, and would get that too, without end
        self._logging_frame = True
        try:
            _log_frame(request, frame, direction)
        finally:
            self._logging_frame = False

    def protocol_broken(self, request: Request, code: int, reason: str) -> None:
        """Log `protocol.broken`."""
        record(logging.DEBUG, "protocol.broken", remote=request.remote, code=code, reason=reason)

    def transport_step(self, request: Request, step: TransportStep, cause: str) -> None:
        """Log the step by its own name."""
        record(logging.DEBUG, step, remote=request.remote, cause=cause or None)


def _log_crash(event: str, request: Request, error: BaseException, **where: str) -> None:
    record(
        logging.ERROR,
        event,
        exc_info=error,
        path=request.path,
        remote=request.remote,
        **where,
        error=describe(error),
        hint=hint_for(error),
    )


def _log_frame(request: Request, frame: ObservedFrame, direction: str) -> None:
    kind, remote = frame.kind, request.remote
    if kind == "close":
        reason = frame.reason or None
        record(logging.DEBUG, f"close.{direction}", remote=remote, code=frame.code, reason=reason)
    elif kind in ("ping", "pong"):
        record(logging.DEBUG, f"{kind}.{direction}", remote=remote, bytes=frame.payload_bytes)
    else:
        record(logging.DEBUG, f"message.{direction}", remote=remote, kind=kind, bytes=frame.payload_bytes)
