"""A request whose body and answer are streamed, over the transport of its connection.

Theory of operation
-------------------
    bytes in   -> transport -> `deliver` -> kept, at most one read beyond a limit -> `receive` -> the body
    bytes out  -> `start`, `write`, `complete` -> the transport's outbox -> `has_room` waits for it

The transport carries bytes, no frames. It reads only what is asked for: the body piece by piece, and after it
so much that the end of the client is noticed. Chunks of the body are taken apart by who asks for it, in small
steps, because many tiny ones take milliseconds. When the answer is complete, the transport hands the
connection back for the next request, or ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import trio
from trio.lowlevel import ParkingLot, checkpoint_if_cancelled

from wsframework.request import Response
from wsframework.server.bodies import BODY_READ_BYTES, CONTINUE
from wsframework.server.core import Core
from wsframework.server.ending import NoReceiver
from wsframework.server.framing import FrameTransport
from wsframework.server.http import Head, encode_head, encode_response
from wsframework.server.incoming import Incoming
from wsframework.server.patience import Patience
from wsframework.server.streams import StreamIncoming

__all__ = ["Streaming"]

_AHEAD_BYTES = 64 * 1024
"""So much of a body is read before it is asked for."""

_PIECES = 32
"""After how many pieces of an answer other tasks run, even if there is room."""


class Streaming(NoReceiver):
    """The body and the answer of one request; see `wsframework.streamed.Exchanged`.

    Args:
        incoming: the connection.
        head: of the request.
        core: the server's.
        body_bytes: the largest body, or None.
        persist: whether the connection may go on after the answer.
        on_left: called once when the client has left, or is given up.
        on_over: called once when the answer is over, with its status, or None if none was begun.

    Attributes:
        http_version, left, lost, begun, over: as `Exchanged` has them.
        content_bytes: how much content was written.
    """

    takes_bytes = True

    def __init__(
        self,
        incoming: Incoming | StreamIncoming,
        head: Head,
        core: Core,
        *,
        body_bytes: int | None,
        persist: bool,
        on_left: Callable[[], None],
        on_over: Callable[[int | None], None],
    ) -> None:
        super().__init__()
        self.http_version = head.http_version
        self.left = self.lost = self.begun = self.over = False
        self.content_bytes = 0
        self._pieces = 0
        self._incoming = incoming
        self._body = incoming.body
        self._body_bytes = body_bytes
        self._head_only = head.method == "HEAD"
        self._persist = persist
        self._core = core
        self._on_left: Callable[[], None] | None = on_left
        self._on_over: Callable[[int | None], None] | None = on_over
        self._status: int | None = None
        self._bodiless = False
        self._chunked = False
        self._raw = bytearray()  # of the body, as it came
        self._in_chunks = head.body_bytes is None
        # Chunks may be tiny, and take long.
        self._step = BODY_READ_BYTES if head.body_bytes is None else 2 * _AHEAD_BYTES
        self._asked = False  # whether the application wants the body
        self._given = False  # whether it has all of it
        self._committed = 0
        self._reading = False
        self._changed = ParkingLot()
        self._client: Patience | None = None  # with what the client sends
        self._reader: Patience | None = None  # and with what it takes
        self._transport: FrameTransport | None = incoming.stream(self)
        self._transport.pause_reading()
        self._read_or_pause()

    # From the transport

    def deliver(self, *came: object) -> None:
        """Keep what has come."""
        (data,) = came
        assert isinstance(data, bytes)
        if self.over and self.then is None:
            return
        if self._body is None:
            self._incoming.keep(data)
        elif self._body.complete:
            self._body.feed(data)
        else:
            self._raw += data
        self._read_or_pause()
        self._changed.unpark_all()

    def input_ended(self, *_: object) -> None:
        """Take note that nothing more comes; the client may still read its answer."""
        self._leave()

    def end(self, *_: object) -> None:
        """Take note that the connection is lost."""
        self.lost = True
        self._leave()
        self._end()

    def finish(self, *_: object) -> None:
        """Take note that the socket is closed."""
        self.end()
        self._transport = None  # this breaks the reference cycle

    def _hand_back(self, go_on: Callable[[], None]) -> None:
        """Let the connection go on without this request."""
        self._transport = self.then = None
        go_on()

    def made_room(self, *_: object) -> None:
        """Wake who waits for room."""
        self._changed.unpark_all()

    def _leave(self) -> None:
        self.left = True
        self._changed.unpark_all()
        on_left, self._on_left = self._on_left, None
        if on_left is not None and not self.over:
            on_left()

    def _read_or_pause(self) -> None:
        body = self._body
        if self.over or self.left:
            wanted = False
        elif body is None:
            wanted = not self._incoming.kept
        elif body.complete:
            wanted = not body.trailing
        else:
            wanted = self._asked and body.error is None and len(self._raw) < _AHEAD_BYTES
        if wanted is not self._reading and self._transport is not None:
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # The body

    async def receive(self) -> tuple[bytes, bool] | None:
        """Return the next piece of the body, and whether more follow; None if there will be none."""
        if self._in_chunks and self._raw:
            await trio.lowlevel.checkpoint()  # between tiny chunks others have their turn
        else:
            await checkpoint_if_cancelled()
        self._ask()
        while not (self.over or self.lost):
            piece = self._next_piece()
            if piece is not None:
                return piece
            if self.left:
                break
            if self._raw:  # the heads of chunks, and nothing in them
                await trio.lowlevel.checkpoint()
            elif self._given:
                await self._changed.park()
            else:
                if self._client is None:
                    core = self._core
                    self._client = Patience(
                        core.timeouts.body, core.timers, self._bytes_received, self._body_late
                    )
                with self._client.waiting():
                    await self._changed.park()
        return None

    @trio.lowlevel.enable_ki_protection
    def _ask(self) -> None:
        if self._asked:
            return
        self._asked = True
        body = self._body
        if body is None:
            return
        body.hand_out(self._body_bytes)
        if body.awaits_continue and not self.begun and body.error is None:
            body.awaits_continue = False
            self._commit(CONTINUE)
        self._read_or_pause()

    @trio.lowlevel.enable_ki_protection
    def _next_piece(self) -> tuple[bytes, bool] | None:
        body = self._body
        if self._given:
            return None
        if body is None:
            self._given = True
            return b"", False
        self._feed(body.step if self._in_chunks else self._step)
        data = body.take()
        if self.left and not data and not self._raw:
            body.fail(400, "the connection ended before the body was complete")
        if body.error is not None:
            self._refuse_body()
            return None
        self._read_or_pause()
        if body.complete:
            self._given = True
        return (data, not body.complete) if data or body.complete else None

    def _feed(self, most: int) -> None:
        """Take a part of what has come apart."""
        body, raw = self._body, self._raw
        if body is None or not raw:
            return
        step = bytes(raw[:most])
        del raw[:most]
        body.feed(step)
        if body.complete and raw:
            body.feed(bytes(raw))
            raw.clear()

    def _body_late(self) -> None:
        assert self._body is not None
        self._body.fail(408, f"the body did not go on within {self._core.timeouts.body:g} s")
        self._refuse_body()

    def _refuse_body(self) -> None:
        """Answer for the application that the body is not what it should be."""
        assert self._body is not None
        assert self._body.error is not None
        status, why = self._body.error
        self._leave()
        self.fail(Response.error(status, why))
        self.lost = True

    def _bytes_received(self) -> int:
        return len(self._raw) + (0 if self._body is None else self._body.received)

    # The answer

    def start(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], size: int | None, *, persist: bool
    ) -> None:
        """Write the answer's head."""
        self.begun, self._status = True, status
        self._bodiless = self._head_only or status in (204, 304)
        if status == 204:
            size = None
        if size is None and not self._bodiless:
            self._chunked = self.http_version == "1.1"
            persist = persist and self._chunked  # else the end of the connection is the end of the content
        if not persist or not self._can_go_on():
            self._persist = False
        self._commit(encode_head(status, fields, size, chunked=self._chunked, persist=self._persist))

    def write(self, data: bytes) -> None:
        """Write a piece of the content."""
        if self._bodiless or not data:
            return
        self.content_bytes += len(data)
        if self._chunked:
            self._commit(b"%x\r\n" % len(data))
        self._commit(data)
        if self._chunked:
            self._commit(b"\r\n")

    def complete(self) -> None:
        """Take note that the answer is complete."""
        if self._chunked:
            self._commit(b"0\r\n\r\n")
        self._finish()

    def fail(self, response: Response) -> None:
        """Answer in place of the application, or end the connection if it has begun to answer."""
        if self.over:
            return
        if self.begun:
            self.cut()
            return
        self.begun, self._status, self.content_bytes = True, response.status, len(response.body)
        self._feed(self._step)
        if not self._can_go_on() or (self._body is not None and not self._body.drop_rest()):
            self._persist = False
        self._commit(encode_response(response, head_only=self._head_only, persist=self._persist))
        self._finish()

    def _can_go_on(self) -> bool:
        """Whether there may be a next request, as far as is known before the end of the answer."""
        body = self._body
        if self._core.lifetime.stopping.is_set() or self.left:
            return False
        return body is None or not (body.awaits_continue or body.error is not None)

    def _commit(self, data: bytes) -> None:
        if not self.lost and self._transport is not None:
            self._committed += len(data)
            self._transport.write_raw(data)

    @trio.lowlevel.enable_ki_protection
    def _finish(self) -> None:
        if self.over:
            return
        self._feed(self._step)
        self.over = True
        self._read_or_pause()
        self._client = self._reader = self._on_left = None
        if not self.lost and self._transport is not None:
            self._incoming.end_stream(self, persist=self._persist and not self._raw)
            if self.then is not None:
                self.then = partial(self._hand_back, self.then)
            self._transport.end_carrying()
        self._end()

    def cut(self) -> None:
        """End the connection, because the answer cannot be completed."""
        self._persist = False
        self._finish()

    def abort(self, cause: str) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort(cause)

    def _end(self) -> None:
        on_over, self._on_over = self._on_over, None
        self._changed.unpark_all()
        if on_over is not None:
            on_over(self._status)

    async def has_room(self) -> None:
        """Wait until the client has taken nearly all that was written, or is lost."""
        self._pieces += 1
        if self._pieces % _PIECES:
            await checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()  # an outbox holds thousands of tiny pieces
        core = self._core
        while self._untaken() > core.limits.outbox_bytes:
            assert self._transport is not None
            self._transport.room_wanted = True
            if self._reader is None:
                self._reader = Patience(core.timeouts.http, core.timers, self._bytes_taken, self._reader_late)
            with self._reader.waiting():
                await self._changed.park()
        if self.over:
            self._reader = None

    def _untaken(self) -> int:
        return 0 if self._transport is None or self.lost else self._transport.outbox_bytes

    def _bytes_taken(self) -> int:
        return self._committed - self._untaken()

    def _reader_late(self) -> None:
        self.abort(f"the client has taken too little of its answer for {self._core.timeouts.http:g} s")
