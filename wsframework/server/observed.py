"""Transports whose frames are observed.

A connection gets one of these in place of its plain transport when an observer of its server wants frames.
Without such an observer, observing costs a message nothing. The transports report what the decoder returns,
the messages and control frames that are sent, and FIN. An open connection keeps the transport that it has.

Sizes are payload bytes before compression and after inflating. The content is not reported.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from wsframework.closes import CloseCode, CloseFrame
from wsframework.observer import ObservedFrame, Observer, TransportStep
from wsframework.request import Request
from wsframework.server.framing import FrameTransport
from wsframework.server.observers import Observers
from wsframework.server.socket import SocketTransport
from wsframework.server.stream import StreamTransport
from wsframework.server.tls import TLSTransport
from wsframework.transport import EncodedMessage
from wsframework.wire import CloseReceived, Decoder, Event, Failure, Opcode, Ping, Pong

__all__ = ["socket_transport", "stream_transport"]


def socket_transport(observers: Observers, *, secure: bool) -> Callable[..., SocketTransport]:
    """Return the factory of transports for sockets in the hub."""
    if observers.wants_frames():
        return partial(_ObservedTLSTransport if secure else _ObservedSocketTransport, observer=observers)
    return TLSTransport if secure else SocketTransport


def stream_transport(observers: Observers) -> Callable[..., StreamTransport]:
    """Return the factory of transports for Trio streams."""
    if observers.wants_frames():
        return partial(_ObservedStreamTransport, observer=observers)
    return StreamTransport


class _TellingDecoder:
    """Wraps a transport's decoder, and reports the events that it returns."""

    def __init__(self, decoder: Decoder, tell: Callable[[Event], None]) -> None:
        self._decoder = decoder
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def feed(self, data: bytes | bytearray | memoryview = b"") -> list[Event]:
        events = self._decoder.feed(data)
        for event in events:
            self._tell(event)
        return events

    def give_up(self, code: CloseCode, reason: str) -> Failure:
        failure = self._decoder.give_up(code, reason)
        self._tell(failure)
        return failure


class _Observed(FrameTransport):
    """What observed transports have in common; a mixin before the transport's own class."""

    # No slots, here and below: they could not be combined with those of the transports.

    def __init__(self, *positional: Any, observer: Observer, **settings: Any) -> None:
        super().__init__(*positional, **settings)
        self._observer = observer
        self._decoder = _TellingDecoder(self._decoder, self._tell_received)  # type: ignore[assignment]

    @property
    def _request(self) -> Request | None:
        # After an HTTP answer there is no connection, and so no request.
        return getattr(self.endpoint, "request", None)

    def _step(self, step: TransportStep, cause: str = "") -> None:
        if (request := self._request) is not None:
            self._observer.transport_step(request, step, cause)

    # In

    def _tell_received(self, event: Event) -> None:
        request = self._request
        if request is None:
            return
        frame: ObservedFrame
        match event:
            case str():
                frame = ObservedFrame("text", len(event.encode()))
            case bytes():
                frame = ObservedFrame("binary", len(event))
            case Ping(payload):
                frame = ObservedFrame("ping", len(payload))
            case Pong(payload):
                frame = ObservedFrame("pong", len(payload))
            case CloseReceived(close):
                frame = _observed_close(close)
            case Failure(code, reason):
                self._observer.protocol_broken(request, int(code), reason)
                return
        self._observer.frame_received(request, frame)

    def _peer_closed(self) -> None:
        self._step("fin.received")
        super()._peer_closed()

    def _broken(self, cause: str) -> None:
        self._step("transport.broken", cause)
        super()._broken(cause)

    # Out

    def send(self, opcode: int, payload: bytes) -> None:
        super().send(opcode, payload)
        if opcode != Opcode.PING:  # `_commit` reports pings
            self._tell_message(opcode, payload)

    def send_encoded(self, message: EncodedMessage) -> None:
        super().send_encoded(message)
        self._tell_message(message.opcode, message.payload)

    def _tell_message(self, opcode: int, payload: bytes) -> None:
        self._tell_sent(ObservedFrame("text" if opcode == Opcode.TEXT else "binary", len(payload)))

    def _commit(self, frame: bytes) -> None:
        if self._request is not None:
            self._tell_control(frame)
        super()._commit(frame)

    def _tell_control(self, frame: bytes) -> None:
        # The server's control frames are short and not masked: their header has two bytes, and the first one
        # holds FIN and the opcode.
        size = len(frame) - 2
        match frame[0]:
            case 0x88:
                code = int.from_bytes(frame[2:4], "big") if size else int(CloseCode.NO_STATUS_RECEIVED)
                self._tell_sent(ObservedFrame("close", size, code, frame[4:].decode()))
            case 0x89:
                self._tell_sent(ObservedFrame("ping", size))
            case 0x8A:
                self._tell_sent(ObservedFrame("pong", size))

    def _tell_sent(self, frame: ObservedFrame) -> None:
        if (request := self._request) is not None:
            self._observer.frame_sent(request, frame)

    def abort(self, cause: str = "the server dropped the connection") -> None:
        self._step("transport.aborted", cause)
        super().abort(cause)


class _ObservedSocketTransport(_Observed, SocketTransport):
    def __init__(self, *positional: Any, **settings: Any) -> None:
        super().__init__(*positional, **settings)
        self._waits_for_fin = False

    def _send_fin(self) -> None:
        if not self._sent_fin and self._on_release is not None:
            self._step("fin.sent")
        super()._send_fin()

    def _read(self, now: float) -> None:
        self._waits_for_fin = self._sent_fin and not self._saw_fin
        super()._read(now)

    def _release(self) -> None:
        # `_peer_closed` is not called for a FIN that comes after ours.
        if self._saw_fin and self._waits_for_fin:
            self._waits_for_fin = False
            self._step("fin.received")
        super()._release()


class _ObservedTLSTransport(_ObservedSocketTransport, TLSTransport):
    pass


class _ObservedStreamTransport(_Observed, StreamTransport):
    pass


def _observed_close(close: CloseFrame) -> ObservedFrame:
    size = 0 if close.code == CloseCode.NO_STATUS_RECEIVED else 2 + len(close.reason.encode())
    return ObservedFrame("close", size, int(close.code), close.reason)
