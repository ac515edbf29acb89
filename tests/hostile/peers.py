"""Clients that live a `Life` of `lives.py`, on any stream that a host gives.

A `Peer` keeps what it saw: every byte that came passes `FrameRecorder`, which knows nothing of the server,
and labelled messages are noted for `judging.py`.
"""

from __future__ import annotations

import random
import socket as stdlib_socket
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress

import attrs
import trio

from tests.hostile.labels import Label, Torn, label, parse
from tests.hostile.lives import Life
from tests.hostile.programs import Step
from tests.promises.rawclient import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    FrameRecorder,
    close_frame,
    frame,
)
from wsframework.testing import MemoryStream

__all__ = ["Peer"]

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
DEFLATE = "permessage-deflate; client_no_context_takeover"
PATIENCE_SECONDS = 3.0
"""How long a client waits for an end that the server owes it."""


@attrs.define(eq=False)
class Peer:
    """One client."""

    stream: trio.abc.Stream
    authority: str
    number: int
    life: Life
    seen: list[Label] = attrs.field(factory=list)
    close: Frame | None = None
    closed_first: bool = False
    status: int | None = None
    ended: str = ""
    sent: int = 0
    late: bool = False
    stuck: str = ""
    wrongs: list[str] = attrs.field(factory=list)
    _recorder: FrameRecorder = attrs.field(factory=FrameRecorder)
    _inflater: zlib._Decompress | None = None
    _fragments: list[bytes] = attrs.field(factory=list)
    _over: trio.Event = attrs.field(factory=trio.Event)
    _pings: list[bytes] = attrs.field(factory=list)
    _turn: trio.Lock = attrs.field(factory=trio.Lock)
    _cut: bool = False
    _answered: bool = False

    # What the stream is made of

    @property
    def socket(self) -> trio.socket.SocketType | None:
        stream = self.stream
        while isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        return stream.socket if isinstance(stream, trio.SocketStream) else None

    def reset(self) -> None:
        if isinstance(self.stream, MemoryStream):
            self.stream.reset()
        elif self.socket is not None:
            linger = struct.pack("ii", 1, 0)
            if self.socket.fileno() >= 0:
                self.socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, linger)
            self.socket.close()

    def vanish(self) -> None:
        if isinstance(self.stream, MemoryStream):
            self.stream.close()
        elif self.socket is not None:
            self.socket.close()

    async def half_close(self) -> None:
        if isinstance(self.stream, MemoryStream):
            await self.stream.send_eof()
        elif self.socket is not None:
            with suppress(OSError):  # the server may have reset it
                self.socket.shutdown(stdlib_socket.SHUT_WR)

    # Living

    async def live(self) -> None:
        """Do what its life says, and be gone at the end."""
        opening = self.life.opening
        try:
            with trio.move_on_after(10) as limit:
                if self.life.upgrades:
                    await self._upgrade()
                else:
                    await self._open_otherwise(opening)
            self.late = limit.cancelled_caught
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            self.ended = self.ended or f"lost: {error.__cause__ or error}"
        finally:
            if self.life.leaving == "reset":
                self.reset()
            self.vanish()

    async def _open_otherwise(self, opening: str) -> None:
        host = f"Host: {self.authority}\r\n"
        number = self.number
        chance = random.Random(f"{number} {self.life}")
        if opening == "not_tls" and isinstance(self.stream, trio.SSLStream):
            await self.stream.transport_stream.send_all(
                b"GET / HTTP/1.1\r\n\r\n" if number % 2 else b"\x16\x03\x01\0"
            )
            await trio.sleep(chance.random() * 0.05)
            return
        good = self._request().decode()
        data = {
            "page": f"GET /page/{number} HTTP/1.1\r\n{host}\r\n",
            "post": f"POST /page/{number} HTTP/1.1\r\n{host}Content-Length: 3\r\n\r\nabc",
            "probe": "",
            "part_of_head": good[: chance.randrange(1, len(good) - 2)],
            "nonsense": "\x00\xff\r\n\r\n" if number % 2 else "GET  HTTP/9.9\r\nx\r\n\r\n",
            "wrong_origin": good.replace("Upgrade: w", "Origin: http://elsewhere.example\r\nUpgrade: w"),
            "odd_head": _odd(good, chance),
            "not_tls": "\x16\x03\x01 no HTTP at all\r\n\r\n",
            "huge_head": f"GET /page/{number} HTTP/1.1\r\n{host}" + "x: y\r\n" * 4000 + "\r\n",
        }[opening]
        await self.stream.send_all(data.encode("latin-1"))
        if opening in ("probe", "part_of_head"):
            await trio.sleep(chance.random() * 0.1)
            return
        with trio.move_on_after(1):
            # The client of a WebSocket host that refuses may be left waiting: that is no wrong.
            answer = b""
            while more := await self.stream.receive_some(65536):
                answer += more
            if opening == "wrong_origin" and not answer.startswith(b"HTTP/1.1 403"):
                self.wrongs.append(f"a foreign origin got {answer[:60]!r}")

    def _request(self) -> bytes:
        lines = [
            f"GET /part/{self.number} HTTP/1.1",
            f"Host: {self.authority}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {KEY}",
            "Sec-WebSocket-Version: 13",
        ]
        if self.life.compressed:
            lines.append(f"Sec-WebSocket-Extensions: {DEFLATE}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def _upgrade(self) -> None:
        behind = self._labelled(10) if self.life.opening == "upgrade_at_once" else b""
        await self.stream.send_all(self._request() + behind)
        data = b""
        while b"\r\n\r\n" not in data:
            more = await self.stream.receive_some(65536)
            if not more:
                self.ended = "no answer"
                return
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        self.status = int(head.split(b" ", 2)[1])
        if self.status != 101:
            with trio.move_on_after(PATIENCE_SECONDS):
                while await self.stream.receive_some(65536):
                    pass
            return
        compressed = b"permessage-deflate" in head
        self._recorder = FrameRecorder(compressed=compressed)
        if compressed:
            self._inflater = zlib.decompressobj(-15)
        self._take(rest)
        async with trio.open_nursery() as nursery:
            if self.life.reads is not None:
                nursery.start_soon(self._read)
            for step in self.life.steps:
                if self._over.is_set() or self._cut:
                    break
                await self._do(step, compressed)
            await self._leave()
            nursery.cancel_scope.cancel()

    async def _leave(self) -> None:
        match self.life.leaving:
            case "close":
                await self._say_goodbye(1000)
            case "wait":
                with trio.move_on_after(0.3):
                    await self._over.wait()
                await self._say_goodbye(3000)
            case "half_close":
                async with self._turn:
                    await self.half_close()
                await self._wait_over()

    async def _say_goodbye(self, code: int) -> None:
        async with self._turn:
            pass  # a frame that is being sent is whole before the next
        if not (self._over.is_set() or self._cut) and self.close is None:
            self.closed_first = True
            async with self._turn:
                await self._write(close_frame(code))
        await self._wait_over()

    async def _wait_over(self) -> None:
        if self.life.reads is not None:
            with trio.move_on_after(PATIENCE_SECONDS):
                await self._over.wait()

    # Reading

    async def _read(self) -> None:
        try:
            while data := await self.stream.receive_some(30_000):
                self._take(bytes(data))
                await self._answer()
                if self.life.reads:
                    await trio.sleep(self.life.reads)
            self.ended = self.ended or "FIN"
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.ended = self.ended or f"lost: {error.__cause__ or error}"
        finally:
            self._over.set()

    async def _answer(self) -> None:
        """Answer pings and the server's Close; while a frame is being sent, whoever sends it does so."""
        if self._turn.locked():
            return
        pings, self._pings = self._pings, []
        answers = b"".join(frame(PONG, payload) for payload in pings)
        if self.close is not None and self.life.lawful and not (self.closed_first or self._answered):
            self._answered = True
            answers += frame(CLOSE, self.close.payload)
        if answers:
            async with self._turn:
                await self._write(answers)

    def _take(self, data: bytes) -> None:
        try:
            frames = self._recorder.feed(data)
        except AssertionError as error:
            self.wrongs.append(f"the server sent {error}")
            raise trio.BrokenResourceError("no frames") from error
        self._recorder.frames.clear()
        for found in frames:
            if found.opcode == PING:
                self._pings.append(found.payload)
            elif found.opcode == CLOSE:
                self.close = found
            elif found.opcode in (TEXT, BINARY):
                self._note(found)

    def _note(self, found: Frame) -> None:
        payload = found.payload
        if found.rsv1:
            assert self._inflater is not None
            payload = self._inflater.decompress(payload + b"\0\0\xff\xff")
        try:
            self.seen.append(parse(payload.decode() if found.opcode == TEXT else payload))
        except (Torn, UnicodeDecodeError) as error:
            self.wrongs.append(f"the client received {error}")

    # Sending

    def _labelled(self, size: int) -> bytes:
        message = label("<", self.sent, size)
        self.sent += 1
        return frame(TEXT if isinstance(message, str) else BINARY, message)

    async def _do(self, step: Step, compressed: bool) -> None:
        actions: dict[str, Callable[..., bytes]] = {
            "messages": lambda size, count: b"".join(self._labelled(size) for _ in range(count)),
            "fragments": self._fragmented,
            "deflated": self._deflated if compressed else lambda size, count: b"",
            "pings": lambda count, size: frame(PING, b"p" * size) * count,
            "pongs": lambda count: frame(PONG, b"unasked") * count,
            "tiny": lambda count: frame(TEXT, "~") * count,
            "empty_fragments": lambda count: (
                frame(TEXT, "~", fin=False) + frame(CONTINUATION, fin=False) * count + frame(CONTINUATION)
            ),
        }
        if step.verb == "pause":
            await trio.sleep(step.values[0])
            return
        if step.verb in actions:
            data = actions[step.verb](*step.values)
        else:
            data = _unlawful(step.verb, random.Random(step.values[0]), compressed)
        await self._send(data)
        if step.verb in ("cut", "noise"):
            # What follows would be the rest of a frame that nobody has labelled.
            self._cut = True

    async def _send(self, data: bytes) -> None:
        async with self._turn:
            if self.close is not None:
                return  # "MUST NOT send any more data frames after sending a Close frame" (RFC 6455 §5.5.1)
            await self._write(data)
        await self._answer()

    async def _write(self, data: bytes) -> None:
        try:
            with trio.move_on_after(PATIENCE_SECONDS) as limit:
                await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._cut = True
            return
        if limit.cancelled_caught:
            self._cut = True
            self.stuck = f"the server did not read {len(data)} bytes in {PATIENCE_SECONDS} s"

    def _fragmented(self, size: int, count: int) -> bytes:
        message = label("<", self.sent, size)
        self.sent += 1
        data = message.encode() if isinstance(message, str) else message
        step = max(1, len(data) // count)
        pieces = [data[start : start + step] for start in range(0, len(data), step)]
        frames = [frame(TEXT if isinstance(message, str) else BINARY, pieces[0], fin=len(pieces) == 1)]
        for number, piece in enumerate(pieces[1:], 2):
            if number % 3 == 0:
                frames.append(frame(PING, b"between"))
            frames.append(frame(CONTINUATION, piece, fin=number == len(pieces)))
        return b"".join(frames)

    def _deflated(self, size: int, count: int) -> bytes:
        frames = []
        for _ in range(count):
            message = label("<", self.sent, size)
            self.sent += 1
            data = message.encode() if isinstance(message, str) else message
            opcode = TEXT if isinstance(message, str) else BINARY
            frames.append(frame(opcode, _deflate(data), rsv1=True))
        return b"".join(frames)


def _deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-12)
    return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def _unlawful(kind: str, chance: random.Random, compressed: bool) -> bytes:
    match kind:
        case "noise":
            return chance.randbytes(chance.randrange(1, 200))
        case "utf8":
            return frame(TEXT, "~", fin=False) + frame(CONTINUATION, b"\xff\xfe")
        case "rsv":
            return frame(TEXT, b"\xff\xff\xff", rsv1=True)
        case "oversize":
            return frame(BINARY, b"~" * 150_001)
        case "orphan":
            return frame(CONTINUATION, b"~")
        case "code":
            return close_frame(chance.choice((0, 999, 1005, 1006, 1015, 2000, 5000)))
        case "bomb" if compressed:
            return frame(BINARY, _deflate(bytes(10_000_000)), rsv1=True)
        case "cut":
            return frame(BINARY, b"~" * 1000)[: chance.randrange(1, 900)]
        case "unmasked":
            return b"\x81\x01~"
        case _:
            return frame(PING, b"~" * 126)


def _odd(good: str, chance: random.Random) -> str:
    """A request with one thing wrong, or two."""
    lines = good.split("\r\n")
    for _ in range(chance.randrange(1, 3)):
        spot = chance.randrange(len(lines) - 2)
        match chance.randrange(8):
            case 0:
                del lines[spot]
            case 1:
                lines.insert(spot, lines[spot])
            case 2:
                lines[spot] += chance.choice(("\x00", "\xe9", "\t\x0b", " " * 500, ", x" * 500))
            case 3:
                lines[spot] = lines[spot].replace(":", " :")
            case 4:
                lines.insert(1, " folded: once")
            case 5:
                lines.insert(
                    -2, "Sec-WebSocket-Protocol: " + chance.choice((",", "\xe9", "a,a", "a b", "x" * 9000))
                )
            case 6:
                lines.insert(
                    -2,
                    "Sec-WebSocket-Extensions: "
                    + chance.choice((";", 'a;b="', "\xe9", "permessage-deflate;" * 99)),
                )
            case _:
                lines.insert(
                    -2,
                    chance.choice(("Transfer-Encoding: chunked", "Content-Length: -1", "Content-Length: 5")),
                )
    return "\r\n".join(lines)
