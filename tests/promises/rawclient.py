"""A client made by hand on a plain socket, so that the other side's promises are judged by somebody else.

It shares no code with the server: frames are written and read here, byte by byte, and `FrameRecorder` fails
on the first byte that RFC 6455 does not allow. `Client` adds what a library would hide: it does not answer
anything by itself, it can stop reading, half-close, reset or vanish, and it tells a FIN from a RST.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import socket as stdlib_socket
import ssl as ssl_module
import struct
from collections import deque
from collections.abc import Sequence
from enum import Enum, auto

import attrs
import trio

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class End(Enum):
    """How the server's direction of TCP ended, as the client's socket saw it."""

    FIN = auto()
    RST = auto()


@attrs.frozen
class Frame:
    opcode: int
    payload: bytes
    fin: bool = True
    rsv1: bool = False

    @property
    def text(self) -> str:
        assert self.opcode == TEXT, self
        return self.payload.decode()

    @property
    def close_code(self) -> int:
        assert self.opcode == CLOSE, self
        return int.from_bytes(self.payload[:2], "big") if self.payload else 1005

    @property
    def close_reason(self) -> str:
        assert self.opcode == CLOSE, self
        return self.payload[2:].decode()

    def __repr__(self) -> str:
        shown = self.payload if len(self.payload) <= 40 else self.payload[:40] + b"..."
        return f"<Frame opcode={self.opcode} fin={self.fin} {len(self.payload)} bytes {shown!r}>"


def frame(opcode: int, payload: bytes | str = b"", *, fin: bool = True, rsv1: bool = False) -> bytes:
    """Encode a client's frame. Its masking key is random up to 1 KiB and zeros beyond, which is legal."""
    data = payload.encode() if isinstance(payload, str) else payload
    first = opcode | (0x80 if fin else 0) | (0x40 if rsv1 else 0)
    if len(data) < 126:
        head = struct.pack("!BB", first, 0x80 | len(data))
    elif len(data) < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, len(data))
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, len(data))
    if len(data) > 1024:
        return b"".join((head, b"\0\0\0\0", data))
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(data))


def close_frame(code: int | None = 1000, reason: str = "") -> bytes:
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason.encode())


class FrameRecorder:
    """Bytes in, whole valid server frames out.

    Raises:
        AssertionError: a byte that no valid server would have sent there.
    """

    def __init__(self, *, compressed: bool = False) -> None:
        self.frames: list[Frame] = []
        self._compressed = compressed
        self._buffer = bytearray()
        self._message: int | None = None  # the opcode of a fragmented message in progress
        self._fragments: list[bytes] = []
        self._closed = False

    @property
    def pending(self) -> bytes:
        """The start of a frame that is not complete."""
        return bytes(self._buffer)

    def feed(self, data: bytes | bytearray) -> list[Frame]:
        assert not (self._closed and data), f"bytes after the Close frame: {bytes(data[:40])!r}"
        self._buffer += data
        complete: list[Frame] = []
        while (found := self._parse()) is not None:
            self._check(found)
            complete.append(found)
            assert not (self._closed and self._buffer), f"bytes after Close: {bytes(self._buffer[:40])!r}"
        self.frames += complete
        return complete

    def finish(self) -> None:
        """Check that the stream may end here."""
        assert not self._buffer, f"the stream ended inside a frame: {bytes(self._buffer[:40])!r}"
        assert self._message is None, "the stream ended inside a fragmented message"

    def _parse(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        assert first & 0x30 == 0, f"reserved bits: {first:#x}"
        assert first & 0x0F in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG), f"opcode {first & 15}"
        assert second & 0x80 == 0, "a server's frame is masked"
        length, start = second & 0x7F, 2
        if length == 126:
            start = 4
            if len(buffer) < start:
                return None
            length = int.from_bytes(buffer[2:4], "big")
            assert length >= 126, "a length that is not in its shortest form"
        elif length == 127:
            start = 10
            if len(buffer) < start:
                return None
            length = int.from_bytes(buffer[2:10], "big")
            assert 65536 <= length < 2**40, f"an absurd length: {length}"
        if len(buffer) < start + length:
            return None
        payload = bytes(memoryview(buffer)[start : start + length])
        del buffer[: start + length]
        return Frame(first & 0x0F, payload, bool(first & 0x80), bool(first & 0x40))

    def _check(self, found: Frame) -> None:
        if found.rsv1:
            assert self._compressed, "RSV1 without an extension"
            assert found.opcode in (TEXT, BINARY), "RSV1 on a frame that starts no message"
        if found.opcode >= CLOSE:
            assert found.fin, "a fragmented control frame"
            assert len(found.payload) <= 125, "a long control frame"
            if found.opcode == CLOSE:
                self._closed = True
                assert len(found.payload) != 1, "half a close code"
                code = found.close_code
                assert code in (1005, *range(1000, 1004), *range(1007, 1015)) or 3000 <= code < 5000, code
                found.payload[2:].decode()
            return
        if found.opcode == CONTINUATION:
            assert self._message is not None, "a continuation of nothing"
        else:
            assert self._message is None, "a message inside another"
            self._message = found.opcode
        self._fragments.append(found.payload)
        if found.fin:
            if self._message == TEXT and not self._compressed:
                b"".join(self._fragments).decode()
            self._message = None
            self._fragments.clear()


@attrs.frozen
class Answer:
    """An HTTP response up to the end of the connection."""

    status: int
    headers: dict[str, str]
    body: bytes
    end: End | None = None


def parse_answer(data: bytes, end: End | None = None) -> Answer:
    head, separator, body = data.partition(b"\r\n\r\n")
    assert separator, f"no complete response head: {data[:200]!r}"
    first, *lines = head.decode("latin-1").split("\r\n")
    version, status, _ = first.split(" ", 2)
    assert version == "HTTP/1.1", first
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(": ")
        assert colon, line
        assert name.lower() not in headers or name.lower() == "connection", f"{name} stands twice"
        headers[name.lower()] = value
    return Answer(int(status), headers, body, end)


class Client:
    """One TCP (or unix, or TLS) connection to the server, before and after the upgrade."""

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]) -> None:
        self.stream = stream
        self.recorder = FrameRecorder()
        self.end: End | None = None
        self._frames: deque[Frame] = deque()

    @property
    def socket(self) -> trio.socket.SocketType:
        stream = self.stream
        return (stream.transport_stream if isinstance(stream, trio.SSLStream) else stream).socket

    # Opening

    async def upgrade(
        self,
        path: str = "/",
        *,
        subprotocols: Sequence[str] = (),
        extensions: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        behind: bytes = b"",
    ) -> Answer:
        """Do the opening handshake; `behind` goes out in the same segment as the request.

        A refusal is returned as it is; a 101 is checked, and what follows it is recorded as frames.
        """
        key = base64.b64encode(os.urandom(16))
        await self.send(upgrade_request(path, key, subprotocols, extensions, headers), behind)
        data = bytearray()
        while b"\r\n\r\n" not in data:
            more = await self._receive()
            assert more, f"the connection ended ({self.end}) inside the answer: {bytes(data)!r}"
            data += more
        head, _, rest = bytes(data).partition(b"\r\n\r\n")
        answer = parse_answer(head + b"\r\n\r\n")
        if answer.status != 101:
            return parse_answer(bytes(data) + await self.read_all(), self.end)
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
        assert answer.headers["sec-websocket-accept"] == accept
        assert answer.headers["upgrade"].lower() == "websocket"
        assert answer.headers["connection"].lower() == "upgrade"
        self.recorder = FrameRecorder(compressed="sec-websocket-extensions" in answer.headers)
        self._frames.extend(self.recorder.feed(rest))
        return answer

    # Sending

    async def send(self, *parts: bytes) -> None:
        """Send all of it in one piece."""
        await self.stream.send_all(b"".join(parts))

    async def send_text(self, message: str) -> None:
        await self.send(frame(TEXT, message))

    # Receiving

    async def _receive(self) -> bytes:
        """Receive some bytes; none at the end, and then `end` says which it was."""
        if self.end is not None:
            return b""
        try:
            data = bytes(await self.stream.receive_some(64 * 1024))
        except trio.BrokenResourceError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__cause__
            if isinstance(cause, ssl_module.SSLError) or cause is None:
                raise
            assert isinstance(cause, OSError)
            assert cause.errno in (errno.ECONNRESET, errno.EPIPE), cause
            self.end = End.RST
            return b""
        if not data:
            self.end = End.FIN
        return data

    async def receive_bytes(self, size: int) -> bytes:
        """Receive at most `size` bytes and leave them to the caller to record."""
        if self.end is not None:
            return b""
        data = bytes(await self.stream.receive_some(size))
        if not data:
            self.end = End.FIN
        return data

    async def read_all(self) -> bytes:
        """Read bytes up to the end."""
        data = bytearray()
        while more := await self._receive():
            data += more
        return bytes(data)

    async def next_frame(self) -> Frame:
        """Return the next frame; the connection must not end before it."""
        while not self._frames:
            data = await self._receive()
            assert data, f"the connection ended ({self.end}) where a frame was expected"
            self._frames.extend(self.recorder.feed(data))
        return self._frames.popleft()

    async def next_text(self) -> str:
        return (await self.next_frame()).text

    async def read_to_end(self) -> list[Frame]:
        """Return every frame up to the end, which must not be inside a frame."""
        while data := await self._receive():
            self._frames.extend(self.recorder.feed(data))
        self.recorder.finish()
        rest = list(self._frames)
        self._frames.clear()
        return rest

    async def close_well(self, code: int = 1000) -> list[Frame]:
        """Do the closing handshake and return the frames up to the server's Close, which comes last."""
        await self.send(close_frame(code))
        frames = await self.read_to_end()
        assert frames, f"no Close frame came, only {self.end}"
        assert frames[-1].opcode == CLOSE, frames
        assert self.end is End.FIN
        self.vanish()
        return frames

    # Leaving

    async def half_close(self) -> None:
        """Send FIN and go on reading."""
        self.socket.shutdown(stdlib_socket.SHUT_WR)

    def vanish(self) -> None:
        """Close the socket; the system sends FIN (or RST, if there were bytes left to read)."""
        self.socket.close()

    def reset(self) -> None:
        """Close the socket with a RST."""
        self.socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def upgrade_request(
    path: str = "/",
    key: bytes = b"dGhlIHNhbXBsZSBub25jZQ==",
    subprotocols: Sequence[str] = (),
    extensions: str | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: test.invalid",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key.decode()}",
        "Sec-WebSocket-Version: 13",
    ]
    if subprotocols:
        lines.append("Sec-WebSocket-Protocol: " + ", ".join(subprotocols))
    if extensions is not None:
        lines.append(f"Sec-WebSocket-Extensions: {extensions}")
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def open_socket(host: str, port: int | None, *, receive_buffer: int | None = None) -> trio.SocketStream:
    """Connect to a TCP address, or to a unix socket when there is no port."""
    if port is None:
        family = stdlib_socket.AF_UNIX
    else:
        family = stdlib_socket.AF_INET6 if ":" in host else stdlib_socket.AF_INET
    sock = trio.socket.socket(family, stdlib_socket.SOCK_STREAM)
    try:
        if receive_buffer is not None:
            sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_RCVBUF, receive_buffer)
        await sock.connect(host if port is None else (host, port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)
