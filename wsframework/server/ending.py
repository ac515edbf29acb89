"""How a native transport's connection ends.

Theory of operation
-------------------
Every end takes the same steps, and may begin at any of them:

    our Close frame, or our answer to the peer's, is the last frame that enters the outbox (`_end_sending`)
    -> the outbox is flushed -> FIN -> what the peer still sends is read and dropped until its FIN -> released

One timer, `Timeouts.close`, bounds them all: when the peer makes no progress for so long, `abort` releases
the socket. The subclass calls `_peer_closed` or `_broken` when no more bytes come from the peer, sends FIN
once `_sending_ended` is set and the outbox is empty, and calls `_released` when its socket is closed, which
tells the endpoint.

The answer to the peer's Close, and the Close that fails the connection after a protocol error, are held back
while messages that came before them are still to be received: the handler may answer those first. Everything
is delivered in the order in which the peer sent it (RFC 6455 §5.5.1 allows to "delay sending a Close frame").
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from wsframework.closes import Closed, CloseFrame
from wsframework.config import Timeouts
from wsframework.timers import Timer, Timers
from wsframework.wire import CloseState, ClosingHandshake, Decoder

__all__ = ["EndingTransport", "NoReceiver", "Receiver"]

_SLOWEST_BYTES_PER_SECOND = 240
"""The rate at which a peer must take our last bytes: as Kestrel's MinResponseDataRate and IIS's
minBytesPerSecond."""

_MOMENT_SECONDS = 0.001
"""Long enough for tasks that are ready to run."""


class Receiver(Protocol):
    """The recipient of a transport's messages: an `Endpoint` or its substitute."""

    @property
    def has_unread(self) -> bool:
        """Whether messages wait to be received."""

    @property
    def messages_taken(self) -> int:
        """How many messages were received."""

    def deliver(self, message: str | bytes) -> None:
        """Take a message that arrived."""

    def deliver_pong(self, payload: bytes) -> None:
        """Take a pong."""

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        """Call back once all messages were received."""

    def made_room(self) -> None:
        """Commit what waits: the outbox has room."""

    def end(self, closed: Closed) -> None:
        """No more messages will come."""

    def finish(self, closed: Closed) -> None:
        """The transport is closed."""


class NoReceiver:
    """The substitute for an endpoint after an HTTP answer.

    Attributes:
        then: called when the answer is written, if the connection goes on: the transport lets go of it.
        takes_bytes: whether it gets all that the peer sends, as it comes; also while the answer is written.
    """

    has_unread = False
    messages_taken = 0
    takes_bytes = False

    def __init__(self, then: Callable[[], None] | None = None) -> None:
        self.then = then

    def _ignore(self, *_: object) -> None:
        """Drop it."""

    deliver = deliver_pong = call_when_idle = made_room = end = finish = input_ended = _ignore


_NOBODY = NoReceiver()


class _PlainBytes:
    """In place of a decoder, for bytes that are no frames; the receiver bounds them."""

    stopped = False
    unread = 0

    def feed(self, data: bytes | bytearray | memoryview = b"") -> list[bytes]:
        return [bytes(data)] if data else []

    def end(self) -> None:
        pass


class EndingTransport(ABC):
    """The outbox of a connection and the way in which the connection ends.

    Args:
        timeouts: `close` and `last_words` are used.
        timers: for those two.
        decoder: decodes the peer's bytes; it drops the rest of them at the end.
    """

    __slots__ = (
        "_cause",
        "_close_timer",
        "_closing",
        "_decoder",
        "_deferred",
        "_sending_ended",
        "_timeouts",
        "_timers",
        "endpoint",
        "outbox",
        "outbox_bytes",
    )

    endpoint: Receiver

    def __init__(self, timeouts: Timeouts, timers: Timers, decoder: Decoder) -> None:
        self.outbox: list[bytes | memoryview] = []
        self.outbox_bytes = 0
        self._timeouts = timeouts
        self._timers = timers
        self._decoder = decoder
        self._closing = ClosingHandshake()
        self._deferred: Callable[[], None] | None = None
        self._sending_ended = False
        self._close_timer: Timer | None = None
        self._cause = ""

    # What subclasses do

    @abstractmethod
    def _outbox_filled(self) -> None:
        """Write the outbox soon, and FIN behind it once `_sending_ended` is set."""

    @abstractmethod
    def _release(self) -> None:
        """Close the socket now, gracefully or not, and call `_released`. Idempotent."""

    def _complete_outbox(self) -> None:  # noqa: B027
        """Put into the outbox what was committed and is not there yet: a frame follows that is the last."""

    def _reading_changed(self) -> None:  # noqa: B027
        """Start or stop reading: the decoder has stopped, or has nothing left to decode."""

    def _read_waiting(self) -> bool:
        """Read what the peer has sent, without blocking, before it is dropped for its silence.

        Returns:
            False if that takes a moment: then call it again a moment later.
        """
        return True

    def _untaken_bytes(self) -> int:
        """Return how many bytes of ours the peer has not taken yet, as far as we can tell."""
        return self.outbox_bytes

    # From the server and the endpoint

    def close(self, frame: CloseFrame) -> None:
        """Start the closing handshake, or answer the peer's Close if that was being held back."""
        self._start_close_timer()
        if self._deferred is not None:
            self._run_deferred()
            return
        self._complete_outbox()
        encoded = self._closing.send(frame)
        if encoded is not None:
            self._commit(encoded)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back once, `seconds` from now."""
        return self._timers.after(seconds, callback)

    def answer(self, data: bytes, then: Callable[[], None] | None = None) -> None:
        """Write an HTTP answer, no frames; then end the connection, or let go of it and call `then`."""
        self.endpoint = NoReceiver(then)
        if data:
            self._commit(data)
        self._end_sending()

    def carry(self, receiver: NoReceiver) -> None:
        """Carry bytes as they are, with `write_raw` and to this receiver, until `end_carrying`."""
        self.endpoint = receiver
        self._decoder = _PlainBytes()  # type: ignore[assignment]

    @property
    def carries_bytes(self) -> bool:
        """Whether `carry` was called."""
        return isinstance(self.endpoint, NoReceiver) and self.endpoint.takes_bytes

    def end_carrying(self) -> None:
        """Write what was committed; then end the connection, or let go of it and call the `then` of its
        receiver."""
        self._end_sending()

    def abort(self, cause: str = "the server dropped the connection") -> None:
        """Drop the connection without a Close frame.

        Args:
            cause: why, as one sentence for `Closed.cause`.
        """
        self._cause = self._cause or cause
        self._closing.lost()
        self._release()

    def write_raw(self, data: bytes) -> None:
        """Put bytes that are not a frame into the outbox: the answer to the opening handshake."""
        self._commit(data)

    def _commit(self, frame: bytes) -> None:
        # First the call, which fails if a handler has used up Python's stack: then nothing has changed. What
        # it wakes runs later.
        self._outbox_filled()
        self.outbox.append(frame)
        self.outbox_bytes += len(frame)

    # The last frames

    def _hold_back(self, action: Callable[[], None], delivered: bool) -> None:
        """Do `action` when the messages before it were received, or after `last_words` seconds."""
        if not delivered and not self.endpoint.has_unread:
            action()
            return
        self._deferred = action
        self._timers.after(self._timeouts.last_words, self._run_deferred)
        self.endpoint.call_when_idle(self._run_deferred)

    def _run_deferred(self) -> None:
        action, self._deferred = self._deferred, None
        if action is not None:
            action()

    def _answer_close(self, frame: CloseFrame) -> None:
        self._complete_outbox()
        answer = self._closing.receive(frame)
        if answer is not None:
            self._commit(answer)
            self.endpoint.end(self._closing.outcome())
        self._end_sending()

    def _fail(self, frame: CloseFrame) -> None:
        """Fail the connection (RFC 6455 §7.1.7): Close frame, then the end without waiting for the peer's."""
        self._complete_outbox()
        self._cause = f"the peer broke the protocol: {frame.reason}"
        encoded = self._closing.send(frame)
        if encoded is not None:
            self._commit(encoded)
        self.endpoint.end(self._closing.outcome(self._cause))
        self._end_sending()

    def _then(self) -> Callable[[], None] | None:
        """Return what to call instead of ending a connection that goes on after an HTTP answer."""
        receiver = self.endpoint
        return receiver.then if isinstance(receiver, NoReceiver) else None

    def _let_go(self) -> None:
        """Stop what runs for this transport, because its connection goes on without it."""
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
        self.endpoint = _NOBODY  # which may refer to this transport

    def _end_sending(self) -> None:
        """No frame follows: flush, then FIN."""
        if not self._sending_ended:
            self._complete_outbox()
            self._sending_ended = True
            self._start_close_timer()
            self._drop_undecoded()
            self._outbox_filled()

    def _drop_undecoded(self) -> None:
        stopped = self._decoder.stopped
        self._decoder.end()
        if stopped:
            self._reading_changed()

    # The time limit

    def _start_close_timer(self) -> None:
        if self._close_timer is None:
            self._time_close()

    def _time_close(self) -> None:
        # A moment before the end the reader reads once more, so that an answer which is already here counts.
        untaken = self._untaken_bytes()
        seconds = self._timeouts.close - _MOMENT_SECONDS
        self._close_timer = self._timers.after(max(0.0, seconds), lambda: self._close_nearly_over(untaken))

    def _close_nearly_over(self, untaken: int) -> None:
        ended = self._sending_ended
        self._read_waiting()
        if self._close_timer is not None:  # else that was the end
            self._close_timer = self._timers.after(_MOMENT_SECONDS, lambda: self._close_over(untaken, ended))

    def _close_over(self, untaken: int, ended: bool) -> None:
        """Abort, unless the peer has taken enough of the `untaken` bytes, or has just answered."""
        taken = untaken - self._untaken_bytes()
        enough = max(1.0, _SLOWEST_BYTES_PER_SECOND * self._timeouts.close)
        if taken >= enough or self._sending_ended is not ended:
            self._time_close()
        else:
            self.abort("the close timeout was over")

    # The transport's end

    def _came_late(self, data: bytes) -> None:
        """Take what came behind the end: nothing, unless it is the next request."""
        if self.carries_bytes:
            self.endpoint.deliver(data)

    def _peer_closed(self) -> None:
        """End the connection after the peer's FIN: flush what it may still read, then close."""
        if self._deferred is not None:
            return  # its Close frame waits to be answered, and a peer that has sent FIN may still read
        receiver = self.endpoint
        if isinstance(receiver, NoReceiver) and receiver.takes_bytes:
            receiver.input_ended()  # it may still read its answer
            return
        if self._closing.state in (CloseState.OPEN, CloseState.CLOSE_SENT):
            self._lose("the peer closed TCP without a Close frame")
        self._end_sending()

    def _broken(self, cause: str) -> None:
        """End the connection after a reset, a broken pipe or a TLS failure."""
        self._lose(cause)
        self._release()

    def _lose(self, cause: str) -> None:
        self._deferred = None
        if self._closing.state is not CloseState.CLOSED:
            self._cause = self._cause or cause
        self._closing.lost()
        self.endpoint.end(self._closing.outcome(self._cause))

    def _released(self) -> None:
        """Tell the endpoint that the socket is closed."""
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
        self._deferred = None
        self._decoder.end()
        self.outbox.clear()
        self.endpoint.finish(self._closing.outcome(self._cause))
        if self.carries_bytes:
            self.endpoint = _NOBODY
