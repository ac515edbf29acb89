"""The transport over any Trio stream: memory streams, unix sockets, TLS, whatever speaks `trio.abc.Stream`.

Two tasks a connection: the reader feeds the decoder, the writer empties the outbox. No user scope reaches
them, so no frame is ever cut. Both end with the connection's scope, which `_release` cancels, and `run`
closes the stream after them: there is no other place that does.
"""

from __future__ import annotations

import contextlib
import ssl

import trio

from wsframework.config import Limits, Timeouts
from wsframework.server.framing import READ_BYTES, FrameTransport
from wsframework.server.hub import unsent_bytes
from wsframework.timers import Timers
from wsframework.wire import Deflater, Inflater

__all__ = ["BROKEN", "StreamTransport", "close_stream", "end_stream"]

_WRITE_BYTES = 16 * 1024
"""The most that is written at once: by these it is seen that a slow peer takes some of a long message."""

_steps: trio.lowlevel.RunVar[trio.Lock] = trio.lowlevel.RunVar("wsframework.server.stream.steps")
"""One connection at a time decodes what one step was not enough for. With each of them in every turn of the
scheduler an echo would wait three times for all of them."""

# What a stream raises when there is no peer at its other end any more.
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, OSError)


class StreamTransport(FrameTransport):
    """One connection's frames over a Trio stream."""

    __slots__ = (
        "_filled",
        "_may_read",
        "_read_ended",
        "_reading",
        "_saw_fin",
        "_scope",
        "_stream",
        "_waited_for",
    )

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        limits: Limits,
        timeouts: Timeouts,
        timers: Timers,
        codecs: tuple[Deflater, Inflater] | None = None,
    ) -> None:
        super().__init__(limits=limits, timeouts=timeouts, timers=timers, codecs=codecs)
        self._stream = stream
        self._scope = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._read_ended: trio.Event | bool = False
        self._saw_fin = False
        self._waited_for: float | None = None
        self._filled = trio.Event()
        self._may_read = trio.Event()
        self._may_read.set()

    async def run(self, initial: bytes) -> None:
        """Move bytes until the connection is over, then close the stream.

        Args:
            initial: bytes that came right behind the opening handshake.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    if initial:
                        self._received(initial)
                    with self._reading:
                        await self._read()
                    waiting, self._read_ended = self._read_ended, True
                    if isinstance(waiting, trio.Event):
                        waiting.set()
        finally:
            await close_stream(self._stream)
            self._released()

    def discard(self, cause: str) -> None:
        """Take note that `run` will never be called: the stream is closed already."""
        self._lose(cause)
        self._released()

    @trio.lowlevel.enable_ki_protection
    async def _read(self) -> None:
        while True:
            await self._may_read.wait()
            if self._decoder.stopped:
                async with _steps_lock():
                    self._decode_on()
                continue
            try:
                data = await self._stream.receive_some(READ_BYTES)
            except BROKEN as error:
                self._broken(_describe(error))
                return
            if not data:
                self._saw_fin = True
                self._peer_closed()
                return
            self.heard_at = trio.current_time()
            if not self._sending_ended:
                self._received(data)

    @trio.lowlevel.enable_ki_protection
    async def _write(self) -> None:
        try:
            while True:
                while self.outbox:
                    frames, self.outbox = self.outbox, []
                    self._joined = 0
                    data = frames[0] if len(frames) == 1 else b"".join(frames)
                    while len(data) > _WRITE_BYTES:
                        await self._stream.send_all(data[:_WRITE_BYTES])
                        self.outbox_bytes -= _WRITE_BYTES
                        data = memoryview(data)[_WRITE_BYTES:]
                        # It is moving, and our ping may be behind it.
                        self.heard_at = trio.current_time()
                    await self._stream.send_all(data)
                    self.outbox_bytes -= len(data)
                    if self.room_wanted:
                        self._made_room()
                if self._sending_ended:
                    break
                self._filled = trio.Event()
                await self._filled.wait()
            # What comes now is read and dropped by `end_stream`; TLS's close_notify needs both directions.
            self._reading.cancel(reason="the closing handshake is complete")
            if not self._read_ended:
                # A stream has one reader at a time, and ours has yet to wake up and leave.
                self._read_ended = trio.Event()
                await self._read_ended.wait()
            await end_stream(self._stream, saw_fin=self._saw_fin)
        except BROKEN as error:
            self._broken(_describe(error))
        else:
            self._release()

    def _outbox_filled(self) -> None:
        self._filled.set()
        self._join_small_frames()

    def _read_waiting(self) -> bool:
        # The reader has had its turn if this is the second question about the same silence.
        asked, self._waited_for = self._waited_for, self.heard_at
        return asked == self.heard_at

    def _untaken_bytes(self) -> int:
        socket = _socket_of(self._stream)
        return self.outbox_bytes + (0 if socket is None else unsent_bytes(socket.fileno()))

    def _release(self) -> None:
        self._scope.cancel(reason="the connection is released")

    def pause_reading(self) -> None:
        """Stop the reader after what it is reading now."""
        self._reading_paused = True
        self._may_read = trio.Event()

    def resume_reading(self) -> None:
        """Let the reader go on."""
        self._reading_paused = False
        self._may_read.set()


def _steps_lock() -> trio.Lock:
    try:
        return _steps.get()
    except LookupError:
        lock = trio.Lock()
        _steps.set(lock)
        return lock


async def end_stream(stream: trio.abc.Stream, *, saw_fin: bool = False) -> None:
    """Say FIN and read what the peer still sends up to its FIN, so that closing the stream is no RST.

    A RST makes the peer's kernel throw away what it has received and not read yet: our last frames. The
    caller bounds the wait and closes the stream afterwards.

    Raises:
        trio.BrokenResourceError: the peer was not so patient.

    Source: RFC 6455 §7.1.1, RFC 9112 §9.6.
    """
    if isinstance(stream, trio.SSLStream):
        tls, stream = stream, stream.transport_stream
        with contextlib.suppress(*BROKEN):  # peers often close TCP without TLS's close_notify
            await tls.unwrap()
    if isinstance(stream, trio.abc.HalfCloseableStream):
        await stream.send_eof()
        while not saw_fin:
            saw_fin = not await stream.receive_some(READ_BYTES)


async def close_stream(stream: trio.abc.Stream) -> None:
    """Close a stream at once, and end its connection even if another process has the socket; see `hang_up`.

    Cancellation: the stream is closed all the same.
    """
    socket = _socket_of(stream)
    if socket is not None:
        with contextlib.suppress(OSError):
            socket.shutdown(trio.socket.SHUT_RDWR)
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(stream)


def _socket_of(stream: trio.abc.Stream) -> trio.socket.SocketType | None:
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream.socket if isinstance(stream, trio.SocketStream) else None


def _describe(error: BaseException) -> str:
    inner = error.__cause__ if isinstance(error, trio.BrokenResourceError) and error.__cause__ else error
    return f"the connection was lost: {inner}"
