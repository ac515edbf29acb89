"""Streams that misbehave, each in one way; wrap one in another to have several faults at once.

    client = Gate(TornReads(stream, 1))     # byte by byte, until `client.hold_reads()`

All of them take any Trio stream and are Trio streams themselves. A fault affects the code that uses the
wrapper: wrap the server's end to break the server's reads and writes, the client's end to make a bad client.
"""

from __future__ import annotations

import itertools
import operator
import socket
import struct
from collections.abc import Iterable

import trio

from wsframework.testing.memory import MemoryStream

__all__ = [
    "Gate",
    "HalfOpen",
    "NeverReadable",
    "NeverWritable",
    "ResetAfter",
    "StreamWrapper",
    "TornReads",
    "reset_stream",
]


class StreamWrapper(trio.abc.HalfCloseableStream):
    """Passes everything on; the base of the faults, and of your own.

    Over a stream that cannot be half closed (TLS), `send_eof` does nothing.

    Attributes:
        stream: the stream that is wrapped.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`."""
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until sending may succeed at once."""
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive at least one byte, or none at the end."""
        return await self.stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        """Send FIN, where there is one."""
        if isinstance(self.stream, trio.abc.HalfCloseableStream):
            await self.stream.send_eof()
        else:
            await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close the stream."""
        await self.stream.aclose()


class Gate(StreamWrapper):
    """Passes bytes until it is told to hold them: a peer, or a network, that stalls when the test says so.

    Args:
        stream: what to wrap.
        reads: how many bytes may be read before reads wait; None for any number.
        writes: the same for bytes written.
    """

    def __init__(
        self, stream: trio.abc.Stream, *, reads: int | None = None, writes: int | None = None
    ) -> None:
        super().__init__(stream)
        self._reads = reads
        self._writes = writes
        self._held_back = b""
        self._closed = False
        self._moved = trio.Event()

    def hold_reads(self, after_bytes: int = 0) -> None:
        """Let `after_bytes` more through to readers, then let them wait."""
        self._reads = after_bytes
        self._move()

    def hold_writes(self, after_bytes: int = 0) -> None:
        """Take `after_bytes` more from writers, then let them wait."""
        self._writes = after_bytes
        self._move()

    def release(self) -> None:
        """Let everything through again."""
        self._reads = self._writes = None
        self._move()

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    async def _wait_move(self) -> None:
        await self._moved.wait()
        if self._closed:
            raise trio.ClosedResourceError("the stream was closed while its gate was shut")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send as much as the gate lets through, and wait for it to open with the rest."""
        rest = memoryview(data).cast("B")
        while self._writes is not None and len(rest) > self._writes:
            passing, rest = rest[: self._writes], rest[self._writes :]
            self._writes = 0
            if passing:
                await self.stream.send_all(passing)
            else:
                await self._wait_move()
        if self._writes is not None:
            self._writes -= len(rest)
        await self.stream.send_all(rest)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for the gate, and then for the stream."""
        while self._writes == 0:
            await self._wait_move()
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what the gate lets through."""
        # Bytes that were already on their way to a waiting reader when the gate was shut stay in here.
        while not self._held_back:
            while self._reads == 0:
                await self._wait_move()
            data = await self.stream.receive_some(max_bytes)
            if not data:
                while self._reads == 0:
                    await self._wait_move()
                return b""
            self._held_back = bytes(data)
        while self._reads == 0:
            await self._wait_move()
        limits = [limit for limit in (max_bytes, self._reads) if limit is not None]
        data = self._held_back[: min(limits, default=len(self._held_back))]
        self._held_back = self._held_back[len(data) :]
        if self._reads is not None:
            self._reads -= len(data)
        return data

    async def aclose(self) -> None:
        """Close the stream, whatever the gate says."""
        self._closed = True
        self._move()
        await self.stream.aclose()


class NeverReadable(Gate):
    """Nothing can be read from it, or nothing after the first `after_bytes`: a peer that fell silent."""

    def __init__(self, stream: trio.abc.Stream, after_bytes: int = 0) -> None:
        super().__init__(stream, reads=after_bytes)


class NeverWritable(Gate):
    """It takes nothing, or nothing after the first `after_bytes`: a peer that does not read."""

    def __init__(self, stream: trio.abc.Stream, after_bytes: int = 0) -> None:
        super().__init__(stream, writes=after_bytes)


class TornReads(StreamWrapper):
    """Reads come in pieces, as a network may always deliver them.

    Args:
        stream: what to wrap.
        size: bytes in a piece, or several sizes that take turns.
    """

    def __init__(self, stream: trio.abc.Stream, size: int | Iterable[int] = 1) -> None:
        super().__init__(stream)
        sizes = [size] if isinstance(size, int) else list(size)
        if not sizes or min(sizes) < 1:
            raise ValueError(f"pieces have 1 byte or more each, not {size!r}")
        self._sizes = itertools.cycle(sizes)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive the next piece."""
        size = next(self._sizes)
        if max_bytes is None or operator.index(max_bytes) > size:
            max_bytes = size
        return await self.stream.receive_some(max_bytes)


class HalfOpen(StreamWrapper):
    """A connection whose other end has vanished: no FIN and no RST comes or arrives.

    From `vanish` on, bytes written disappear, reads wait without end, and the other end does not notice that
    this one is closed. The stream inside stays open; close it yourself when the test is over (`connect`
    does).
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(stream)
        self._closed = trio.Event()
        self._gone = trio.Event()
        self._reading: trio.CancelScope | None = None

    @property
    def gone(self) -> bool:
        """Whether the wire is cut."""
        return self._gone.is_set()

    def vanish(self) -> None:
        """Cut the wire."""
        self._gone.set()
        if self._reading is not None:
            self._reading.cancel(reason="the other end has vanished")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, or lose."""
        if self._gone.is_set():
            await self._pretend()
        else:
            await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once when the peer has vanished: the kernel's buffer takes the data."""
        if self._gone.is_set():
            await self._pretend()
        else:
            await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive, or wait for what never comes."""
        if not self._gone.is_set():
            with trio.CancelScope() as self._reading:
                try:
                    return await self.stream.receive_some(max_bytes)
                finally:
                    self._reading = None
        await self._closed.wait()
        raise trio.ClosedResourceError("this end of the stream is closed")

    async def send_eof(self) -> None:
        """Send FIN, or lose it."""
        if self._gone.is_set():
            await self._pretend()
        else:
            await super().send_eof()

    async def aclose(self) -> None:
        """Close this end."""
        self._closed.set()
        if self._gone.is_set():
            await trio.lowlevel.checkpoint()
        else:
            await self.stream.aclose()

    async def _pretend(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._closed.is_set():
            raise trio.ClosedResourceError("this end of the stream is closed")


class ResetAfter(StreamWrapper):
    """The connection is reset after so many bytes, in the middle of whatever they are.

    Args:
        stream: what to wrap.
        sent: reset once this many bytes were written; None for never.
        received: reset once this many bytes were read; None for never.
    """

    def __init__(
        self, stream: trio.abc.Stream, *, sent: int | None = None, received: int | None = None
    ) -> None:
        super().__init__(stream)
        self._sent = sent
        self._received = received

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send up to the reset."""
        if self._sent is None:
            await self.stream.send_all(data)
            return
        passing = memoryview(data).cast("B")[: self._sent]
        self._sent -= len(passing)
        await self.stream.send_all(passing)
        if self._sent == 0:
            await self._break()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive up to the reset."""
        if self._received is None:
            return await self.stream.receive_some(max_bytes)
        if self._received == 0:
            await self._break()
        limit = self._received if max_bytes is None else min(self._received, max_bytes)
        data = await self.stream.receive_some(limit)
        self._received -= len(data)
        return data

    async def _break(self) -> None:
        await reset_stream(self.stream)
        raise trio.BrokenResourceError("the connection was reset")


async def reset_stream(stream: trio.abc.Stream) -> None:
    """Close a stream as a crash does: with a RST, so that what the peer has not read yet is lost.

    A stream of another kind than sockets, memory streams and wrappers of these is just closed forcefully.
    """
    inner = stream
    while isinstance(inner, StreamWrapper):
        inner = inner.stream
    if isinstance(inner, trio.SSLStream):
        inner = inner.transport_stream
    if isinstance(inner, MemoryStream):
        inner.reset()
    elif isinstance(inner, trio.SocketStream):
        # Lingering for zero seconds makes close() send RST in place of FIN (POSIX leaves it to the system;
        # Linux, BSD and macOS agree).
        inner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(stream)
