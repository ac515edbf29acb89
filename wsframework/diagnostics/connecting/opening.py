"""Open a connection with trio-websocket, and explain in one sentence why it fails.

trio-websocket says little of a failed opening handshake: that an answer is wrong, but not what is wrong with
it, and nothing when the server closes without an answer. Therefore the bytes are recorded up to the answer,
and checked as `wsframework trace` checks them.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

from wsframework.crashes import unwrap_group
from wsframework.diagnostics.problems import (
    Problem,
    Unreachable,
    bad_tls,
    judge_opening,
    silent,
    unanswered,
)
from wsframework.diagnostics.reaching import Clock, reach
from wsframework.diagnostics.response import read_body, read_response
from wsframework.diagnostics.target import MAX_MESSAGE_BYTES, Opening

__all__ = ["connected"]

_OVERHEARD_BYTES = 128 * 1024
"""More than the longest head of an answer."""

_CLOSE_SECONDS = 1.0
"""How long the end of TCP may take after the closing handshake, or after it was given up."""

_KEY = re.compile(rb"^Sec-WebSocket-Key: *(\S+)", re.IGNORECASE | re.MULTILINE)

_T = TypeVar("_T")


async def connected(opening: Opening, use: Callable[[WebSocketConnection], Awaitable[_T]]) -> _T:
    """Connect, call `use` with the connection, close the connection, and return what `use` returned.

    Raises:
        Unreachable: there was no connection; it has the reason.

    Cancellation: the socket is closed.
    """
    target, limit = opening.target, opening.timeout_seconds
    socket = await reach(target, limit, Clock(), lambda step: None)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket))
    try:
        overheard = _Overheard(stream if opening.tls is None else await _secure(stream, opening, opening.tls))
        opened = False
        try:
            async with trio.open_nursery() as nursery:
                ws = await _open(nursery, overheard, opening)
                opened = True
                overheard.stop()
                result = await use(ws)
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


async def _open(nursery: trio.Nursery, stream: _Overheard, opening: Opening) -> WebSocketConnection:
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


class _Overheard(trio.abc.Stream):
    """A stream that records its bytes, until `stop`."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._sent = bytearray()
        self._received = bytearray()
        self._reset: bool | None = None  # until TCP has ended
        self._end = trio.Event()
        self._listening = True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._listening:
            self._sent += data
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
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
        return data

    def _check(self) -> None:
        # trio-websocket would wait for the rest of an answer that is malformed already.
        try:
            read_response(bytes(self._received))
        except Unreachable:
            self._end.set()

    async def aclose(self) -> None:
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

    def stop(self) -> None:
        """Stop recording."""
        self._listening = False
        self._received.clear()

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
            if self._reset is None:
                return [silent("answer to the opening handshake", opening.timeout_seconds)]
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
