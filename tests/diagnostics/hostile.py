"""What a server may do to a client: never answer, never end, send too much, too slowly, or nonsense."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import zlib
from collections.abc import Callable

from tests.diagnostics.broken import Talk, answer, drain, read_request, reset, saying, upgrade

__all__ = ["ATTACKS", "EVIL", "FINE", "dripping", "noisy"]

EVIL = "\x00\x07\x08\x1b[2J\x1b]0;x\x07\x7f\x85\x9b2J\u202e\u2066\u200b\u2028\ufeff\u3164\U000e0041"
"""Controls (C0, DEL, C1), an escape sequence of each kind, text reordered, invisible, or of another line."""

_EVIL_BYTES = EVIL.encode()
_EVIL_LATIN = bytes(octet for octet in _EVIL_BYTES if octet not in b"\0\r\n")

_DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


def frame(first: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """Return a server's frame, whose header may lie about its length."""
    size = len(payload) if length is None else length
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126)) + struct.pack("!H", size) + payload
    return bytes((first, 127)) + struct.pack("!Q", size) + payload


def _raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15, level=9)
    return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def opened(data: bytes = b"", *fields: str, then: bytes = b"", end: bool = False, deaf: bool = False) -> Talk:
    """Open a WebSocket and send bytes, then others without end; `deaf` reads nothing of the client's."""

    def talk(connection: socket.socket) -> None:
        if deaf:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        upgrade(connection, *fields, then=data)
        reader = threading.Thread(target=drain, args=(connection,), daemon=True)
        if not deaf:
            reader.start()
        with contextlib.suppress(OSError):
            while then:
                connection.sendall(then)
            if end:
                connection.shutdown(socket.SHUT_WR)
        if not deaf:
            reader.join()
        else:
            threading.Event().wait(3)

    return talk


def noisy(data: bytes) -> Talk:
    """Send these bytes again and again, whatever the client says."""

    def talk(connection: socket.socket) -> None:
        while True:
            connection.sendall(data)

    return talk


def dripping(prepare: Callable[[socket.socket], None], data: bytes) -> Talk:
    """Send one byte at a time, and always one more."""

    def talk(connection: socket.socket) -> None:
        prepare(connection)
        while True:
            for octet in data:
                connection.sendall(bytes((octet,)))
                threading.Event().wait(0.02)

    return talk


def _read(connection: socket.socket) -> None:
    read_request(connection)


def _reset_at_once(connection: socket.socket) -> None:
    reset(connection)


OK = b"HTTP/1.1 200 OK\r\n"
BOMB = frame(0xC2, _raw_deflate(bytes(8 * 1024 * 1024)))

ATTACKS: dict[str, Talk] = {
    # before and instead of an answer
    "silence": drain,
    "reset at once": _reset_at_once,
    "close at once": lambda connection: None,
    "drip a head": dripping(_read, b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: y\r\n" * 9999),
    "drip a first line": dripping(_read, b"HTTP/1.1 " + b"1" * 9999),
    "noise": saying(bytes(range(256)), bytes(range(256)) * 64),
    "zeros": saying(b"\0" * 64, b"\0" * 4096),
    "a line without end": saying(b"HTTP/1.1 200 ", b"x" * 4096),
    "header fields without end": saying(OK, b"X-Y: z\r\n" * 512),
    "one field without end": saying(OK + b"X: ", b"z" * 4096),
    "status of many digits": saying(b"HTTP/1.1 " + b"9" * 5000 + b" Hm\r\n\r\n", end=True),
    "version of many digits": saying(b"HTTP/" + b"9" * 5000 + b".1 200 OK\r\n\r\n", end=True),
    "100 without end": saying(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 64),
    "103 without end": saying(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 64),
    "102 once": saying(b"HTTP/1.1 102 Processing\r\n\r\n"),
    "199": saying(b"HTTP/1.1 199 Odd\r\n\r\n", end=True),
    "000": saying(b"HTTP/1.1 000 Odd\r\n\r\n", end=True),
    "999": saying(b"HTTP/1.1 999 Odd\r\n\r\n", end=True),
    "folded fields": saying(OK + b"X: y\r\n z\r\n\r\n", end=True),
    "fields without names": saying(OK + b": y\r\nnothing\r\n\r\n", end=True),
    "only LF": saying(b"HTTP/1.1 404 Not Found\nContent-Length: 2\n\nhi", end=True),
    "a redirect to itself": saying(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"),
    "a redirect to evil": saying(b"HTTP/1.1 307 T\r\nLocation: " + _EVIL_LATIN * 500 + b"\r\n\r\n", end=True),
    "credentials for evil": saying(
        b"HTTP/1.1 401 T\r\nWWW-Authenticate: " + _EVIL_LATIN * 500 + b"\r\n\r\n", end=True
    ),
    "a version of evil": saying(
        b"HTTP/1.1 426 T\r\nSec-WebSocket-Version: " + _EVIL_LATIN * 500 + b"\r\n\r\n", end=True
    ),
    # bodies
    "Content-Length of 5000 digits": saying(OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nhi"),
    "Content-Length of evil digits": saying(OK + "Content-Length: ²³\r\n\r\nhi".encode("latin-1")),
    "negative Content-Length": saying(OK + b"Content-Length: -5\r\n\r\nhi"),
    "two Content-Lengths": saying(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhi"),
    "a body without end": saying(b"HTTP/1.1 500 No\r\n\r\n", b"x" * 4096),
    "empty lines without end": saying(b"HTTP/1.1 500 No\r\n\r\n", b"\r\n" * 2048),
    "a chunk size without end": saying(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 4096),
    "a chunk of 2^64": saying(OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", b"x" * 4096),
    "chunks of noise": saying(OK + b"Transfer-Encoding: chunked\r\n\r\n" + bytes(range(128, 256)) * 99),
    "drip a body": dripping(lambda connection: answer(connection, "500 No", "Content-Length: 99999"), b"x"),
    "a body of evil": saying(b"HTTP/1.1 500 " + _EVIL_LATIN + b"\r\n\r\n" + _EVIL_BYTES * 100, end=True),
    # upgrades
    "accept of evil": opened(b"", "Sec-WebSocket-Accept: \x1b[2J" + "x" * 20000, end=True),
    "subprotocol of evil": opened(b"", "Sec-WebSocket-Protocol: \x1b[2J\x9b" + "x" * 20000, end=True),
    "extension of evil": opened(b"", 'Sec-WebSocket-Extensions: a;b="\x1b[2J";c=' + "x" * 20000, end=True),
    "a part of an extension's name": opened(b"", "Sec-WebSocket-Extensions: deflate"),
    "deflate of many bits": opened(b"", f"{_DEFLATE}; server_max_window_bits={'9' * 5000}"),
    "deflate twice": opened(b"", _DEFLATE, _DEFLATE),
    "Upgrade with a body": opened(frame(0x81, b"hi"), "Content-Length: 5", "Transfer-Encoding: chunked"),
    "fields of evil": opened(b"", *[f"X-{n}: \x1b[{n}A\x9b\x7f\x85" for n in range(1, 99)]),
    "extensions without end": opened(
        b"", "Sec-WebSocket-Extensions: " + ", ".join(f"x{n}" for n in range(5000))
    ),
    # frames
    "a frame of 2^62 bytes": opened(frame(0x82, b"", 2**62), then=b"x" * 4096),
    "a frame of 2^63 bytes": opened(frame(0x82, b"", 2**63), then=b"x" * 4096),
    "a ping of 2^62 bytes": opened(frame(0x89, b"", 2**62), then=b"x" * 4096),
    "a Close of 2^62 bytes": opened(frame(0x88, b"", 2**62), then=b"x" * 4096),
    "fragments without end": opened(frame(0x01, b"a"), then=frame(0x00, b"a") * 1024),
    "empty fragments without end": opened(frame(0x01), then=frame(0x00) * 1024),
    "pings without end": opened(then=frame(0x89, b"x") * 1024),
    "pings without end, deaf": opened(then=frame(0x89, b"x" * 125) * 128, deaf=True),
    "pongs without end": opened(then=frame(0x8A, b"x") * 1024),
    "empty messages without end": opened(then=frame(0x81) * 1024),
    "messages without end": opened(then=frame(0x81, _EVIL_BYTES) * 64),
    "deaf and silent": opened(deaf=True),
    "invalid UTF-8": opened(frame(0x81, b"\xc3\x28\xff")),
    "UTF-8 cut by fragments": opened(frame(0x01, b"\xe2\x82") + frame(0x80, b"\x28")),
    "masked frames": opened(b"\x81\x82\1\2\3\4hi" * 100),
    "drip a frame": dripping(upgrade, frame(0x82, b"", 2**20) + b"x" * 2**10),
    "drip pings": dripping(upgrade, frame(0x89)),
    "drip fragments": dripping(lambda c: upgrade(c, then=frame(0x01, b"a")), frame(0x00, b"a")),
    "a bomb": opened(BOMB, _DEFLATE),
    "bombs without end": opened(BOMB, _DEFLATE, then=BOMB),
    "a bomb in one message": opened(frame(0x42, BOMB[4:]), _DEFLATE, then=frame(0x00, b"\0\0\xff\xff")),
    "empty deflate blocks": opened(frame(0x42), _DEFLATE, then=frame(0x00, b"\0\0\0\xff\xff" * 200)),
    "noise as frames": opened(bytes(range(256)) * 256, end=True),
    # closes
    "an empty Close": opened(frame(0x88), end=True),
    "half a code": opened(frame(0x88, b"\x03"), end=True),
    "code 0": opened(frame(0x88, b"\0\0"), end=True),
    "code 1005": opened(frame(0x88, b"\x03\xed"), end=True),
    "code 65535": opened(frame(0x88, b"\xff\xff"), end=True),
    "a reason of evil": opened(frame(0x88, b"\x0f\xa0" + _EVIL_BYTES), end=True),
    "a reason that is not UTF-8": opened(frame(0x88, b"\x0f\xa0\xff\xfe\x1b[2J"), end=True),
    "data behind a Close": opened(frame(0x88, b"\x0f\xa0"), then=frame(0x81, b"x") * 1024),
    "pings behind a Close": opened(frame(0x88, b"\x0f\xa0"), then=frame(0x89, b"x") * 1024),
    "a Close without TCP's end": opened(frame(0x88, b"\x03\xe8")),
    "a text of evil": opened(frame(0x81, _EVIL_BYTES) + frame(0x88, b"\x03\xe8"), end=True),
}
"""By name."""

FINE = {
    # Nothing is wrong with the protocol: a trace is content, and `connect` says 3 for the code.
    "an empty Close": (0,),
    "a text of evil": (0,),
    "a Close without TCP's end": (0,),
    "a reason of evil": (0, 3),
    "data behind a Close": (0, 1, 3),
    "pings behind a Close": (0, 1, 3),
}
"""Exit codes, where they are not 1."""
