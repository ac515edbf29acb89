"""Transports that log every step of their connection, for a log level of debug.

A connection gets one of these instead of its plain transport when it is made while the logger `wsframework`
lets debug records through, so the path of a message pays nothing for what it does not log. They see what
enters and leaves: events of the decoder, messages and control frames of ours, FIN.

Sizes are payload bytes before compression and after inflating. What messages say is nobody's business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from wsframework.records import logger, record
from wsframework.server.framing import FrameTransport
from wsframework.server.socket import SocketTransport, TLSTransport
from wsframework.server.stream import StreamTransport
from wsframework.transport import EncodedMessage
from wsframework.wire import CloseCode, CloseReceived, Decoder, Event, Failure, Opcode, Ping, Pong

__all__ = ["socket_transport", "stream_transport"]


def socket_transport(*, secure: bool) -> type[SocketTransport]:
    """Return the class for a new connection's socket in the hub."""
    if logger.isEnabledFor(logging.DEBUG):
        return _LoggedTLSTransport if secure else _LoggedSocketTransport
    return TLSTransport if secure else SocketTransport


def stream_transport() -> type[StreamTransport]:
    """Return the class for a new connection's Trio stream."""
    return _LoggedStreamTransport if logger.isEnabledFor(logging.DEBUG) else StreamTransport


class _LoggedDecoder(Decoder):
    """A decoder that reports what it hands over."""

    __slots__ = ("_report",)

    def __init__(self, report: Callable[[Event], None], **settings: Any) -> None:
        super().__init__(**settings)
        self._report = report

    def feed(self, data: bytes | bytearray | memoryview = b"") -> list[Event]:
        """Take bytes from the peer and return what they complete."""
        events = super().feed(data)
        for event in events:
            self._report(event)
        return events

    def give_up(self, code: CloseCode, reason: str) -> Failure:
        """Fail the connection for a reason that is not in the bytes."""
        failure = super().give_up(code, reason)
        self._report(failure)
        return failure


class _Logged(FrameTransport):
    """What all of them have in common; stands before the transport's own class."""

    __slots__ = ()

    def _make_decoder(self, **settings: Any) -> Decoder:
        return _LoggedDecoder(self._log_event, **settings)

    def _log(self, event: str, **fields: Any) -> None:
        # Behind an HTTP answer there is no connection, and so no request to name.
        request = getattr(self.connection, "request", None)
        if request is not None:
            record(logging.DEBUG, event, remote=request.remote, **fields)

    # In

    def _log_event(self, event: Event) -> None:
        match event:
            case str():
                self._log("message.received", kind="text", bytes=len(event.encode()))
            case bytes():
                self._log("message.received", kind="binary", bytes=len(event))
            case Ping(payload):
                self._log("ping.received", bytes=len(payload))
            case Pong(payload):
                self._log("pong.received", bytes=len(payload))
            case CloseReceived(frame):
                self._log("close.received", code=frame.code, reason=frame.reason or None)
            case Failure(code, reason):
                self._log("protocol.broken", code=int(code), reason=reason)

    def _peer_closed(self) -> None:
        self._log("fin.received")
        super()._peer_closed()

    def _broken(self, cause: str) -> None:
        self._log("transport.broken", cause=cause)
        super()._broken(cause)

    # Out

    def send(self, opcode: int, payload: bytes) -> None:
        if opcode != Opcode.PING:  # those come by `_commit`
            self._log_message(opcode, payload)
        super().send(opcode, payload)

    def send_encoded(self, message: EncodedMessage) -> None:
        self._log_message(message.opcode, message.payload)
        super().send_encoded(message)

    def _log_message(self, opcode: int, payload: bytes) -> None:
        self._log("message.sent", kind="text" if opcode == Opcode.TEXT else "binary", bytes=len(payload))

    def _commit(self, frame: bytes) -> None:
        # Control frames of ours are short and not masked: two bytes of header.
        match frame[0]:
            case 0x88:
                code = int.from_bytes(frame[2:4], "big") if len(frame) > 2 else None
                self._log("close.sent", code=code, reason=frame[4:].decode() or None)
            case 0x89:
                self._log("ping.sent", bytes=len(frame) - 2)
            case 0x8A:
                self._log("pong.sent", bytes=len(frame) - 2)
        super()._commit(frame)

    def abort(self, cause: str = "the server dropped the connection") -> None:
        self._log("transport.aborted", cause=cause)
        super().abort(cause)


class _LoggedSocketTransport(_Logged, SocketTransport):
    # No slots: they could not be combined with those of the TLS transport.

    def __init__(self, *positional: Any, **settings: Any) -> None:
        super().__init__(*positional, **settings)
        self._waits_for_fin = False

    def _send_fin(self) -> None:
        if not self._sent_fin and self._on_release is not None:
            self._log("fin.sent")
        super()._send_fin()

    def _read(self, now: float) -> None:
        self._waits_for_fin = self._sent_fin and not self._saw_fin
        super()._read(now)

    def _release(self) -> None:
        # A FIN that comes after ours is the end, and nobody else is told of it.
        if self._saw_fin and self._waits_for_fin:
            self._waits_for_fin = False
            self._log("fin.received")
        super()._release()


class _LoggedTLSTransport(_LoggedSocketTransport, TLSTransport):
    __slots__ = ()


class _LoggedStreamTransport(_Logged, StreamTransport):
    __slots__ = ()
