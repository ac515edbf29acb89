"""A client of bytes on a blocking socket, for attacks on a server in a process of its own. No dependency.

Clients that flood run as processes (`flooder.py`), so that they share neither a lock nor a loop with whoever
measures; this module is all that they load.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress

__all__ = ["Client", "Ended", "ask", "compress", "connect", "empty_blocks", "frame", "request"]

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 1, 2, 8, 9, 10, 0


class Ended(Exception):
    """The connection is over where a frame was wanted; the answer to the request if it was no 101."""


def request(path: str = "/echo", *fields: str, host: str = "127.0.0.1") -> bytes:
    """Return an opening handshake with more fields."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        *fields,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """Encode a client's frame; a masking key of zeros is a valid one and costs nothing."""
    first = (0x80 if fin else 0) | rsv | opcode
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + b"\0\0\0\0" + payload


def compress(payload: bytes) -> bytes:
    """Compress one message as permessage-deflate does, without a history."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def empty_blocks(size: int) -> bytes:
    """Return a compressed message that inflates to nothing: each of its blocks has tables and no data."""
    blocks, bits = 0x46AFF90000000000081C004, 91
    while bits < 8 * size:
        blocks, bits = blocks | blocks << bits, 2 * bits
    return blocks.to_bytes((bits + 7) // 8, "little")[:size]


def connect(
    port: int, *, tls: bool = False, seconds: float = 10.0, receive_buffer: int | None = None
) -> socket.socket:
    """Open a connection; over TLS without looking at the certificate."""
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(seconds)
    try:
        sock.connect(("127.0.0.1", port))
        if tls:
            return ssl._create_unverified_context().wrap_socket(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def ask(port: int, data: bytes, *, tls: bool = False, seconds: float = 10.0) -> bytes:
    """Send bytes and return all that comes back, up to the end of TCP."""
    answer = b""
    with connect(port, tls=tls, seconds=seconds) as sock, suppress(ConnectionError):
        sock.sendall(data)
        while piece := sock.recv(65536):
            answer += piece
    return answer


class Client:
    """A WebSocket on a blocking socket."""

    def __init__(
        self,
        port: int,
        path: str = "/echo",
        fields: Iterable[str] = (),
        *,
        tls: bool = False,
        seconds: float = 10.0,
        receive_buffer: int | None = None,
    ) -> None:
        self.sock = connect(port, tls=tls, seconds=seconds, receive_buffer=receive_buffer)
        self._data = b""
        try:
            self.sock.sendall(request(path, *fields))
            while b"\r\n\r\n" not in self._data:
                self._fill()
            self.head, _, self._data = self._data.partition(b"\r\n\r\n")
            if not self.head.startswith(b"HTTP/1.1 101"):
                raise Ended(self.head.decode("latin-1"))
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def _fill(self) -> None:
        try:
            data = self.sock.recv(1 << 18)
        except ConnectionError as error:
            raise Ended(repr(error)) from error
        if not data:
            raise Ended(f"FIN, behind {self._data[:80]!r}")
        self._data += data

    def send(self, *frames: bytes) -> None:
        """Send frames in one piece."""
        self.sock.sendall(b"".join(frames))

    def frame(self) -> tuple[int, bytes]:
        """Return the next frame's opcode and payload.

        Raises:
            Ended: there is none.
            TimeoutError: it did not come in time.
        """
        while (found := self._cut()) is None:
            self._fill()
        return found

    def _cut(self) -> tuple[int, bytes] | None:
        data = self._data
        if len(data) < 2:
            return None
        size, start = data[1] & 0x7F, 2
        if size >= 126:
            start = 4 if size == 126 else 10
            if len(data) < start:
                return None
            size = int.from_bytes(data[2:start], "big")
        if len(data) < start + size:
            return None
        self._data = data[start + size :]
        return data[0] & 0x0F, data[start : start + size]

    def message(self) -> bytes:
        """Return the next data frame's payload; pings are answered on the way."""
        while True:
            opcode, payload = self.frame()
            if opcode == PING:
                self.send(frame(PONG, payload))
            elif opcode == CLOSE:
                raise Ended(f"Close {int.from_bytes(payload[:2], 'big')} {payload[2:].decode()}")
            elif opcode != PONG:
                return payload

    def close_code(self) -> int:
        """Read up to the Close frame and return its code; 1005 for an empty one."""
        while True:
            opcode, payload = self.frame()
            if opcode == PING:
                self.send(frame(PONG, payload))
            elif opcode == CLOSE:
                return int.from_bytes(payload[:2], "big") if payload else 1005

    def echo(self, text: bytes = b"x") -> float:
        """Return the seconds that an echo takes."""
        began = time.monotonic()
        self.send(frame(TEXT, text))
        found = self.message()
        if found != text:
            raise Ended(f"no echo of {text!r}: {found!r}")
        return time.monotonic() - began

    def reset(self) -> None:
        """Close with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
