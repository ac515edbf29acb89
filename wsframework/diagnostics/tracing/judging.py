"""Find everything that is wrong with a server's frames (RFC 6455 §5), and say it in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from wsframework.closes import is_valid_close_code
from wsframework.diagnostics.problems import Problem
from wsframework.diagnostics.tracing.frames import Frame
from wsframework.wire import MAX_CONTROL_PAYLOAD, Opcode

__all__ = ["FrameJudge"]


class FrameJudge:
    """Checks a server's frames, one after the other, against RFC 6455 §5.

    Args:
        compression: whether permessage-deflate was agreed on.
    """

    def __init__(self, *, compression: bool = False) -> None:
        self._compression = compression
        self._in_message = False
        self._closed = False

    def judge(self, frame: Frame) -> list[Problem]:
        """Return what is wrong with the next frame."""
        problems = [*self._judge_header(frame)]
        if frame.opcode >= Opcode.CLOSE:
            problems += _judge_control(frame)
        else:
            problems += self._judge_order(frame)
        self._closed = self._closed or frame.opcode == Opcode.CLOSE
        return problems

    def _judge_header(self, frame: Frame) -> Iterator[Problem]:
        if frame.masked:
            yield Problem(
                "frame.masked",
                "The server masks its frames, which only clients do; a client must close the connection "
                "(RFC 6455 §5.1).",
            )
        if frame.name == "reserved":
            yield Problem(
                "frame.opcode",
                f"The server sent a frame with the reserved opcode {frame.opcode} (RFC 6455 §5.2).",
            )
        allowed = (1,) if self._compression and frame.opcode in (Opcode.TEXT, Opcode.BINARY) else ()
        bits = [f"RSV{bit}" for bit in frame.rsv if bit not in allowed]
        if bits:
            why = "no extension was agreed on that uses it"
            if bits == ["RSV1"] and self._compression:
                why = "only a message's first frame may be marked as compressed (RFC 7692 §6)"
            yield Problem(
                "frame.reserved_bits", f"The server set {' and '.join(bits)}, but {why} (RFC 6455 §5.2)."
            )
        fewest = 2 if frame.length < 126 else 4 if frame.length < 65536 else 10
        if frame.header_bytes - (4 if frame.masked else 0) > fewest:
            yield Problem(
                "frame.length",
                f"The server wrote the length {frame.length} with more bytes than it needs (RFC 6455 §5.2).",
            )

    def _judge_order(self, frame: Frame) -> Iterator[Problem]:
        if self._closed:
            yield Problem(
                "frame.after_close", "The server sent data after its Close frame (RFC 6455 §5.5.1)."
            )
        if frame.opcode == Opcode.CONTINUATION and not self._in_message:
            yield Problem(
                "frame.continuation",
                "The server sent a continuation frame outside of a message (RFC 6455 §5.4).",
            )
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY) and self._in_message:
            yield Problem(
                "frame.interleaved",
                "The server started a message before it had finished the one before (RFC 6455 §5.4).",
            )
        self._in_message = not frame.fin


def _judge_control(frame: Frame) -> Iterator[Problem]:
    if not frame.fin:
        yield Problem("frame.fragmented_control", "The server fragmented a control frame (RFC 6455 §5.5).")
    if frame.length > MAX_CONTROL_PAYLOAD:
        yield Problem(
            "frame.long_control",
            f"The server sent a control frame of {frame.length} bytes; 125 are allowed (RFC 6455 §5.5).",
        )
    if frame.opcode != Opcode.CLOSE or frame.missing:
        return
    if frame.length == 1:
        yield Problem("close.half_code", "The server sent a Close frame with half a code (RFC 6455 §5.5.1).")
    code = frame.close_code
    if code is not None and not is_valid_close_code(code):
        yield Problem(
            "close.code", f"The server sent close code {code}, which may not be on the wire (RFC 6455 §7.4)."
        )
    try:
        frame.payload[2:].decode()
    except UnicodeDecodeError:
        yield Problem(
            "close.reason", "The server sent a close reason that is not UTF-8 (RFC 6455 §5.5.1, §8.1)."
        )
