"""A strict recorder of frames: the judge of everything that one side of a connection has sent.

`FrameRecorder` takes bytes, cut anywhere, and raises `InvalidFrame` on the first that RFC 6455 does not
allow where it stands: a torn frame shows as a bad header, or as bytes missing at the end. `Recorded` puts one
into a stream.
"""

from __future__ import annotations

import attrs
import trio

from wsframework.closes import CloseFrame
from wsframework.testing.faults import StreamWrapper
from wsframework.wire import CloseReceived, Decoder, Failure, Inflater, Opcode, apply_mask

__all__ = ["Frame", "FrameRecorder", "InvalidFrame", "Recorded"]


class InvalidFrame(AssertionError):
    """The bytes are no frames that RFC 6455 allows there."""


@attrs.frozen
class Frame:
    """One frame (RFC 6455 §5.2).

    Attributes:
        opcode: what it is.
        payload: its bytes, unmasked, as they were on the wire (compressed, when `rsv1` says so).
        fin: whether it is its message's last.
        rsv1: whether it starts a compressed message (RFC 7692 §6).
    """

    opcode: Opcode
    payload: bytes
    fin: bool = True
    rsv1: bool = False


class FrameRecorder:
    """Bytes in, frames and messages out; the first byte that is wrong raises.

    Args:
        masked: True for what a client sends, False (the default) for what a server sends.
        http_head: whether the opening handshake's head comes first. What follows a refusal is not judged.
        inflater: what inflates compressed messages, when compression was negotiated.

    Attributes:
        head: the HTTP head, up to and including its empty line.
        frames: every whole frame, control frames included, in order.
        messages: every whole message.
        close: the Close frame, once it came; nothing may follow it.
    """

    def __init__(
        self, *, masked: bool = False, http_head: bool = False, inflater: Inflater | None = None
    ) -> None:
        self.head = b""
        self.frames: list[Frame] = []
        self.messages: list[str | bytes] = []
        self.close: CloseFrame | None = None
        self._masked = masked
        self._in_head = http_head
        self._refused = False
        self._rest = bytearray()
        self._decoder = Decoder(masked=masked, max_message_bytes=None, inflater=inflater)
        self._open_message = False

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes.

        Raises:
            InvalidFrame: they break a rule of RFC 6455.
        """
        new = bytes(data)
        if self._in_head:
            self.head += new
            head, end, new = self.head.partition(b"\r\n\r\n")
            if not end:
                return
            self._in_head = False
            self.head = head + end
            self._refused = self.head.startswith(b"HTTP/") and self.head.split()[1:2] != [b"101"]
        if self._refused:
            return
        self._rest += new
        while (frame := self._next_frame()) is not None:
            self.frames.append(frame)
            if frame.opcode < Opcode.CLOSE:
                self._open_message = not frame.fin
        # A frame that is not whole yet is judged by what is there of it.
        self._judge(new)

    def end(self) -> None:
        """Take note that no more bytes come.

        Raises:
            InvalidFrame: a frame or a message is not complete.
        """
        if self._in_head and self.head:
            raise InvalidFrame(f"the bytes end in the middle of the HTTP head: {self.head!r}")
        if self._rest:
            raise InvalidFrame(
                f"the bytes end in the middle of a frame: {len(self._rest)} bytes of it came, "
                f"starting with {self._rest[:14].hex(' ')}, after {self._so_far()}"
            )
        if self._open_message:
            raise InvalidFrame(f"the bytes end in the middle of a fragmented message, after {self._so_far()}")

    def _judge(self, data: bytes) -> None:
        if self.close is not None:
            if data:
                raise InvalidFrame(f"{len(data)} bytes came after the Close frame {self.close}")
            return
        for event in self._decoder.feed(data):
            match event:
                case str() | bytes():
                    self.messages.append(event)
                case Failure(code, reason):
                    raise InvalidFrame(f"{reason} (close code {int(code)}), after {self._so_far()}")
                case CloseReceived(frame):
                    self.close = frame
        if self.close is not None and (self._rest or self.frames[-1].opcode != Opcode.CLOSE):
            raise InvalidFrame(f"bytes came after the Close frame {self.close}")

    def _next_frame(self) -> Frame | None:
        data = self._rest
        if len(data) < 2:
            return None
        length, start = data[1] & 0x7F, 2
        if length > 125:
            start += 2 if length == 126 else 8
            length = int.from_bytes(data[2:start], "big")
        key_start = start
        if self._masked:
            start += 4
        if len(data) < start or len(data) < start + length:
            return None
        payload = bytes(data[start : start + length])
        if self._masked:
            payload = apply_mask(payload, bytes(data[key_start:start]))
        try:
            opcode = Opcode(data[0] & 0x0F)
        except ValueError:
            return None  # the decoder says it better
        frame = Frame(opcode, payload, fin=data[0] >= 0x80, rsv1=bool(data[0] & 0x40))
        del data[: start + length]
        return frame

    def _so_far(self) -> str:
        return f"{len(self.frames)} whole frames and {len(self.messages)} whole messages"


class Recorded(StreamWrapper):
    """A stream whose reads go through a `FrameRecorder`.

    Args:
        stream: what to wrap; for a client's end, before the opening handshake.
        recorder: where to; None for a new one that expects a server's answer and frames.
        check_end: whether an end in the middle of a frame raises too; a connection that is lost may end so.

    Attributes:
        recorder: what was read.
    """

    def __init__(
        self, stream: trio.abc.Stream, recorder: FrameRecorder | None = None, *, check_end: bool = True
    ) -> None:
        super().__init__(stream)
        self._check_end = check_end
        self.recorder = recorder if recorder is not None else FrameRecorder(http_head=True)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive and record.

        Raises:
            InvalidFrame: what came is no valid frame, or ends in the middle of one.
        """
        data = await self.stream.receive_some(max_bytes)
        if data:
            self.recorder.feed(data)
        elif self._check_end:
            self.recorder.end()
        return data
