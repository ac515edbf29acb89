"""Put one message together from its frames, and frames from the pieces TCP delivers.

An `Assembly` lives from the first to the last byte of a message that is fragmented, compressed or not whole
in one buffer. Every piece goes through it once and in this order: unmask, inflate, count, check UTF-8, keep.
So a message costs time linear in its size however it is cut, and a rule is broken at the piece that breaks
it, not at the end.

What is kept is a list that is joined once. Small pieces are gathered in one growing buffer first, because a
list entry for every piece would hold sixty times the bytes of a peer that sends its message byte by byte.
"""

from __future__ import annotations

from codecs import utf_8_decode

from wsframework.closes import CloseCode
from wsframework.wire.compression import Inflater
from wsframework.wire.events import ProtocolViolation
from wsframework.wire.masking import apply_mask, rotate_key

__all__ = ["Assembly"]

# A piece below this many bytes is gathered; its own object and list entry would weigh as much as itself.
_SMALL_BYTES = 1024


class Assembly:
    """One message in progress.

    Args:
        text: whether the message is text, so its UTF-8 is checked.
        max_message_bytes: what the message may hold after inflating; None for no limit. What it holds on the
            wire is checked where its headers are read.
        max_fragments: how many frames it may come in; None for no limit.
        inflater: what inflates it, or None for a message that is not compressed.

    Attributes:
        fragments: frames begun so far.
        size: bytes of message so far, after inflating.
        wire_bytes: bytes of payload that the frames begun so far announce.
        unread: bytes of the current frame's payload that have not come yet.
        fin: whether the current frame is the last.
    """

    __slots__ = (
        "_inflater",
        "_key",
        "_max_fragments",
        "_max_message_bytes",
        "_partial",
        "_pieces",
        "_small",
        "_text",
        "fin",
        "fragments",
        "size",
        "unread",
        "wire_bytes",
    )

    def __init__(
        self,
        *,
        text: bool,
        max_message_bytes: int | None,
        max_fragments: int | None,
        inflater: Inflater | None,
    ) -> None:
        self._text = text
        self._max_message_bytes = max_message_bytes
        self._max_fragments = max_fragments
        self._inflater = inflater
        self._key = b""
        self.fragments = 0
        self._partial = b""  # at most three bytes: a UTF-8 sequence whose rest is still to come
        self._pieces: list[str | bytes] = []
        self._small = bytearray()
        self.size = 0
        self.wire_bytes = 0
        self.unread = 0
        self.fin = False

    def begin_frame(self, length: int, key: bytes, fin: bool) -> None:
        """Take note of the next data frame's header; `key` is empty for an unmasked frame.

        Raises:
            ProtocolViolation: with this frame the message has too many.
        """
        self.fragments += 1
        if self._max_fragments is not None and self.fragments > self._max_fragments:
            raise ProtocolViolation(
                CloseCode.POLICY_VIOLATION, f"a message has more than {self._max_fragments} fragments"
            )
        self.wire_bytes += length
        self._key = key
        self.unread = length
        self.fin = fin

    def add(self, data: memoryview) -> None:
        """Take the next bytes of the current frame's payload, at most `unread` of them.

        Raises:
            ProtocolViolation: too much after inflating, not DEFLATE, or not UTF-8.
            UnicodeDecodeError: not UTF-8.
        """
        self.unread -= len(data)
        if self._key:
            piece = apply_mask(data, self._key)
            self._key = rotate_key(self._key, len(data))
        else:
            piece = bytes(data)
        if self._inflater is not None:
            piece = self._inflater.inflate(piece, self._room())
        self._keep(piece)

    def finish(self) -> str | bytes:
        """Return the whole message; its last frame has been read.

        Raises:
            ProtocolViolation: too much after inflating, not DEFLATE, or not UTF-8.
            UnicodeDecodeError: not UTF-8.
        """
        if self._inflater is not None:
            self._keep(self._inflater.finish_message(self._room()))
        self._partial.decode()  # what is left of a character when the message ends is not UTF-8
        self._flush_small()
        if self._text:
            return "".join(self._pieces)  # type: ignore[arg-type]  # all of them are str
        return b"".join(self._pieces)  # type: ignore[arg-type]  # all of them are bytes

    @property
    def compressed(self) -> bool:
        """Whether the message is being inflated."""
        return self._inflater is not None

    def _room(self) -> int | None:
        return None if self._max_message_bytes is None else self._max_message_bytes - self.size

    def _keep(self, piece: bytes) -> None:
        if not piece:
            return
        self.size += len(piece)
        if self._text:
            self._keep_text(piece)
        elif len(piece) < _SMALL_BYTES:
            self._small += piece
        else:
            self._flush_small()
            self._pieces.append(piece)

    def _keep_text(self, piece: bytes) -> None:
        # "When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte stream is not, in
        # fact, a valid UTF-8 stream, that endpoint MUST _Fail the WebSocket Connection_." (RFC 6455 §8.1) A
        # piece may end inside a character, but only inside one that can still become valid.
        if self._partial:
            piece = self._partial + piece
        text, used = utf_8_decode(piece, "strict", False)
        self._partial = piece[used:]
        # CPython reports every sequence that cannot become valid at once, except this one: it waits for the
        # third byte of a surrogate. UTF-8 has no surrogates (RFC 3629 §3).
        if self._partial.startswith(b"\xed") and self._partial[1:] >= b"\xa0":
            (self._partial + b"\x80").decode()  # raises what the third byte would have raised
        if used < _SMALL_BYTES:
            self._small += piece[:used]
        else:
            self._flush_small()
            self._pieces.append(text)

    def _flush_small(self) -> None:
        if self._small:
            self._pieces.append(self._small.decode() if self._text else bytes(self._small))
            self._small = bytearray()
