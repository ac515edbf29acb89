"""Two ends of a connection in memory, as strict as TCP about what is lost, and when.

`trio.testing.memory_stream_pair` has buffers without end, so a peer that does not read is never felt, and it
forgives every way of closing. Here a direction holds a bounded number of bytes, and closing an end that has
bytes to read, or that bytes still come to, is a reset: it destroys what the peer has not read yet, as a
kernel's RST does. A server that closes carelessly fails its tests here, not in production.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager

import trio

__all__ = ["MemoryStream", "memory_pair"]

_BUFFER_BYTES = 64 * 1024
"""What one direction holds, in bytes: less than a kernel's buffers, so that a slow reader is felt soon."""


class _Direction:
    """Bytes on their way from one end to the other."""

    def __init__(self, capacity: int | None) -> None:
        self.data = bytearray()
        self.capacity = capacity
        self.finished = False  # the sender has sent FIN
        self.refused = False  # the receiver has closed
        self.reset = False
        self._waiting = trio.lowlevel.ParkingLot()

    @property
    def room(self) -> int | None:
        return None if self.capacity is None else max(0, self.capacity - len(self.data))

    def changed(self) -> None:
        self._waiting.unpark_all()

    async def wait_change(self) -> None:
        await self._waiting.park()


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a connection in memory; `memory_pair` makes both."""

    def __init__(self, incoming: _Direction, outgoing: _Direction) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False
        self._sending = False
        self._receiving = False

    @property
    def closed(self) -> bool:
        """Whether this end was closed."""
        return self._closed

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, waiting while the other end does not read.

        Raises:
            trio.BrokenResourceError: the other end is closed, or the connection was reset.

        Cancellation: any part of the data may have been sent.
        """
        with self._busy_sending():
            await trio.lowlevel.checkpoint()
            rest = memoryview(data).cast("B")
            while True:
                self._check_may_send()
                taken = rest if self._outgoing.room is None else rest[: self._outgoing.room]
                if taken:
                    self._outgoing.data += taken
                    self._outgoing.changed()
                    rest = rest[len(taken) :]
                if not rest:
                    return
                await self._outgoing.wait_change()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room for a byte, or nothing to wait for any more."""
        with self._busy_sending():
            await trio.lowlevel.checkpoint()
            while not self._closed and self._outgoing.room == 0 and not self._outgoing.refused:
                await self._outgoing.wait_change()
            self._check_open()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what is there, or wait for it; empty bytes are the other end's FIN.

        Raises:
            trio.BrokenResourceError: the connection was reset.

        Cancellation: nothing is taken.
        """
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError(f"max_bytes must be 1 or more, not {max_bytes}")
        if self._receiving:
            raise trio.BusyResourceError("another task is already receiving from this stream")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while True:
                self._check_open()
                incoming = self._incoming
                if incoming.reset:
                    raise trio.BrokenResourceError("the connection was reset")
                if incoming.data:
                    data = bytes(incoming.data[:max_bytes])
                    del incoming.data[: len(data)]
                    incoming.changed()
                    return data
                if incoming.finished:
                    return b""
                await incoming.wait_change()
        finally:
            self._receiving = False

    async def send_eof(self) -> None:
        """Send FIN: no more bytes will come from this end."""
        with self._busy_sending():
            await trio.lowlevel.checkpoint()
            self._check_open()
            self._outgoing.finished = True
            self._outgoing.changed()

    async def aclose(self) -> None:
        """Close this end: FIN, or a reset if there was something left to read."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close this end at once; `aclose` without its checkpoint."""
        if self._closed:
            return
        if self._incoming.data:
            self.reset()
            return
        self._closed = True
        self._outgoing.finished = True
        self._incoming.refused = True
        self._outgoing.changed()
        self._incoming.changed()

    def reset(self) -> None:
        """Close this end as a RST does: bytes under way in both directions are lost."""
        self._closed = True
        for direction in (self._incoming, self._outgoing):
            direction.reset = direction.refused = True
            direction.data.clear()
            direction.changed()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this end of the stream is closed")

    def _check_may_send(self) -> None:
        self._check_open()
        outgoing = self._outgoing
        if outgoing.finished:
            raise trio.ClosedResourceError("this end has sent its FIN")
        if outgoing.refused:
            # The answer to bytes for a closed socket is a RST.
            self._incoming.reset = True
            self._incoming.data.clear()
            raise trio.BrokenResourceError("the other end is closed")

    @contextmanager
    def _busy_sending(self) -> Iterator[None]:
        if self._sending:
            raise trio.BusyResourceError("another task is already sending on this stream")
        self._sending = True
        try:
            yield
        finally:
            self._sending = False


def memory_pair(*, buffer_bytes: int | None = _BUFFER_BYTES) -> tuple[MemoryStream, MemoryStream]:
    """Return the two ends of a new connection in memory.

    Args:
        buffer_bytes: how many bytes one direction holds before its sender waits; None for any number.
    """
    if buffer_bytes is not None and buffer_bytes < 1:
        raise ValueError(f"buffer_bytes must be 1 or more, or None, not {buffer_bytes}")
    there, back = _Direction(buffer_bytes), _Direction(buffer_bytes)
    return MemoryStream(back, there), MemoryStream(there, back)
