"""A transport without a network: tests look at what it was given, make room, and end the connection."""

from __future__ import annotations

from collections.abc import Callable

from wsframework.closes import Closed, CloseFrame
from wsframework.config import Limits
from wsframework.connection import Connection
from wsframework.request import Address, Request
from wsframework.timers import Timer, Timers
from wsframework.transport import EncodedMessage
from wsframework.wire import Opcode

LOST = Closed(None, None, None, "the test cut the wire")


class FakeTransport:
    """Implements `wsframework.connection.Transport`.

    Attributes:
        connection: set by `connect`.
        taking: True while the pretended socket takes everything at once; else the outbox fills.
        sent: everything that was committed, in order.
        closes: Close frames that were committed.
        log: the names of the calls that are no sends.
        on_send: called by `send`, after the message is committed.
        on_flush_now: called by `flush_now`.
        timers: with them, the peer answers our Close `close_seconds` later; without, never.
        pending: without `timers`, what was asked for with `after`, as (seconds, timer).
    """

    connection: Connection

    def __init__(self) -> None:
        self.outbox_bytes = 0
        self.room_wanted = False
        self.taking = True
        self.sent: list[tuple[Opcode, bytes]] = []
        self.closes: list[CloseFrame] = []
        self._reading = True
        self.log: list[str] = []
        self.on_send: Callable[[], None] = lambda: None
        self.on_flush_now: Callable[[], None] = lambda: None
        self.timers: Timers | None = None
        self.pending: list[tuple[float, Timer]] = []
        self.close_seconds = 0.125

    @property
    def texts(self) -> list[str]:
        """The text messages that were committed."""
        return [payload.decode() for opcode, payload in self.sent if opcode is Opcode.TEXT]

    def reading(self) -> bool:
        """False between `pause_reading` and `resume_reading`."""
        return self._reading

    def take(self, size: int | None = None) -> None:
        """Let the socket take `size` bytes of the outbox, or all of it."""
        self.outbox_bytes -= self.outbox_bytes if size is None else size
        if self.room_wanted:
            self.room_wanted = False
            self.connection.endpoint.made_room()

    # What a Connection calls

    def send(self, opcode: int, payload: bytes) -> None:
        assert not self.closes, "nothing may follow a Close frame"
        self.sent.append((Opcode(opcode), payload))
        if not self.taking:
            self.outbox_bytes += len(payload)
        self.on_send()

    def send_encoded(self, message: EncodedMessage) -> None:
        self.log.append("send_encoded")
        self.send(message.opcode, message.payload)

    def close(self, frame: CloseFrame) -> None:
        self.closes.append(frame)
        if self.timers is not None:
            closed = Closed(sent=frame, received=CloseFrame(frame.code), sent_first=True)
            self.timers.after(self.close_seconds, lambda: self.connection.endpoint.finish(closed))

    def pause_reading(self) -> None:
        assert self._reading
        self._reading = False
        self.log.append("pause")

    def resume_reading(self) -> None:
        assert not self._reading
        self._reading = True
        self.log.append("resume")

    def flush_now(self) -> None:
        self.on_flush_now()

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        if self.timers is not None:
            return self.timers.after(seconds, callback)
        timer = Timer(seconds, callback)
        self.pending.append((seconds, timer))
        return timer


def connect(limits: Limits | None = None, *, subprotocol: str | None = None) -> FakeTransport:
    """Return a transport with an open connection on it."""
    transport = FakeTransport()
    request = Request("/chat?x=1", remote=Address("10.0.0.1", 5123))
    transport.connection = Connection(
        transport, request, subprotocol=subprotocol, limits=limits or Limits(outbox_bytes=100)
    )
    return transport
