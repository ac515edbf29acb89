"""Prepared frames and the opening handshake of the load clients. No framework, no package of ours."""

from __future__ import annotations

import base64
import hashlib
import struct

__all__ = [
    "CLOSE",
    "REQUEST",
    "Failed",
    "check_head",
    "close_code",
    "frame",
    "payload",
    "request",
]

TEXT, BINARY, CLOSE_OPCODE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA

# One key for all connections: the server has to compute the answer anyway, and the client can compare it
# with a constant.
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
MASKING_KEY = b"\x37\xfa\x21\x3d"


class Failed(Exception):
    """The server did something that a correct echo, room or close would not do."""


def payload(size: int, name: str) -> bytes:
    """Return `size` bytes of ASCII text that starts with `name` and differs from other names'."""
    seed = hashlib.sha256(name.encode()).hexdigest().encode()
    text = name.encode() + b" " + seed * (size // len(seed) + 1)
    return text[:size]


def frame(opcode: int, data: bytes, *, masked: bool, rsv1: bool = False) -> bytes:
    """Return one final frame, as a client (masked) or a server sends it."""
    first = 0x80 | (0x40 if rsv1 else 0) | opcode
    bit = 0x80 if masked else 0
    if len(data) < 126:
        head = struct.pack("!BB", first, bit | len(data))
    elif len(data) < 65536:
        head = struct.pack("!BBH", first, bit | 126, len(data))
    else:
        head = struct.pack("!BBQ", first, bit | 127, len(data))
    if not masked:
        return head + data
    repeated = (MASKING_KEY * (len(data) // 4 + 1))[: len(data)]
    mask = int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")
    return head + MASKING_KEY + mask.to_bytes(len(data), "big")


CLOSE = frame(CLOSE_OPCODE, struct.pack("!H", 1000), masked=True)


def request(extensions: str | None = None) -> bytes:
    """Return the opening handshake."""
    lines = [
        b"GET / HTTP/1.1",
        b"Host: 127.0.0.1",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Key: " + KEY,
        b"Sec-WebSocket-Version: 13",
    ]
    if extensions is not None:
        lines.append(b"Sec-WebSocket-Extensions: " + extensions.encode())
    return b"\r\n".join(lines) + b"\r\n\r\n"


REQUEST = request()


def check_head(head: bytes) -> None:
    """Raise unless `head` accepts the WebSocket."""
    if not head.startswith(b"HTTP/1.1 101 ") or ACCEPT not in head:
        raise Failed(f"the handshake was not accepted: {head[:200]!r}")


def close_code(body: bytes) -> str:
    """Return a Close frame's code and reason for an error message."""
    return f"{struct.unpack('!H', body[:2])[0]} {body[2:]!r}" if len(body) >= 2 else "1005"
