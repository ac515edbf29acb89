"""Open a connection with trio-websocket, and explain in one sentence why it fails.

trio-websocket says little of a failed opening handshake: that an answer is wrong, but not what is wrong with
it, and nothing when the server closes without an answer. Therefore the bytes are recorded up to the answer,
and checked as `wsframework trace` checks them.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

from wsframework.closes import CloseFrame
from wsframework.crashes import unwrap_group
from wsframework.diagnostics.problems import (
    Problem,
    Unreachable,
    bad_tls,
    broken,
    endless,
    judge_opening,
    silent,
    unanswered,
)
from wsframework.diagnostics.reaching import Clock, reach
from wsframework.diagnostics.response import read_body, read_response
from wsframework.diagnostics.target import MAX_MESSAGE_BYTES, Opening
from wsframework.wire import Decoder, Failure, Opcode, close_payload, encode_frame

__all__ = ["Overheard", "connected"]

_OVERHEARD_BYTES = 128 * 1024
"""More than the longest head of an answer."""

_MAX_FRAGMENTS = 16_384
"""Frames of one message, as many as a server takes of a client by default."""

_CLOSE_SECONDS = 1.0
"""How long the end of TCP may take after the closing handshake, or after it was given up."""

_KEY = re.compile(rb"^Sec-WebSocket-Key: *(\S+)", re.IGNORECASE | re.MULTILINE)

_T = TypeVar("_T")


async def connected(opening: Opening, use: Callable[[WebSocketConnection, Overheard], Awaitable[_T]]) -> _T:
    """Connect, call `use` with the connection and its bytes, close it, and return what `use` returned.

    Raises:
        Unreachable: there was no connection, or the server sent more than this command takes; it has the
            reason.

    Cancellation: the socket is closed.
    """
    target, limit = opening.target, opening.timeout_seconds
    socket = await reach(target, limit, Clock(), lambda step: None)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket))
    try:
        overheard = Overheard(stream if opening.tls is None else await _secure(stream, opening, opening.tls))
        opened = False
        try:
            async with trio.open_nursery() as nursery:
                ws = await _open(nursery, overheard, opening)
                opened = True
                overheard.stop_recording()
                result = await use(ws, overheard)
                with trio.move_on_after(_CLOSE_SECONDS):
                    await overheard.aclose()
                nursery.cancel_scope.cancel(reason="the connection is closed")
        except BaseExceptionGroup as group:
            error = unwrap_group(group)
            if isinstance(error, Exception) and not opened and not isinstance(error, Unreachable):
                raise Unreachable(*overheard.explain(opening, error)) from None
            raise error from None
        return result
    finally:
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)


async def _secure(
    stream: trio.SocketStream, opening: Opening, context: ssl.SSLContext
) -> trio.SSLStream[trio.SocketStream]:
    target, limit = opening.target, opening.timeout_seconds
    secured = trio.SSLStream(stream, context, server_hostname=target.host, https_compatible=True)
    with trio.move_on_after(limit):
        try:
            await secured.do_handshake()
        except trio.BrokenResourceError as error:
            cause = error.__cause__
            raise Unreachable(bad_tls(cause if isinstance(cause, Exception) else error, target.url)) from None
        return secured
    raise Unreachable(silent("answer to the TLS handshake", limit))


async def _open(nursery: trio.Nursery, stream: Overheard, opening: Opening) -> WebSocketConnection:
    limit = opening.timeout_seconds
    with trio.move_on_after(limit) as scope:
        # trio-websocket does not notice that the server has left, and would wait for the answer.
        nursery.start_soon(stream.cancel_when_ended, scope)
        return await wrap_client_stream(
            nursery,
            stream,  # type: ignore[arg-type]  # any Trio stream works
            opening.target.host_header,
            opening.target.resource,
            subprotocols=opening.subprotocols,
            extra_headers=[(name.encode(), value.encode("latin-1")) for name, value in opening.headers],
            max_message_size=MAX_MESSAGE_BYTES,
        )
    raise Unreachable(*stream.explain(opening, None))


class Overheard(trio.abc.Stream):
    """A stream that records its bytes until `stop_recording`, and judges the server's frames after that.

    trio-websocket waits for a message of any length that a header announces, keeps empty fragments without
    end, and fails when a ping comes after our Close frame. Therefore the frames are looked at here as well,
    and the Close frame is sent from here.

    Attributes:
        failure: what the server did that ends the connection, or None. The stream has ended then.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._sent = bytearray()
        self._received = bytearray()
        self._reset: bool | None = None  # until TCP has ended
        self._end = trio.Event()
        self._listening = True
        self._decoder = Decoder(
            masked=False, max_message_bytes=MAX_MESSAGE_BYTES, max_fragments=_MAX_FRAGMENTS
        )
        self._sending = trio.Lock()
        self._closed = False
        self.failure: Problem | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, unless our Close frame was sent."""
        if self._listening:
            self._sent += data
        async with self._sending:
            if not self._closed:  # no frame follows our Close frame (RFC 6455 §5.5.1)
                await self._send(data)

    async def close(self, frame: CloseFrame) -> None:
        """Send a Close frame, as the last of our frames.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: the connection is lost.

        Cancellation: a part of it may have been sent; nothing follows.
        """
        payload = close_payload(frame.code, frame.reason)
        async with self._sending:
            self._closed = True
            await self._send(encode_frame(Opcode.CLOSE, payload, rsv1=False, masking_key=os.urandom(4)))

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            self._finish(reset=True)
            raise

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the stream takes bytes."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Return bytes of the server's; none at the end, and after a `failure`."""
        if self.failure is not None:
            return b""
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError:
            self._finish(reset=True)
            raise
        if not data:
            self._finish(reset=False)
        elif self._listening and len(self._received) < _OVERHEARD_BYTES:
            self._received += data
            self._check()
        elif not self._listening:
            self._judge(data)
        return data

    def _judge(self, data: bytes | bytearray) -> None:
        for event in self._decoder.feed(data):
            if isinstance(event, Failure):
                self.failure = broken(event.code, event.reason)

    def _check(self) -> None:
        # trio-websocket would wait for the rest of an answer that is malformed already.
        try:
            read_response(bytes(self._received))
        except Unreachable:
            self._end.set()

    async def aclose(self) -> None:
        """Close the stream."""
        self._end.set()
        await self._stream.aclose()

    def _finish(self, *, reset: bool) -> None:
        if self._reset is None:
            self._reset = reset
        self._end.set()

    async def cancel_when_ended(self, scope: trio.CancelScope) -> None:
        """Cancel `scope` when the stream has ended or the answer is malformed."""
        await self._end.wait()
        scope.cancel(reason="the server has left")

    def stop_recording(self) -> None:
        """Forget the bytes of the opening handshake."""
        self._listening = False
        response = read_response(bytes(self._received))
        self._received.clear()
        if response is not None:
            self._judge(response.rest)

    def explain(self, opening: Opening, error: Exception | None) -> list[Problem]:
        """Return the problems why there is no connection.

        Args:
            opening: the opening handshake that failed.
            error: what trio-websocket raised, or None.
        """
        received = bytes(self._received)
        try:
            response = read_response(received)
        except Unreachable as why:
            return list(why.problems)
        if response is None:
            if error is not None and received:  # a head longer than trio-websocket takes
                return [endless(len(received))]
            if self._reset is None:
                what = "end of its answer's head" if received else "answer to the opening handshake"
                return [silent(what, opening.timeout_seconds)]
            return [unanswered(received, reset=self._reset)]
        key = _KEY.search(bytes(self._sent))
        problems = judge_opening(
            response.status,
            response.headers,
            "" if key is None else key[1].decode(),
            opening.subprotocols,
            body=read_body(response, response.rest)[0],
        )
        if not problems:
            what = f": {error}" if error is not None and str(error) else ""
            problems = [Problem("handshake.wrong", f"The opening handshake failed{what} (RFC 6455 §4.1).")]
        return problems
