"""Take a connection away from trio-websocket: its stream, and everything that was read from it.

trio-websocket's reader task is then waiting for the client's next bytes, and a stream has one reader at a
time. So the reader has to leave first. It is woken as if the socket were being closed, which it takes for the
end of its connection; the socket stays open and loses nothing.
"""

from __future__ import annotations

import trio
import trio_websocket
from wsproto.connection import ConnectionState

from wsframework.hosts.guests import HandedOver
from wsframework.server.listeners import address_of

__all__ = ["socket_of", "take_over"]


async def take_over(proposal: trio_websocket.WebSocketRequest) -> HandedOver:
    """Take the connection of a request that was neither accepted nor rejected.

    Raises:
        TypeError: the stream is not made of a socket.
        RuntimeError: the request was answered already.
        OSError: the client has left.

    Cancellation: cannot be cancelled; it waits for one task to run, and for nothing else.
    """
    connection = proposal._connection
    stream = connection._stream
    socket = socket_of(stream)
    remote, local = address_of(socket.getpeername()), address_of(socket.getsockname())
    if connection._wsproto.state is not ConnectionState.CONNECTING:
        raise RuntimeError("give the App the request as it is: this one was accepted or rejected already")
    parser = connection._wsproto.handshake._h11_connection
    head = _head(proposal, parser.their_http_version or b"1.1")
    early, _ = parser.trailing_data
    keeper = _Keeper()
    connection._wsproto = keeper  # type: ignore[assignment]
    connection._reader_running = False
    # It takes note of a closed socket, or had bytes in its hands and leaves at the end of its loop, or is
    # being cancelled. In each case it closes this channel last of all.
    while connection._send_channel.statistics().open_send_channels:
        trio.lowlevel.notify_closing(socket)
        await trio.lowlevel.cancel_shielded_checkpoint()
    return HandedOver(stream, head + early + keeper.received, remote, local)


def socket_of(stream: object) -> trio.socket.SocketType:
    """Return the socket under a stream.

    Raises:
        TypeError: there is none.
    """
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if isinstance(stream, trio.SocketStream):
        return stream.socket
    raise TypeError(f"an App serves sockets of a trio-websocket server, not a {type(stream).__name__}")


class _Keeper:
    """What trio-websocket's reader takes for the protocol on its way out: keeps bytes, has no events."""

    client = False
    state = ConnectionState.CONNECTING

    def __init__(self) -> None:
        self.received = b""

    def receive_data(self, data: bytes | None) -> None:
        self.received += data or b""

    def events(self) -> tuple[()]:
        return ()


def _head(proposal: trio_websocket.WebSocketRequest, version: bytes) -> bytes:
    """Write the request's head again; wsproto has taken it apart and keeps three of its fields elsewhere."""
    event = proposal._event
    fields = [(b"host", _encode_host(event.host)), *event.extra_headers]
    for name, elements in (
        (b"sec-websocket-protocol", event.subprotocols),
        (b"sec-websocket-extensions", event.extensions),
    ):
        if elements:
            fields.append((name, ", ".join(map(str, elements)).encode("ascii")))
    lines = [b"GET %s HTTP/%s" % (event.target.encode("ascii"), version)]
    lines += [b"%s: %s" % (bytes(name), bytes(value)) for name, value in fields]
    return b"\r\n".join([*lines, b"", b""])


def _encode_host(host: str) -> bytes:
    # wsproto decodes it as a name in punycode (RFC 3492), and lets names through that cannot be encoded
    # again. Those are written in a form that is not a host name.
    try:
        return host.encode("ascii" if host.isascii() else "idna")
    except UnicodeError:
        return host.encode("utf-8")
