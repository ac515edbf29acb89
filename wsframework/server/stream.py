"""The transport over any `trio.abc.Stream`: memory streams, unix sockets, TLS.

Each connection has two tasks: the reader feeds the decoder, and the writer empties the outbox. No cancel
scope of a user encloses them, so no frame is ever cut. Both end with the connection's scope, which `_release`
cancels. Then `run` closes the stream, and nothing else does.
"""

from __future__ import annotations

import contextlib
import ssl

import trio
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled

from wsframework.config import Limits, Timeouts
from wsframework.server.framing import READ_BYTES, FrameTransport
from wsframework.server.hub import unsent_bytes
from wsframework.timers import Timers
from wsframework.wire import Deflater, Inflater

__all__ = ["BROKEN", "StreamTransport", "close_stream", "end_stream"]

_WRITE_BYTES = 16 * 1024
"""The most that is written at once. Each piece that a slow peer takes is a sign of life."""

_steps: trio.lowlevel.RunVar[trio.Lock] = trio.lowlevel.RunVar("wsframework.server.stream.steps")
"""Held while a connection decodes what one step was not enough for, or compresses broadcasts. If all such
connections did so in every turn of the scheduler, an echo of another connection would wait for all of them
three times."""

# What a stream raises when the peer is gone.
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, OSError)


class StreamTransport(FrameTransport):
    """One connection's frames over a Trio stream."""

    __slots__ = (
        "_handed_back",
        "_may_read",
        "_read_ended",
        "_reading",
        "_saw_fin",
        "_scope",
        "_stream",
        "_waited_for",
        "_writer",
        "_written",
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
        self._handed_back = False
        self._waited_for: float | None = None
        self._written: trio.Event | None = None
        self._writer: Task | None = None  # while it waits for something to write
        self._may_read = trio.Event()
        self._may_read.set()

    async def run(self, initial: bytes) -> None:
        """Move bytes until the connection is over, then close the stream, unless it was handed back.

        Args:
            initial: bytes that came right behind the opening handshake.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    with self._reading:
                        await self._read(initial)
                    waiting, self._read_ended = self._read_ended, True
                    if isinstance(waiting, trio.Event):
                        waiting.set()
        finally:
            try:
                if not self._handed_back:
                    await close_stream(self._stream)
            finally:
                self._released()
                self._wake_written()

    async def written(self) -> None:
        """Wait until something was written, or the connection is over; nothing is read before that.

        Call it before `run` begins, in the task that then takes what is read.

        Cancellation: it cannot be cancelled.
        """
        self._written = trio.Event()
        self._may_read = trio.Event()
        with trio.CancelScope(shield=True):
            await self._written.wait()
        self._may_read.set()

    def _wake_written(self) -> None:
        written, self._written = self._written, None
        if written is not None:
            written.set()

    def discard(self, cause: str) -> None:
        """Take note that `run` will not be called, because the stream is closed already."""
        self._lose(cause)
        self._released()
        self._wake_written()

    @trio.lowlevel.enable_ki_protection
    async def _read(self, initial: bytes) -> None:
        if initial:
            await self._may_read.wait()
            self._received(initial)
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
            if self._sending_ended:
                self._came_late(bytes(data))
            else:
                self._received(data)

    @trio.lowlevel.enable_ki_protection
    async def _write(self) -> None:
        try:
            while True:
                while self.outbox or self._uncompressed:
                    if self._uncompressed:
                        async with _steps_lock():
                            self._compress()
                        continue
                    frames, self.outbox = self.outbox, []
                    self._joined = 0
                    data = frames[0] if len(frames) == 1 else b"".join(frames)
                    while len(data) > _WRITE_BYTES:
                        await self._stream.send_all(data[:_WRITE_BYTES])
                        self.outbox_bytes -= _WRITE_BYTES
                        data = memoryview(data)[_WRITE_BYTES:]
                        # The peer takes bytes, and cannot answer a ping that is queued behind this message.
                        self.heard_at = trio.current_time()
                    await self._stream.send_all(data)
                    self.outbox_bytes -= len(data)
                    self._wake_written()
                    if self.room_wanted:
                        self._made_room()
                if self._sending_ended:
                    break
                self._writer = current_task()
                await wait_task_rescheduled(self._stop_writer)
            # From here on `end_stream` reads, and drops what it reads; TLS's close_notify needs both
            # directions.
            self._reading.cancel(reason="the closing handshake is complete")
            if not self._read_ended:
                # A stream has one reader at a time, and ours has not ended yet.
                self._read_ended = trio.Event()
                await self._read_ended.wait()
            then = self._then()
            if then is None:
                await end_stream(self._stream, saw_fin=self._saw_fin)
            else:
                self._handed_back = True
                self._let_go()
                then()
        except BROKEN as error:
            self._broken(_describe(error))
        else:
            self._release()

    def _outbox_filled(self) -> None:
        writer = self._writer
        if writer is not None:
            # Not an event: if the caller has used up Python's stack, an event is set and wakes nobody.
            reschedule(writer)
            self._writer = None
        self._join_small_frames()

    def _stop_writer(self, _: object) -> Abort:
        self._writer = None
        return Abort.SUCCEEDED

    def _read_waiting(self) -> bool:
        # The reader has run since the first of two calls for the same silence.
        asked, self._waited_for = self._waited_for, self.heard_at
        return asked == self.heard_at

    def _untaken_bytes(self) -> int:
        socket = _socket_of(self._stream)
        return self.outbox_bytes + (0 if socket is None else unsent_bytes(socket.fileno()))

    def _release(self) -> None:
        self._scope.cancel(reason="the connection is released")

    def pause_reading(self) -> None:
        """Stop the reader after its current read."""
        self._reading_paused = True
        self._may_read = trio.Event()

    def resume_reading(self) -> None:
        """Let the reader continue."""
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
    """Send FIN, and read what the peer still sends up to its FIN, so that closing the stream sends no RST.

    After a RST the peer's kernel drops what it has received and not read yet: our last frames. The caller
    bounds the wait, and closes the stream afterwards.

    Raises:
        trio.BrokenResourceError: the connection was lost before the peer's FIN came.

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
    """Close a stream at once, and end its connection even if another process holds the socket; see `hang_up`.

    Raises:
        BaseException: what the class of the stream raises, if it is not about the peer.

    Cancellation: the stream is closed all the same.
    """
    socket = _socket_of(stream)
    if socket is not None:
        with contextlib.suppress(OSError):
            socket.shutdown(trio.socket.SHUT_RDWR)
    with trio.CancelScope(shield=True), contextlib.suppress(*BROKEN):
        await trio.aclose_forcefully(stream)


def _socket_of(stream: trio.abc.Stream) -> trio.socket.SocketType | None:
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream.socket if isinstance(stream, trio.SocketStream) else None


def _describe(error: BaseException) -> str:
    inner = error.__cause__ if isinstance(error, trio.BrokenResourceError) and error.__cause__ else error
    return f"the connection was lost: {inner}"
