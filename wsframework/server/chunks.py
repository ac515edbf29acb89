"""The chunks of an HTTP body (RFC 9112 §7.1), read at about a microsecond each.

h11 takes fifty times as long, and chunks may be as small as one byte: one read of 64 KiB would block the
event loop for half a second. This reader is also stricter, because a proxy and a server that disagree about
the end of a body disagree about the next request (RFC 9112 §11.2): a line ends in CRLF and nothing else.
"""

from __future__ import annotations

import re

from wsframework.tokens import TOKEN

__all__ = ["ChunkReader"]

_MOST_HEAD_BYTES = 4096
"""The most that the line before a chunk, or the trailer behind the last one, may have."""

# 15 digits are more than any body has, and more than that might not fit another parser's integer.
_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\0-\x08\n-\x1f\x7f]*)?\r\n")
_FIELD = re.compile(rb"%b:[^\0-\x08\n-\x1f\x7f]*\r\n" % TOKEN.encode())


class ChunkReader:
    """Bytes in, the content of chunks out, for one body.

    Attributes:
        complete: whether the end of the body has come.
        trailing: what came behind it.
        left: how many bytes of the present chunk have not come.
    """

    __slots__ = ("_behind", "_in_trailer", "_kept", "_trailer_bytes", "complete", "left", "trailing")

    def __init__(self) -> None:
        self.complete = False
        self.trailing = b""
        self._kept = b""  # the start of a line
        self.left = 0
        self._behind = False  # whether the line end behind a chunk is next
        self._in_trailer = False
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """Take bytes and return the content in them.

        Raises:
            ValueError: they are no chunks, or a line is too long.
        """
        data, self._kept = self._kept + data, b""
        body, pos, size = bytearray(), 0, len(data)
        while pos < size:
            if self.left:
                piece = data[pos : pos + self.left]
                body += piece
                pos += len(piece)
                self.left -= len(piece)
                self._behind = not self.left
                continue
            end = self._read_line(data, pos)
            if end == pos:
                self._kept = data[pos:]
                break
            pos = end
            if self.complete:
                self.trailing = data[pos:]
                break
        return bytes(body)

    def _read_line(self, data: bytes, pos: int) -> int:
        """Read one line; return where the next one begins, or `pos` if it is not whole yet."""
        if self._behind or self._in_trailer:
            if data.startswith(b"\r\n", pos):
                self.complete = self._in_trailer
                self._behind = False
                return pos + 2
            if pos + 1 == len(data) and data[pos] == ord("\r"):
                return pos
            if self._behind:
                raise ValueError("a chunk is longer than its length")
        found = (_FIELD if self._in_trailer else _LINE).match(data, pos)
        if found is None:
            if data.find(b"\n", pos) >= 0 or len(data) - pos + self._trailer_bytes > _MOST_HEAD_BYTES:
                raise ValueError("a line of a chunked body is malformed or too long")
            return pos
        if found.end() - pos + self._trailer_bytes > _MOST_HEAD_BYTES:
            raise ValueError("a line of a chunked body is too long")
        if self._in_trailer:
            self._trailer_bytes += found.end() - pos
        else:
            self.left = int(found[1], 16)
            self._in_trailer = not self.left
        return found.end()
