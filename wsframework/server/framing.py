"""A connection in frames: what every native transport has in common, whatever moves its bytes.

Theory of operation
-------------------
    bytes in  -> `_received` -> decoder -> messages to the Connection; control frames are dealt with here
    `send`    -> outbox (a list of encoded frames) -> bytes out, by the subclass

The end of a connection always takes the same road, from wherever it was entered:

    our Close frame or our answer to the peer's is the last thing that enters the outbox (`_end_sending`)
    -> the outbox is flushed -> FIN -> what the peer still sends is read and dropped until its FIN -> released

and one timer, `Timeouts.close`, cuts it short by `abort` where it stands still. The subclass calls
`_peer_closed` or `_broken` when the peer's bytes come to an end, sends FIN once `_sending_ended` is set and
the outbox is empty, and calls `_released` when its socket is closed, which tells the Connection.

The answer to the peer's Close, and the Close that fails the connection after a protocol error, are held back
while messages that came before them are still to be received: the handler may answer those first. Everything
is delivered in the order in which the peer sent it (RFC 6455 §5.5.1 allows to "delay sending a Close frame").

One read is decoded in steps (see `wire.decoder`). Between two of them the connection may say that it is
enough: `pause_reading`. What was not decoded then waits, at most one read, as if it were still in the kernel;
pings, the peer's Close and its FIN behind it wait too. While the decoder is `stopped` the subclass reads no
more; it goes on with `_decode_on` in a turn of its own (`_decode_soon`), so that others come first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Protocol

import trio

from wsframework.closes import Closed, CloseFrame
from wsframework.config import Keepalive, Limits, Timeouts
from wsframework.timers import Timer, Timers
from wsframework.transport import EncodedMessage
from wsframework.wire import (
    Budget,
    CloseCode,
    CloseReceived,
    CloseState,
    ClosingHandshake,
    Decoder,
    Deflater,
    Event,
    Failure,
    Inflater,
    Opcode,
    Ping,
    Pong,
    encode_message,
    encode_ping,
    encode_pong,
)

__all__ = ["FrameTransport", "NoReceiver", "Receiver"]

_INFLATED_BYTES = 64 * 1024
"""What one step of decoding may inflate before the receiver is asked: as much as any other read brings."""

_FORGIVEN_IN_SECONDS = 64
"""A debt of `Limits.unpaid_frames` is forgiven in this time."""

_SLOWEST_BYTES_PER_SECOND = 240
"""What a peer must take of our last bytes: Kestrel's MinResponseDataRate and IIS's minBytesPerSecond."""

_MOMENT_SECONDS = 0.001
"""Enough for tasks that can run to have run."""

_SMALL_FRAMES = 64
"""So many frames below as many bytes are joined while they wait: each is an object of 40 bytes besides."""


class Receiver(Protocol):
    """What a transport delivers to: an `Endpoint`, or what stands in for one."""

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
        """Call back once every message was received."""

    def made_room(self) -> None:
        """The outbox has room."""

    def end(self, closed: Closed) -> None:
        """No more messages will come."""

    def finish(self, closed: Closed) -> None:
        """The transport is closed."""


class NoReceiver:
    """Stands in for a connection where there is none: behind an HTTP answer."""

    has_unread = False
    messages_taken = 0

    def _ignore(self, *_: object) -> None:
        """Drop it."""

    deliver = deliver_pong = call_when_idle = made_room = end = finish = _ignore


@cache
def _budget(inflated_bytes: int, unpaid_frames: int | None) -> Budget:
    return Budget(inflated_bytes=inflated_bytes, unpaid_frames=unpaid_frames)


class FrameTransport(ABC):
    """One connection's frames; subclasses move its bytes."""

    __slots__ = (
        "_cause",
        "_close_timer",
        "_closing",
        "_decoder",
        "_deferred",
        "_deflater",
        "_forgiven_at",
        "_joined",
        "_limits",
        "_pending_pong",
        "_pinged_at",
        "_reading_paused",
        "_sending_ended",
        "_timeouts",
        "_timers",
        "endpoint",
        "heard_at",
        "outbox",
        "outbox_bytes",
        "room_wanted",
    )

    endpoint: Receiver

    def __init__(
        self,
        *,
        limits: Limits,
        timeouts: Timeouts,
        timers: Timers,
        codecs: tuple[Deflater, Inflater] | None = None,
    ) -> None:
        self.outbox: list[bytes | memoryview] = []
        self.outbox_bytes = 0
        self._joined = 0  # so many pieces of the outbox need not be looked at for small ones
        self.room_wanted = False
        self.heard_at = trio.current_time()
        self._limits = limits
        self._timeouts = timeouts
        self._timers = timers
        self._deflater: Deflater | None = None
        inflater: Inflater | None = None
        if codecs is not None:
            self._deflater, inflater = codecs
        self._decoder = Decoder(
            max_message_bytes=limits.message_bytes,
            max_fragments=limits.message_fragments,
            inflater=inflater,
            budget=_budget(min(_INFLATED_BYTES, limits.unread_bytes), limits.unpaid_frames),
        )
        self._forgiven_at = self.heard_at
        self._closing = ClosingHandshake()
        self._deferred: Callable[[], None] | None = None
        self._pending_pong: bytes | None = None
        self._pinged_at: float | None = None
        self._reading_paused = False
        self._sending_ended = False
        self._close_timer: Timer | None = None
        self._cause = ""

    # What subclasses do

    @abstractmethod
    def _outbox_filled(self) -> None:
        """See to it that the outbox is written soon, and FIN behind it once `_sending_ended` is set."""

    @abstractmethod
    def _release(self) -> None:
        """Close the socket now, gracefully or not, and call `_released`. Idempotent."""

    @abstractmethod
    def pause_reading(self) -> None:
        """Take no more bytes from the socket until `resume_reading`."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Read on."""

    def _decode_soon(self) -> None:  # noqa: B027
        """Call `_decode_on` when others have had their turn."""

    def _reading_changed(self) -> None:  # noqa: B027
        """Read or do not: the decoder has stopped, or holds nothing any more."""

    def _read_waiting(self) -> bool:
        """Read what the peer has sent and we have not read, without blocking, before it is judged.

        Returns:
            False when that takes a moment, so that the judgement has to wait for it.
        """
        return True

    def _untaken_bytes(self) -> int:
        """Return how many of the bytes that we have sent the peer has not taken, as far as we can tell."""
        return self.outbox_bytes

    # The connection's side

    def send(self, opcode: int, payload: bytes) -> None:
        """Encode and commit one whole message or ping."""
        if opcode == Opcode.PING:
            frame = encode_ping(payload)
        elif self._deflater is not None:
            frame = self._deflater.encode_message(opcode, payload)
        else:
            frame = encode_message(opcode, payload)
        self._commit(frame)

    def send_encoded(self, message: EncodedMessage) -> None:
        """Commit a message that was encoded once for many connections."""
        if self._deflater is not None:
            # Each connection's compressor has a history of its own (RFC 7692 §7.1.1).
            self._commit(self._deflater.encode_message(message.opcode, message.payload))
        else:
            self._commit(message.frame)

    def close(self, frame: CloseFrame) -> None:
        """Start the closing handshake, or answer the peer's Close if that was being held back."""
        self._start_close_timer()
        if self._deferred is not None:
            self._run_deferred()
            return
        encoded = self._closing.send(frame)
        if encoded is not None:
            self._commit(encoded)

    def flush_now(self) -> None:
        """Write what can be written without waiting: nothing, where the writer is a task."""
        return

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back once, `seconds` from now."""
        return self._timers.after(seconds, callback)

    def answer(self, data: bytes) -> None:
        """Write an HTTP answer instead of frames, then end the connection."""
        self.endpoint = NoReceiver()
        self._commit(data)
        self._end_sending()

    def abort(self, cause: str = "the server dropped the connection") -> None:
        """Drop the connection without another word.

        Args:
            cause: why, as one plain sentence for `Closed.cause`.
        """
        self._cause = self._cause or cause
        self._closing.lost()
        self._release()

    def write_raw(self, data: bytes) -> None:
        """Put bytes into the outbox that are no frame: the answer to the opening handshake."""
        self._commit(data)

    def _commit(self, frame: bytes) -> None:
        self.outbox.append(frame)
        self.outbox_bytes += len(frame)
        self._outbox_filled()

    # Bytes in

    def _received(self, data: bytes | bytearray | memoryview, *, delivered: bool = False) -> None:
        """Take bytes from the peer.

        Args:
            data: what came.
            delivered: whether messages that came right before them were delivered just now.
        """
        endpoint = self.endpoint
        for event in self._decoder.feed(data):
            kind = type(event)
            if kind is str or kind is bytes:
                endpoint.deliver(event)  # type: ignore[arg-type]
                delivered = True
            else:
                self._control(event, delivered)
        if self._decoder.stopped:
            self._decoder_stopped(delivered)

    def _decode_on(self) -> None:
        """Take the next step with the bytes that the decoder has kept."""
        if self._decoder.stopped and not self._reading_paused:
            # A Close frame behind a thousand messages waits for them whatever the steps were.
            self._received(b"", delivered=True)
            self._reading_changed()

    def _decoder_stopped(self, delivered: bool) -> None:
        """See why the decoder has stopped: it has done enough for one step, or the peer owes too much."""
        decoder, allowed = self._decoder, self._limits.unpaid_frames
        if allowed is not None and decoder.unpaid_frames > allowed:
            now = trio.current_time()
            decoder.forgive(int((now - self._forgiven_at) * allowed / _FORGIVEN_IN_SECONDS))
            self._forgiven_at = now
            if decoder.unpaid_frames > allowed:
                reason = "too many frames that carry nothing: empty or tiny fragments, messages, pings, pongs"
                self._control(decoder.give_up(CloseCode.POLICY_VIOLATION, reason), delivered)
        if decoder.stopped and not self._reading_paused:
            self._decode_soon()
        self._reading_changed()

    def _control(self, event: Event, delivered: bool) -> None:
        match event:
            case Ping(payload):
                self._answer_ping(payload)
            case Pong(payload):
                self.endpoint.deliver_pong(payload)
            case CloseReceived(frame):
                if self._closing.state is CloseState.OPEN:
                    self._closing.hear(frame)
                    self._hold_back(lambda: self._answer_close(frame), delivered)
                else:
                    self._answer_close(frame)
            case Failure(code, reason):
                if self._closing.state is CloseState.OPEN:
                    self._hold_back(lambda: self._fail(CloseFrame(code, reason)), delivered)
                else:
                    self._end_sending()

    def _answer_ping(self, payload: bytes) -> None:
        if self._closing.state is not CloseState.OPEN:
            return
        if self.outbox_bytes > self._limits.outbox_bytes:
            # A peer that pings and does not read must not fill our memory. "If an endpoint receives a Ping
            # frame and has not yet sent Pong frame(s) in response to previous Ping frame(s), the endpoint MAY
            # elect to send a Pong frame for only the most recently processed Ping frame." (§5.5.3)
            self._pending_pong = payload
            self.room_wanted = True
        else:
            self._commit(encode_pong(payload))

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
        answer = self._closing.receive(frame)
        if answer is not None:
            self._commit(answer)
            self.endpoint.end(self._closing.outcome())
        self._end_sending()

    def _fail(self, frame: CloseFrame) -> None:
        """Fail the connection (RFC 6455 §7.1.7): Close frame, then the end without waiting for the peer's."""
        self._cause = f"the peer broke the protocol: {frame.reason}"
        encoded = self._closing.send(frame)
        if encoded is not None:
            self._commit(encoded)
        self.endpoint.end(self._closing.outcome(self._cause))
        self._end_sending()

    # Bytes out

    def _made_room(self) -> None:
        """The socket took some of the outbox."""
        if self.outbox_bytes <= self._limits.outbox_bytes:
            # Whoever still waits afterwards sets it again.
            self.room_wanted = False
            if self._pending_pong is not None and self._closing.state is CloseState.OPEN:
                payload, self._pending_pong = self._pending_pong, None
                self._commit(encode_pong(payload))
            self.endpoint.made_room()

    def _end_sending(self) -> None:
        """No frame follows: flush, then FIN."""
        if not self._sending_ended:
            self._sending_ended = True
            self._start_close_timer()
            self._drop_undecoded()
            self._outbox_filled()

    def _drop_undecoded(self) -> None:
        stopped = self._decoder.stopped
        self._decoder.end()
        if stopped:
            self._reading_changed()

    def _join_small_frames(self) -> None:
        """Join frames that wait in the outbox and are smaller than what Python adds to each."""
        outbox, start = self.outbox, self._joined
        if len(outbox) - start < _SMALL_FRAMES:
            return
        tail = outbox[start:]
        if sum(map(len, tail)) < len(tail) * _SMALL_FRAMES:
            outbox[start:] = [b"".join(tail)]
        self._joined = len(outbox)

    def _start_close_timer(self) -> None:
        if self._close_timer is None:
            self._time_close()

    def _time_close(self) -> None:
        # A moment before the end the reader is told to look once more, so that the judgement is just.
        untaken = self._untaken_bytes()
        seconds = self._timeouts.close - _MOMENT_SECONDS
        self._close_timer = self._timers.after(max(0.0, seconds), lambda: self._close_nearly_over(untaken))

    def _close_nearly_over(self, untaken: int) -> None:
        ended = self._sending_ended
        self._read_waiting()
        if self._close_timer is not None:  # else that was the end
            self._close_timer = self._timers.after(_MOMENT_SECONDS, lambda: self._close_over(untaken, ended))

    def _close_over(self, untaken: int, ended: bool) -> None:
        """Give up, unless the peer has taken enough of `untaken` bytes, or has just answered."""
        taken = untaken - self._untaken_bytes()
        enough = max(1.0, _SLOWEST_BYTES_PER_SECOND * self._timeouts.close)
        if taken >= enough or self._sending_ended is not ended:
            self._time_close()
        else:
            self.abort("the close timeout was over")

    # The end

    def _peer_closed(self) -> None:
        """The peer sent FIN. Flush what it may still read, then close."""
        if self._deferred is not None:
            return  # its Close frame waits to be answered, and a peer that has sent FIN may still read
        if self._closing.state in (CloseState.OPEN, CloseState.CLOSE_SENT):
            self._lose("the peer closed TCP without a Close frame")
        self._end_sending()

    def _broken(self, cause: str) -> None:
        """The transport is gone: reset, broken pipe, TLS failure."""
        self._lose(cause)
        self._release()

    def _lose(self, cause: str) -> None:
        self._deferred = None
        if self._closing.state is not CloseState.CLOSED:
            self._cause = self._cause or cause
        self._closing.lost()
        self.endpoint.end(self._closing.outcome(self._cause))

    def _released(self) -> None:
        """The socket is closed: tell the connection."""
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
        self._deferred = None
        self._decoder.end()
        self.outbox.clear()
        self.endpoint.finish(self._closing.outcome(self._cause))

    # Keepalive

    def forgive(self, seconds: float) -> None:
        """Let the time count for nothing in which this process did not run, and could hear nobody."""
        self.heard_at = min(self.heard_at + seconds, trio.current_time())
        if self._pinged_at is not None:
            self._pinged_at = min(self._pinged_at + seconds, trio.current_time())

    def check_alive(self, now: float, keepalive: Keepalive) -> None:
        """Ping a quiet peer, and give up one that did not answer (RFC 6455 §5.5.2)."""
        if keepalive.interval is None or self._closing.state is not CloseState.OPEN:
            return
        if self._reading_paused or self._decoder.stopped:
            # We are the ones who do not listen, so the peer's silence means nothing. Its FIN would be behind
            # what we do not read, but if it has gone, its system answers a ping with a RST.
            self.heard_at = now
            if not self.outbox_bytes and (
                self._pinged_at is None or now - self._pinged_at >= keepalive.interval
            ):
                self._pinged_at = now
                self._commit(encode_ping())
        elif self._pinged_at is not None and self.heard_at < self._pinged_at:
            if now - self._pinged_at >= keepalive.timeout and self._is_silent(self._pinged_at):
                self._cause = f"no answer to a ping for {keepalive.timeout:g} s"
                self._broken(self._cause)
        elif now - self.heard_at >= keepalive.interval:
            self._pinged_at = now
            self._commit(encode_ping())
        else:
            self._pinged_at = None

    def _is_silent(self, since: float) -> bool:
        """Whether nothing has come from the peer `since` then, what we have not read yet included."""
        # Without this look a peer that answered in time is dead because we were busy with others.
        return self._read_waiting() and self._closing.state is CloseState.OPEN and self.heard_at < since
