"""Decode frames and hand over messages (RFC 6455 §5, §6.2).

How it works. `feed` takes what the socket gave and returns what it means. Nearly all traffic is short
messages, whole in one frame and whole in the buffer; they never leave the inner loop of `feed`, which looks
at four things only: the first byte says final, uncompressed and text or binary, the second says masked and
short, the bytes are all there, and no other message is in progress. Everything else goes through
`_read_frame`, frame by frame, where all the rules stand, each beside its sentence of the RFC.

What it holds. Between calls a decoder keeps nothing but the start of a header, or of a control frame, that is
not complete (at most 130 bytes), and one `Assembly` while a message is in progress. Idle, it has neither.

What one call costs. A decoder with a `Budget` does a bounded amount of work a call: after some frames, or
some inflated bytes, or some compressed ones, `feed` returns, keeps the rest of its bytes, and says so by
`stopped`; the next call goes on there. So 64 KiB of empty frames, ten thousand of them, are not one step of
half a tenth of a second, 62 KiB of small deflate bombs do not become 61 MiB before the caller can stop, and
deflate blocks that hold nothing but the tables to decode them do not cost more than other bytes.

What a peer owes. A frame costs the same work whatever it carries, so each must bring bytes: `debt` grows by
`_FRAME_BYTES` with every frame, and shrinks by the bytes that come. Frames with 16 bytes of payload and more
pay for themselves, and a message in one frame owes nothing as long as it says something: it is what a
connection is there for. Nor does a piece of a frame, however small: each costs its sender a packet, or a
record of TLS. The caller, who has a clock, forgives what is owed with time; past the budget's allowance
`feed` stops as above.

How it ends. The first broken rule, or the peer's Close frame, is the last event; what came before it in the
same bytes is still handed over, what comes after it is ignored: "After receiving a control frame indicating
the connection should be closed, a peer discards any further data received" (§1.4).
"""

from __future__ import annotations

import attrs

from wsframework.closes import CloseCode
from wsframework.wire.assembly import Assembly
from wsframework.wire.closing import read_close
from wsframework.wire.compression import Inflater
from wsframework.wire.events import (
    CloseReceived,
    Event,
    Failure,
    Ping,
    Pong,
    ProtocolViolation,
    protocol_error,
    too_big,
)
from wsframework.wire.frames import MAX_CONTROL_PAYLOAD, extended_length
from wsframework.wire.implementations import choose
from wsframework.wire.masking import apply_mask
from wsframework.wire.opcodes import Opcode

__all__ = ["Budget", "Decoder", "decoder_class"]

_FRAMES_PER_CALL = 128
"""Frames that go through `_read_frame`, of 2 to 10 µs each: about half a millisecond with what they cause."""

_MESSAGES_PER_CALL = 128
"""Whole short messages: their handler takes them in one go, at some microseconds each."""

_COMPRESSED_PER_CALL = 16 * 1024
"""Compressed bytes. zlib needs up to 1.8 ms for them: a block of 11 bytes that inflates to nothing has tables
to be built. For as many bytes of ordinary text it needs a fifth of that."""

_SHORT_RUN_BYTES = 896
"""How far the inner loop goes before it counts: 128 messages of one byte."""

_FRAME_BYTES = 22
"""The bytes a frame must bring to pay for its own work: six of header and 16 of payload."""

_UNPAID_BYTES = 16
"""What an empty frame leaves owing."""


@attrs.frozen
class Budget:
    """How much a decoder does and takes before its caller is asked.

    Attributes:
        inflated_bytes: what one call may inflate before it stops at the end of a message.
        unpaid_frames: how many frames that carry nothing the peer may be ahead; None for any number.
    """

    inflated_bytes: int
    unpaid_frames: int | None


class Decoder:
    """Bytes in, events out, for one connection.

    Args:
        masked: True on the server's side, where frames must come masked; False on the client's.
        max_message_bytes: the limit of one message, on the wire and again after inflating; None for none.
        max_fragments: the limit of frames in one message; None for none.
        inflater: what inflates compressed messages, when permessage-deflate was negotiated.
        budget: bounds of one call; None decodes everything at once.

    Attributes:
        stopped: whether the last `feed` returned before the end of its bytes, or the peer owes too much. Call
            `feed` again, or `give_up`.
        debt: bytes by which the peer's frames are more than its payload pays for.
    """

    __slots__ = (
        "_assembly",
        "_budget",
        "_buffer",
        "_compressed",
        "_ended",
        "_inflated",
        "_inflater",
        "_masked",
        "_max_fragments",
        "_max_message_bytes",
        "_short_top",
        "_start",
        "debt",
        "stopped",
    )

    def __init__(
        self,
        *,
        masked: bool = True,
        max_message_bytes: int | None,
        max_fragments: int | None = None,
        inflater: Inflater | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._masked = masked
        self._max_message_bytes = max_message_bytes
        self._max_fragments = max_fragments
        self._inflater = inflater
        self._budget = budget
        # Bytes that were not decoded, from `_start` on: the start of a frame, or what a call has left.
        self._buffer = b""
        self._start = 0
        self._inflated = 0
        self._compressed = 0
        self._assembly: Assembly | None = None
        self._ended = False
        self.debt = 0
        self.stopped = False
        # The highest second byte of a frame for the inner loop: masked, with a length of seven bits and
        # below the limit. Unmasked frames never go there.
        longest = 125 if max_message_bytes is None else min(125, max_message_bytes)
        self._short_top = 0x80 + longest if masked else 0

    @property
    def buffered_bytes(self) -> int:
        """Bytes held: of a message in progress, after inflating, and those that were not decoded yet."""
        size = self._assembly.size if self._assembly is not None else 0
        return len(self._buffer) - self._start + size

    @property
    def unread(self) -> int:
        """How many bytes of the payload of the frame in progress have not come yet; 0 between frames."""
        return self._assembly.unread if self._assembly is not None else 0

    @property
    def unpaid_frames(self) -> int:
        """How many frames that carry nothing the debt amounts to."""
        return self.debt // _UNPAID_BYTES

    def forgive(self, frames: int) -> None:
        """Take so many frames that carry nothing off the debt."""
        self.debt = max(0, self.debt - frames * _UNPAID_BYTES)
        self.stopped = bool(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview = b"") -> list[Event]:
        """Take bytes from the peer and return what they complete, in order.

        Args:
            data: any number of bytes, cut anywhere. The caller may reuse the buffer afterwards. None are
                needed to go on where the last call stopped.

        Returns:
            Messages (`str`, `bytes`), `Ping` and `Pong`; a `CloseReceived` or a `Failure` comes last and is
            the last one ever. When the budget of a call is spent, `stopped` is true and bytes are left.

        Source: RFC 6455 §5.2 to §5.6, §6.2, §7.1.7, §8.1.
        """
        # A read that is one whole short message: nearly every read of a connection that waits for answers.
        # Whatever else it is, and whatever is wrong with it, is for the rest.
        if type(data) is bytes and self._assembly is None and not self._buffer and not self.debt:
            size = len(data)
            if (
                size > 6
                and ((first := data[0]) == 0x81 or first == 0x82)
                and (second := data[1]) == size + 0x7A
                and second <= self._short_top
            ):
                payload = apply_mask(data[6:], data[2:6])
                try:
                    return [payload if first == 0x82 else payload.decode()]
                except UnicodeDecodeError:
                    pass
        events: list[Event] = []
        if self._ended:
            return events
        try:
            pos, frames, short_top = 0, 0, self._short_top
            if self._buffer or self._assembly is not None or type(data) is not bytes:
                data, pos = self._go_on(data, events)
            size = len(data)
            stop = size if size <= _SHORT_RUN_BYTES else self._run_end(pos, size)
            while pos < size:
                if self._assembly is None:
                    # pos + 6: a short masked header, whole. Empty messages go the long way: they are counted.
                    while (start := pos + 6) <= stop:
                        if (first := data[pos]) != 0x81 and first != 0x82:
                            break
                        second = data[pos + 1]
                        if second <= 0x80 or second > short_top or (end := start + second - 0x80) > size:
                            break
                        payload = apply_mask(data[start:end], data[pos + 2 : start])
                        events.append(payload.decode() if first == 0x81 else payload)
                        pos = end
                    else:
                        if pos == size:
                            break
                        if stop < size:
                            if len(events) >= _MESSAGES_PER_CALL:
                                self._stop(data, pos)
                                break
                            stop = self._run_end(pos, size)
                            continue
                end = self._read_frame(data, pos, events)
                if end == pos:
                    self._buffer = data[pos:]
                    break
                pos = end
                frames += 1
                if self._budget is not None and self._spent(frames) and pos < size and not self._ended:
                    self._stop(data, pos)
                    break
            if self.debt:
                self._pay(pos)
        except (ProtocolViolation, UnicodeDecodeError) as error:
            events.append(self._fail(error))
        return events

    def end(self) -> None:
        """Ignore everything from now on, and drop what is held."""
        if self._ended:
            return
        self._ended = True
        self._short_top = 0
        self.stopped = False
        self._buffer = b""
        self._start = 0
        self._assembly = None
        self._inflater = None

    def give_up(self, code: CloseCode, reason: str) -> Failure:
        """Fail the connection for a reason that is not in the bytes."""
        self.end()
        return Failure(code, reason)

    def _run_end(self, pos: int, size: int) -> int:
        """Return how far the inner loop may go from `pos` before it counts."""
        return size if self._budget is None else min(size, pos + _SHORT_RUN_BYTES)

    def _spent(self, frames: int) -> bool:
        """Whether the call has done enough; then the next one counts anew."""
        assert self._budget is not None
        inflated, compressed = self._inflated, self._compressed
        if (
            frames < _FRAMES_PER_CALL
            and inflated < self._budget.inflated_bytes
            and compressed < _COMPRESSED_PER_CALL
        ):
            return False
        self._inflated = self._compressed = 0
        return True

    def _stop(self, data: bytes, pos: int) -> None:
        """Leave the bytes from `pos` on to the next call."""
        self.stopped = True
        self._buffer = data
        self._start = pos

    def _fail(self, error: ProtocolViolation | UnicodeDecodeError) -> Failure:
        self.end()
        if isinstance(error, ProtocolViolation):
            return Failure(error.code, error.reason)
        # "fail the connection" with 1007, "not consistent with the type of the message" (§7.4.1, §8.1).
        octet = error.object[error.start]
        reason = f"invalid UTF-8 in a text message: {error.reason} (0x{octet:02x})"
        return Failure(CloseCode.INVALID_PAYLOAD, reason)

    def _go_on(self, data: bytes | bytearray | memoryview, events: list[Event]) -> tuple[bytes, int]:
        """Go on with what is in progress; return what is to be read then, and where in it."""
        assembly = self._assembly
        if assembly is not None and assembly.unread and not self._counts(assembly):
            end = self._read_payload(assembly, memoryview(data), 0, events)
            self.debt -= end  # `feed` pays with the rest only
            if end == len(data):
                return b"", 0
            data = memoryview(data)[end:]
        return self._rejoin(data) if self._buffer else (bytes(data), 0)

    def _counts(self, assembly: Assembly) -> bool:
        """Whether one call may take only so many bytes of this message."""
        return assembly.compressed and self._budget is not None

    def _rejoin(self, data: bytes | bytearray | memoryview) -> tuple[bytes, int]:
        """Return what was left, with `data` behind it, and where in it to go on."""
        buffer, start = self._buffer, self._start
        self._buffer = b""
        self._start = 0
        self.stopped = False
        if not len(data):
            self.debt += start  # the call will pay with all of these bytes, and these it has had already
            return buffer, start
        return b"".join((memoryview(buffer)[start:] if start else buffer, data)), 0

    def _pay(self, received: int) -> None:
        """Pay for the debt with bytes that came, and see whether too much of it is left."""
        self.debt = max(0, self.debt - received)
        budget = self._budget
        if budget is not None and budget.unpaid_frames is not None and not self._ended:
            self.stopped = self.stopped or self.unpaid_frames > budget.unpaid_frames

    def _read_frame(self, data: bytes, pos: int, events: list[Event]) -> int:
        """Read the frame at `pos`, or as much of it as there is.

        Returns:
            Where the next frame starts; `pos` itself when nothing can be done before more bytes come.
        """
        if self._assembly is not None and self._assembly.unread:  # a call has stopped inside it
            return self._read_payload(self._assembly, memoryview(data), pos, events)
        size = len(data)
        if size - pos < 2:
            return pos
        first, second = data[pos], data[pos + 1]
        self._check_header(first, second)
        length = second & 0x7F
        start = pos + 2
        if length > MAX_CONTROL_PAYLOAD:
            start += 2 if length == 126 else 8
            if size < start:
                return pos
            length = extended_length(data[pos + 2 : start])
        opcode = first & 0x0F
        fin = first >= 0x80
        if opcode < Opcode.CLOSE and self._max_message_bytes is not None:
            # "Implementations that have [...] limitations regarding the frame size or total message size
            # after reassembly from multiple frames MUST protect themselves against exceeding those limits."
            # (§10.4)
            # So before the masking key, let alone the payload: nothing is read of what cannot be taken.
            begun = self._assembly.wire_bytes if self._assembly is not None else 0
            if begun + length > self._max_message_bytes:
                raise too_big(self._max_message_bytes)
        key = b""
        if self._masked:
            start += 4
            if size < start:
                return pos
            key = data[start - 4 : start]
        end = start + length
        if opcode >= Opcode.CLOSE:
            if size < end:
                return pos  # a control frame means nothing before it is whole, and it is short
            self.debt += _FRAME_BYTES
            payload = data[start:end]
            events.append(self._control_event(opcode, apply_mask(payload, key) if key else payload))
            return size if self._ended else end
        self.debt += _FRAME_BYTES
        if self._assembly is None:
            if first in (0x81, 0x82) and end <= size:  # a whole message: final, not compressed, all there
                payload = apply_mask(memoryview(data)[start:end], key) if key else data[start:end]
                events.append(payload.decode() if opcode == Opcode.TEXT else payload)
                return end
            self._assembly = Assembly(
                text=opcode == Opcode.TEXT,
                max_message_bytes=self._max_message_bytes,
                max_fragments=self._max_fragments,
                # RSV1 of the first frame speaks for the whole message (RFC 7692 §6).
                inflater=self._inflater if first & 0x40 else None,
            )
        self._assembly.begin_frame(length, key, fin)
        return self._read_payload(self._assembly, memoryview(data), start, events)

    def _read_payload(self, assembly: Assembly, data: memoryview, start: int, events: list[Event]) -> int:
        """Give `assembly` what `data` has of its frame from `start` on; return where that ends."""
        end = min(start + assembly.unread, len(data))
        if self._counts(assembly):
            end = min(end, start + _COMPRESSED_PER_CALL - self._compressed)
            self._compressed += end - start
        assembly.add(data[start:end])
        if assembly.fin and not assembly.unread:
            events.append(assembly.finish())
            if assembly.compressed:
                self._inflated += assembly.size
            if assembly.size and assembly.fragments == 1:
                self.debt -= _FRAME_BYTES
            self._assembly = None
        return end

    def _check_header(self, first: int, second: int) -> None:
        """Check all that a frame's first two bytes tell, so that a bad frame is refused before it comes."""
        opcode = first & 0x0F
        if first & 0x70:
            # "MUST be 0 unless an extension is negotiated that defines meanings for non-zero values" (§5.2)
            if first & 0x30:
                raise protocol_error("RSV2 or RSV3 is set, and no extension uses them")
            if self._inflater is None:
                raise protocol_error("RSV1 is set, and no compression was negotiated")
            # "An endpoint MUST NOT set the "Per-Message Compressed" bit of control frames and non-first
            # fragments of a data message." (RFC 7692 §6)
            if opcode not in (Opcode.TEXT, Opcode.BINARY):
                raise protocol_error("RSV1 is set on a frame that starts no message")
        if opcode >= Opcode.CLOSE:
            if opcode > Opcode.PONG:
                raise protocol_error(f"opcode {opcode} is reserved")
            # "All control frames MUST have a payload length of 125 bytes or less and MUST NOT be
            # fragmented." (§5.5)
            if first < 0x80:
                raise protocol_error("a control frame is fragmented")
            if second & 0x7F > MAX_CONTROL_PAYLOAD:
                raise protocol_error("a control frame has more than 125 bytes of payload")
        elif opcode > Opcode.BINARY:
            # "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket Connection_"
            raise protocol_error(f"opcode {opcode} is reserved")
        elif opcode == Opcode.CONTINUATION:
            if self._assembly is None:
                raise protocol_error("a continuation frame continues no message")
        elif self._assembly is not None:
            # "The fragments of one message MUST NOT be interleaved between the fragments of another" (§5.4)
            raise protocol_error("a message starts before the last one ended")
        if (second >= 0x80) != self._masked:
            # "The server MUST close the connection upon receiving a frame that is not masked. [...] A client
            # MUST close a connection if it detects a masked frame." (§5.1)
            raise protocol_error(
                "a frame from a client is not masked" if self._masked else "a frame from a server is masked"
            )

    def _control_event(self, opcode: int, payload: bytes) -> Event:
        if opcode == Opcode.PING:
            return Ping(payload)
        if opcode == Opcode.PONG:
            return Pong(payload)
        frame = read_close(payload)
        self.end()
        return CloseReceived(frame)


decoder_class = choose("decoding", {"pure": Decoder})
"""What a connection's decoder is made of: it behaves as `Decoder` does."""
