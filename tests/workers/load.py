"""Clients that stay, and clients that come and go; every bad end is counted."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import attrs
import trio

from wsframework.wire import Opcode

_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

_PATIENCE_SECONDS = 30.0

_MOST_VISITS = 100
"""At a time: a machine that cannot keep up must not count as a server that does not answer."""

_LATE_SECONDS = 0.5
"""From the connection to the request; the server's second has begun at any time before."""


class Lost(Exception):
    """The connection ended without a Close frame, or its handshake had no answer, or another one than 101."""


class Late(Exception):
    """A handshake failed whose request came too late: a server that stops waits for a second."""


class Line:
    """One WebSocket on a plain stream: small messages, whole frames."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._sent_at = float("inf")
        self._buffer = bytearray()

    @classmethod
    async def open(cls, port: int) -> Line:
        """Connect and upgrade.

        Raises:
            Lost: the handshake got no 101.
            Late: and it was this busy process that was late with its request.
        """
        start = trio.current_time()
        try:
            line = cls(await trio.open_tcp_stream("127.0.0.1", port))
        except OSError as error:
            raise Lost(f"handshake: {error!r}") from None
        try:
            await line._upgrade()
        except BaseException as error:
            await trio.aclose_forcefully(line._stream)
            if isinstance(error, Lost) and line._sent_at - start > _LATE_SECONDS:
                raise Late from None
            raise
        return line

    async def _upgrade(self) -> None:
        try:
            await self._stream.send_all(_HANDSHAKE)
            self._sent_at = trio.current_time()
            while b"\r\n\r\n" not in self._buffer:
                await self._more()
        except (Lost, trio.BrokenResourceError) as error:
            raise Lost(f"handshake: {error}") from None
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise Lost(f"handshake: {head[:40]!r}")
        self._buffer = bytearray(rest)

    async def _more(self) -> None:
        try:
            data = await self._stream.receive_some(65536)
        except trio.BrokenResourceError as error:
            raise Lost(f"reset: {error.__cause__!r}") from None
        if not data:
            raise Lost("the end without a Close frame")
        self._buffer += data

    async def send(self, payload: bytes, opcode: Opcode = Opcode.TEXT) -> None:
        """Send a frame, of less than 126 bytes, masked with zeros."""
        # What goes wrong here is told by what is received.
        with suppress(trio.BrokenResourceError):
            await self._stream.send_all(bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload)

    async def receive(self) -> bytes | int:
        """Return the next message, or the code of a Close frame, which is answered.

        Raises:
            Lost: the connection ended without one.
        """
        while True:
            while len(self._buffer) < 2 or len(self._buffer) < 2 + self._buffer[1]:
                await self._more()
            opcode, end = self._buffer[0] & 0xF, 2 + self._buffer[1]
            payload = bytes(self._buffer[2:end])
            del self._buffer[:end]
            if opcode == Opcode.CLOSE:
                await self.send(payload[:2], Opcode.CLOSE)
                return int.from_bytes(payload[:2], "big")
            if opcode == Opcode.PING:
                await self.send(payload, Opcode.PONG)
            else:
                return payload

    async def leave(self) -> None:
        """Close the socket."""
        await self._stream.aclose()


@attrs.define
class Load:
    """Clients of one port, until its nursery is cancelled.

    Attributes:
        handshakes: how many were answered with 101.
        slowest: the seconds that the slowest of them took.
        open: clients that stay, and are connected now.
        codes: of the Close frames that clients got.
        late: handshakes that failed because this process was too busy.
        lost: the handshakes and connections that ended otherwise.
    """

    port: int
    handshakes: int = 0
    slowest: float = 0.0
    open: int = 0
    late: int = 0
    codes: Counter[int] = attrs.field(factory=Counter)
    lost: list[str] = attrs.field(factory=list)

    async def stay(self) -> None:
        """Hold one connection, and open the next one when it is closed."""
        while True:
            await self._one(self._hold)

    async def come_and_go(self, per_second: float) -> None:
        """Open connections at a rate, or as fast as this machine can; each exchanges a message and leaves."""
        async with trio.open_nursery() as nursery:
            while True:
                if len(nursery.child_tasks) < _MOST_VISITS:
                    nursery.start_soon(self._one, self._visit)
                await trio.sleep(random.uniform(0.5, 1.5) / per_second)

    async def _one(self, use: Callable[[Line], Awaitable[None]]) -> None:
        line = None
        try:
            start = trio.current_time()
            with trio.move_on_after(_PATIENCE_SECONDS):
                line = await Line.open(self.port)
            if line is None:
                raise Lost("handshake: no answer")
            self.slowest = max(self.slowest, trio.current_time() - start)
            self.handshakes += 1
            await use(line)
        except Late:
            self.late += 1
        except Lost as error:
            self.lost.append(str(error))
        finally:
            if line is not None:
                with trio.CancelScope(shield=True):
                    await line.leave()

    async def _hold(self, line: Line) -> None:
        self.open += 1
        try:
            while not isinstance(found := await line.receive(), int):
                pass
        finally:
            self.open -= 1
        self.codes[found] += 1

    async def _visit(self, line: Line) -> None:
        with trio.move_on_after(_PATIENCE_SECONDS) as patience:
            await line.send(b"hello")
            while (found := await line.receive()) != b"hello":
                if isinstance(found, int):
                    self.codes[found] += 1
                    return
            await line.send((1000).to_bytes(2, "big"), Opcode.CLOSE)
            while not isinstance(await line.receive(), int):
                pass
        if patience.cancelled_caught:
            raise Lost("no answer to a message or to a Close frame")
