"""Split bytes into frames, without checking them.

`wire.Decoder` returns messages, and stops at the first broken rule. A trace shows each frame as it came,
broken ones included, so this module splits the bytes a second time.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from wsframework.diagnostics.tracing.steps import Payload
from wsframework.wire import Opcode, apply_mask

__all__ = ["Frame", "FrameSplitter", "preview"]

_KEPT_BYTES = 512
"""How much of a payload is kept: more than a control frame may have, and enough for a preview."""

_PREVIEW_BYTES = 256


@attrs.frozen
class Frame:
    """A frame as it came (RFC 6455 §5.2).

    Attributes:
        first: its first byte: FIN, three reserved bits, opcode.
        masked: the mask bit.
        masking_key: four bytes, or none.
        length: of the payload, as the header says it.
        header_bytes: the header's bytes, including the masking key.
        payload: the part that is kept, unmasked.
        missing: how many bytes of the payload did not come.
    """

    first: int
    masked: bool
    masking_key: bytes
    length: int
    header_bytes: int
    payload: bytes
    missing: int = 0

    @property
    def opcode(self) -> int:
        """The opcode (RFC 6455 §5.2)."""
        return self.first & 0x0F

    @property
    def fin(self) -> bool:
        """Whether it is its message's last."""
        return self.first >= 0x80

    @property
    def rsv(self) -> tuple[int, ...]:
        """Which of the three reserved bits are set."""
        return tuple(number for number, bit in ((1, 0x40), (2, 0x20), (3, 0x10)) if self.first & bit)

    @property
    def name(self) -> str:
        """The opcode's name in lower case, or "reserved"."""
        try:
            return Opcode(self.opcode).name.lower()
        except ValueError:
            return "reserved"

    @property
    def close_code(self) -> int | None:
        """The close code of a Close frame that has one."""
        if self.opcode != Opcode.CLOSE or len(self.payload) < 2:
            return None
        return int.from_bytes(self.payload[:2], "big")

    @property
    def close_reason(self) -> str | None:
        """The close reason of a Close frame."""
        return self.payload[2:].decode(errors="replace") if self.opcode == Opcode.CLOSE else None


class FrameSplitter:
    """Split one direction's bytes into frames."""

    def __init__(self) -> None:
        self._header = b""
        self._frame: Frame | None = None
        self._kept = b""
        self._left = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes and yield the frames that they complete."""
        while data:
            if self._frame is None:
                self._header += data
                data = b""
                found = _read_header(self._header)
                if found is None:
                    return
                self._frame, self._kept, self._left = found, b"", found.length
                data, self._header = self._header[found.header_bytes :], b""
            taken = data[: self._left]
            data = data[len(taken) :]
            self._left -= len(taken)
            self._kept += taken[: _KEPT_BYTES - len(self._kept)]
            if not self._left:
                yield self._finish()

    def take_incomplete(self) -> Frame | None:
        """Return the frame whose header has come and whose payload has not, and forget it."""
        return None if self._frame is None else self._finish()

    @property
    def header_bytes(self) -> int:
        """How many bytes of an incomplete header have come."""
        return len(self._header)

    def _finish(self) -> Frame:
        frame, self._frame = self._frame, None
        assert frame is not None
        payload = apply_mask(self._kept, frame.masking_key) if frame.masked else self._kept
        return attrs.evolve(frame, payload=payload, missing=self._left)


def _read_header(data: bytes) -> Frame | None:
    if len(data) < 2:
        return None
    masked, length = data[1] >= 0x80, data[1] & 0x7F
    extended = {126: 2, 127: 8}.get(length, 0)
    size = 2 + extended + (4 if masked else 0)
    if len(data) < size:
        return None
    if extended:
        length = int.from_bytes(data[2 : 2 + extended], "big")
    return Frame(data[0], masked, data[size - 4 : size] if masked else b"", length, size, b"")


def preview(payload: bytes, length: int) -> Payload:
    """Return the beginning of a payload of `length` bytes, of which `payload` has come."""
    shown = payload[:_PREVIEW_BYTES]
    cut = length > len(shown)
    try:
        text: str | None = shown.decode()
    except UnicodeDecodeError as error:
        # A text that is cut inside a character is still shown as text.
        whole = cut and error.reason == "unexpected end of data" and error.end == len(shown)
        text = shown[: error.start].decode() if whole else None
    return Payload(text=text, hex=shown.hex(), cut=cut)
