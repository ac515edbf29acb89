"""The two streams of permessage-deflate (RFC 7692 §7.2): one compresses our messages, one inflates theirs.

Each message is a piece of a raw DEFLATE stream, one stream in each direction, with the last four octets of
every message, always 00 00 ff ff, left out. With context takeover a stream keeps its window between
messages, and the ratio lives from that; without, it is made for each message and freed after it. zlib's
objects are made when the first message needs them: a connection that never compresses pays nothing.
"""

from __future__ import annotations

import zlib

from wsframework.closes import CloseCode
from wsframework.wire.events import ProtocolViolation
from wsframework.wire.frames import encode_message

__all__ = ["MAX_WINDOW_BITS", "MIN_ZLIB_WINDOW_BITS", "Deflater", "Inflater"]

MAX_WINDOW_BITS = 15
"""32 KiB, the default of RFC 7692 §7.1.2."""

MIN_ZLIB_WINDOW_BITS = 9
"""zlib cannot compress with a window of 8 bits: raw deflate silently used 9, and refuses it since 1.2.9."""

_TAIL = b"\x00\x00\xff\xff"  # the end of an empty stored block: what Z_SYNC_FLUSH ends with
_EMPTY = b"\x00"  # an empty message compressed, without its tail (§7.2.3.6)
_MAX_FINAL_BLOCKS = 32  # in one message: each costs a new zlib object, and senders use one, if any


class Deflater:
    """Compress the messages of one direction.

    Args:
        window_bits: 9 to 15; the window is 2**bits bytes.
        no_context_takeover: compress each message by itself.
        level: zlib's compression level, -1 to 9.
        memory_level: zlib's memLevel, 1 to 9.
        threshold_bytes: `encode_message` leaves shorter messages uncompressed.
    """

    __slots__ = (
        "_level",
        "_memory_level",
        "_no_context_takeover",
        "_stream",
        "_threshold_bytes",
        "_window_bits",
    )

    def __init__(
        self,
        *,
        window_bits: int = MAX_WINDOW_BITS,
        no_context_takeover: bool = False,
        level: int = -1,
        memory_level: int = 8,
        threshold_bytes: int = 0,
    ) -> None:
        if not MIN_ZLIB_WINDOW_BITS <= window_bits <= MAX_WINDOW_BITS:
            raise ValueError(f"zlib compresses with windows of 9 to 15 bits, not {window_bits}")
        self._window_bits = window_bits
        self._no_context_takeover = no_context_takeover
        self._level = level
        self._memory_level = memory_level
        self._threshold_bytes = threshold_bytes
        self._stream: zlib._Compress | None = None

    def encode_message(self, opcode: int, payload: bytes) -> bytes:
        """Encode a payload that is already bytes, compressed unless it is shorter than the threshold."""
        if len(payload) < self._threshold_bytes:
            return encode_message(opcode, payload)
        return encode_message(opcode, self.compress(payload), compressed=True)

    def start_over(self) -> None:
        """Let the next message refer to none before it, because one that was compressed is not sent."""
        self._stream = None

    def compress(self, payload: bytes) -> bytes:
        """Return one message's payload compressed, without its tail (RFC 7692 §7.2.1).

        Compressed messages must reach the peer in the order of these calls, none left out: with context
        takeover each builds on those before it.
        """
        if not payload:
            return _EMPTY  # with the tail that the peer appends, a block that leaves both windows as they are
        stream = self._stream
        if stream is None:
            stream = zlib.compressobj(self._level, zlib.DEFLATED, -self._window_bits, self._memory_level)
            if not self._no_context_takeover:
                self._stream = stream
        compressed = stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH)
        return compressed[: -len(_TAIL)]


class Inflater:
    """Inflate the messages of one direction, piece by piece and never further than asked.

    Args:
        window_bits: 8 to 15: the largest window the peer uses.
        no_context_takeover: the peer compresses each message by itself.
    """

    __slots__ = ("_final_blocks", "_no_context_takeover", "_open", "_stream", "_window_bits")

    def __init__(self, *, window_bits: int = MAX_WINDOW_BITS, no_context_takeover: bool = False) -> None:
        # zlib inflates with 8 bits. A peer on zlib that promised 8 compresses with 9, and then looks back by
        # 250 bytes at most (2**9 less zlib's look-ahead of 262), which 8 bits cover.
        self._window_bits = window_bits
        self._no_context_takeover = no_context_takeover
        self._stream: zlib._Decompress | None = None
        self._open = False  # whether this message has begun something that its tail must end
        self._final_blocks = 0

    def inflate(self, chunk: bytes, max_output: int | None) -> bytes:
        """Inflate the next bytes of a message.

        Args:
            chunk: compressed bytes, cut anywhere.
            max_output: how many bytes the message may still grow by; None for no limit. No more than one
                byte past it is ever inflated.

        Raises:
            ProtocolViolation: 1009 past `max_output`, 1007 for what is not DEFLATE.
        """
        output = b""
        while chunk:
            if self._stream is None:
                self._stream = zlib.decompressobj(-self._window_bits)
            self._open = True
            room = 0 if max_output is None else max_output - len(output) + 1  # 0 is zlib's "no limit"
            try:
                piece = self._stream.decompress(chunk, room)
            except zlib.error:
                raise ProtocolViolation(
                    CloseCode.INVALID_PAYLOAD, "a compressed message is not valid DEFLATE data"
                ) from None
            output = output + piece if output else piece
            if max_output is not None and len(output) > max_output:
                raise ProtocolViolation(
                    CloseCode.MESSAGE_TOO_BIG, "a message inflates to more bytes than the limit here"
                )
            if not self._stream.eof:
                break  # all of the chunk is used: output below the limit means zlib wanted more input
            chunk = self._stream.unused_data
            self._begin_again()
        return output

    def finish_message(self, max_output: int | None) -> bytes:
        """End the message and return the last of it; arguments and errors are those of `inflate`.

        Source: RFC 7692 §7.2.2.
        """
        # "Append 4 octets of 0x00 0x00 0xff 0xff to the tail end of the payload of the message." A message
        # without a single octet, or whose last octet ended a final block, has no block left open: the tail
        # would begin one, and garble the next message.
        output = self.inflate(_TAIL, max_output) if self._open else b""
        self._open = False
        self._final_blocks = 0
        if self._no_context_takeover:
            self._stream = None
        return output

    def _begin_again(self) -> None:
        # A block with BFINAL set ends zlib's stream, and a compressor that sets it has begun anew as well:
        # zlib's must, after Z_FINISH (§7.2.3.4 has the example). One that refers further back all the same
        # fails as invalid DEFLATE data, and loses nothing silently.
        self._stream = None
        self._open = False
        self._final_blocks += 1
        if self._final_blocks > _MAX_FINAL_BLOCKS:
            raise ProtocolViolation(
                CloseCode.POLICY_VIOLATION,
                f"a compressed message has more than {_MAX_FINAL_BLOCKS} final blocks",
            )
