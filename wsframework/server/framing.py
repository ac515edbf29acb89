"""Frames in, frames out, and keepalive: what all native transports share, except for the end.

Theory of operation
-------------------
    bytes in  -> `_received` -> decoder -> messages to the endpoint; control frames are handled here
    `send`    -> outbox (a list of encoded frames) -> bytes out, by the subclass

`ending` has the rest: Close frames, the close timeout, FIN.

One read is decoded in steps (see `wire.decoder`). Between two steps the endpoint may call `pause_reading`.
The bytes that are not decoded yet, at most one read, then wait as if they were still in the kernel, and so do
pings, the peer's Close and its FIN behind them. While the decoder is `stopped` the subclass does not read; it
continues with `_decode_on` in a turn of its own (`_decode_soon`), so that other connections come first.

A broadcast is encoded once for all members, but each member's compressor has a history of its own (RFC 7692
§7.1.1). To compress 64 KiB takes 1.6 ms, and for a thousand members in one turn it would stop the event loop
for more than a second. So a broadcast is committed as it is, and compressed in a turn of its own
(`_compress_soon`), or before anything that must follow it.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cache

import trio

from wsframework.closes import CloseCode, CloseFrame
from wsframework.config import Keepalive, Limits, Timeouts
from wsframework.server.ending import EndingTransport
from wsframework.timers import Timers
from wsframework.transport import EncodedMessage
from wsframework.wire import (
    Budget,
    CloseReceived,
    CloseState,
    Deflater,
    Event,
    Failure,
    Inflater,
    Opcode,
    Ping,
    Pong,
    decoder_class,
    encode_message,
    encode_ping,
    encode_pong,
)

__all__ = ["READ_BYTES", "FrameTransport"]

READ_BYTES = 64 * 1024
"""The most that is read from one connection per turn, so that a flood does not starve the others."""

_INFLATED_BYTES = 64 * 1024
"""What one step of decoding may inflate before the endpoint is asked: as much as any other read brings."""

_FORGIVEN_IN_SECONDS = 64
"""A debt of `Limits.unpaid_frames` is forgiven in this time."""

_SMALL_FRAMES = 64
"""Waiting frames are joined if there are this many, of fewer bytes each: Python adds 40 bytes to each."""


@cache
def _budget(inflated_bytes: int, unpaid_frames: int | None) -> Budget:
    return Budget(inflated_bytes=inflated_bytes, unpaid_frames=unpaid_frames)


class FrameTransport(EndingTransport):
    """One connection's frames; subclasses move its bytes.

    Args:
        limits: sizes of messages, inbox and outbox.
        timeouts: for the connection's end.
        timers: for these timeouts.
        codecs: compressor and decompressor, if permessage-deflate was agreed on.

    Attributes:
        heard_at: `trio.current_time()` when the peer last sent something.
        room_wanted: whether `made_room` of the endpoint is to be called when the outbox has room.
    """

    __slots__ = (
        "_deflater",
        "_forgiven_at",
        "_joined",
        "_limits",
        "_pending_pong",
        "_pinged_at",
        "_reading_paused",
        "_uncompressed",
        "heard_at",
        "room_wanted",
    )

    def __init__(
        self,
        *,
        limits: Limits,
        timeouts: Timeouts,
        timers: Timers,
        codecs: tuple[Deflater, Inflater] | None = None,
    ) -> None:
        self._deflater: Deflater | None = None
        inflater: Inflater | None = None
        if codecs is not None:
            self._deflater, inflater = codecs
        decoder = decoder_class(
            max_message_bytes=limits.message_bytes,
            max_fragments=limits.message_fragments,
            inflater=inflater,
            budget=_budget(min(_INFLATED_BYTES, limits.unread_bytes), limits.unpaid_frames),
        )
        super().__init__(timeouts, timers, decoder)
        self._uncompressed: list[EncodedMessage] | None = None
        self._joined = 0  # so many pieces of the outbox need not be looked at for small ones
        self.room_wanted = False
        self.heard_at = trio.current_time()
        self._limits = limits
        self._forgiven_at = self.heard_at
        self._pending_pong: bytes | None = None
        self._pinged_at: float | None = None
        self._reading_paused = False

    # What subclasses do

    @abstractmethod
    def pause_reading(self) -> None:
        """Take no more bytes from the socket until `resume_reading`."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Take bytes from the socket again."""

    def _decode_soon(self) -> None:
        """Call `_decode_on` after other connections have had their turn."""

    def _compress_soon(self) -> None:
        """Call `_compress` when other connections have had their turn."""
        self._outbox_filled()

    # From the endpoint

    def send(self, opcode: int, payload: bytes) -> None:
        """Encode and commit one whole message or ping."""
        if opcode == Opcode.PING:
            self._commit(encode_ping(payload))
        elif self._deflater is not None:
            self._compress()
            self._send_compressed(self._deflater, opcode, payload)
        else:
            self._commit(encode_message(opcode, payload))

    def send_encoded(self, message: EncodedMessage) -> None:
        """Commit a message that was encoded once for many connections."""
        if self._deflater is None:
            self._commit(message.frame)
            return
        self._compress_soon()  # first, as in `_commit`
        if self._uncompressed is None:
            self._uncompressed = []
        self._uncompressed.append(message)
        self.outbox_bytes += len(message.frame)

    def _compress(self) -> None:
        """Compress the broadcasts that were committed."""
        messages = self._uncompressed
        if messages is None:
            return
        assert self._deflater is not None
        done = 0
        try:
            for message in messages:
                self._send_compressed(self._deflater, message.opcode, message.payload)
                self.outbox_bytes -= len(message.frame)
                done += 1
        finally:
            del messages[:done]
        self._uncompressed = None

    def _complete_outbox(self) -> None:
        self._compress()

    def _send_compressed(self, deflater: Deflater, opcode: int, payload: bytes) -> None:
        try:
            self._commit(deflater.encode_message(opcode, payload))
        except BaseException:
            # No memory, or no room on Python's stack. The peer must not miss what later messages refer to.
            deflater.start_over()
            raise

    def flush_now(self) -> None:
        """Write what can be written without waiting: nothing here, because a task writes."""
        return

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
            # A Close frame waits for all messages before it, in whichever steps they were decoded.
            self._received(b"", delivered=True)
            self._reading_changed()

    def _decoder_stopped(self, delivered: bool) -> None:
        """Continue later, or fail the peer that has sent too many frames that carry nothing."""
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

    # Bytes out

    def _made_room(self) -> None:
        """Use the room in the outbox, from which the socket took bytes."""
        if self.outbox_bytes <= self._limits.outbox_bytes:
            # What still waits afterwards sets it again.
            self.room_wanted = False
            if self._pending_pong is not None and self._closing.state is CloseState.OPEN:
                payload, self._pending_pong = self._pending_pong, None
                self._commit(encode_pong(payload))
            self.endpoint.made_room()

    def _join_small_frames(self) -> None:
        """Join frames that wait in the outbox and are smaller than what Python adds to each."""
        outbox, start = self.outbox, self._joined
        if len(outbox) - start < _SMALL_FRAMES:
            return
        tail = outbox[start:]
        if sum(map(len, tail)) < len(tail) * _SMALL_FRAMES:
            outbox[start:] = [b"".join(tail)]
        self._joined = len(outbox)

    # Keepalive

    def forgive(self, seconds: float) -> None:
        """Do not count the `seconds` in which this process did not run against the peer."""
        self.heard_at = min(self.heard_at + seconds, trio.current_time())
        if self._pinged_at is not None:
            self._pinged_at = min(self._pinged_at + seconds, trio.current_time())

    def check_alive(self, now: float, keepalive: Keepalive) -> None:
        """Ping a quiet peer, and drop one that did not answer (RFC 6455 §5.5.2).

        Args:
            now: `trio.current_time()`.
            keepalive: after how many seconds.
        """
        if keepalive.interval is None or self._closing.state is not CloseState.OPEN:
            return
        if self._reading_paused or self._decoder.stopped:
            # We do not read, so the peer's silence means nothing. Its FIN would be behind what we do not
            # read, but if the peer has ended, its system answers a ping with RST.
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
        """Whether nothing has come from the peer since `since`, including what we have not read yet."""
        # Otherwise a peer that answered in time would be dropped because we were busy with others.
        return self._read_waiting() and self._closing.state is CloseState.OPEN and self.heard_at < since
