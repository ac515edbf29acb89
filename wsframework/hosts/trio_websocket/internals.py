"""The private names of trio-websocket and wsproto that this host uses: all of them are in this module.

trio-websocket has no public way to take over a connection together with the bytes that were read from it, or
to listen for another server. Each function says what it needs and which public name is missing. Written for
trio-websocket 0.12.2 and wsproto 1.3; `tests/hosts/trio_websocket/test_internals.py` names what another
version lacks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import h11
import trio
import trio_websocket
from wsproto.connection import ConnectionState
from wsproto.events import Request

__all__ = [
    "AcceptingServer",
    "Listener",
    "dismiss_reader",
    "is_answered",
    "parser_of",
    "request_event_of",
    "stream_of",
]

Listener = trio.SocketListener | trio.SSLListener[trio.SocketStream]
"""What trio-websocket accepts from."""


def stream_of(proposal: trio_websocket.WebSocketRequest) -> trio.abc.Stream:
    """Return the stream of a request's connection; the public names give the addresses only."""
    return proposal._connection._stream


def is_answered(proposal: trio_websocket.WebSocketRequest) -> bool:
    """Whether a request was accepted or rejected; a `WebSocketRequest` does not tell."""
    return proposal._connection._wsproto.state is not ConnectionState.CONNECTING


def request_event_of(proposal: trio_websocket.WebSocketRequest) -> Request:
    """Return wsproto's event of a request; a `WebSocketRequest` gives neither its Host nor its extensions."""
    return proposal._event


def parser_of(proposal: trio_websocket.WebSocketRequest) -> h11.Connection:
    """Return the parser of a request's head; wsproto keeps the HTTP version and the bytes behind the head."""
    return proposal._connection._wsproto.handshake._h11_connection


async def dismiss_reader(proposal: trio_websocket.WebSocketRequest, socket: trio.socket.SocketType) -> bytes:
    """End the task that reads a request's connection, without closing the socket.

    The reader waits for the client's next bytes, and a stream has one reader at a time; trio-websocket ends
    its reader only with the connection. It is woken as if the socket were being closed, which it takes for
    the end of its connection; the socket stays open and loses nothing.

    Returns:
        What the reader received on its way out.

    Cancellation: cannot be cancelled; it waits for one task to run, and for nothing else.
    """
    connection = proposal._connection
    keeper = _Keeper()
    connection._wsproto = keeper  # type: ignore[assignment]
    connection._reader_running = False
    # The reader sees a closed socket, or had bytes in its hands and leaves at the end of its loop, or is
    # being cancelled. In each case it closes this channel last of all.
    while connection._send_channel.statistics().open_send_channels:
        trio.lowlevel.notify_closing(socket)
        await trio.lowlevel.cancel_shielded_checkpoint()
    return keeper.received


class _Keeper:
    """What the reader takes for wsproto on its way out: it keeps bytes and has no events."""

    client = False
    state = ConnectionState.CONNECTING

    def __init__(self) -> None:
        self.received = b""

    def receive_data(self, data: bytes | None) -> None:
        self.received += data or b""

    def events(self) -> tuple[()]:
        return ()


class AcceptingServer(trio_websocket.WebSocketServer):
    """trio-websocket's server as far as accepting.

    What is overridden is private, because a `WebSocketServer` parses the head of each connection before it
    calls its handler.

    Args:
        serve: serves one connection, from its first byte on.
        handler: the handler that the server reports; it is not called.
        listeners: what to accept from.
    """

    def __init__(
        self,
        serve: Callable[[trio.abc.Stream], Awaitable[None]],
        handler: Callable[[trio_websocket.WebSocketRequest], Awaitable[None]],
        listeners: Sequence[Listener],
    ) -> None:
        super().__init__(handler, listeners)
        self._serve = serve

    async def _handle_connection(self, stream: trio.abc.Stream) -> None:
        await self._serve(stream)
