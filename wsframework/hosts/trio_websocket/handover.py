"""Take a connection away from trio-websocket: its stream, and everything that was read from it."""

from __future__ import annotations

import trio
import trio_websocket
from wsproto.events import Request

from wsframework.hosts.guests import HandedOver
from wsframework.hosts.trio_websocket.internals import (
    dismiss_reader,
    is_answered,
    parser_of,
    request_event_of,
    stream_of,
)
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
    stream = stream_of(proposal)
    socket = socket_of(stream)
    remote, local = address_of(socket.getpeername()), address_of(socket.getsockname())
    if is_answered(proposal):
        raise RuntimeError("give the App the request as it is: this one was accepted or rejected already")
    parser = parser_of(proposal)
    head = _head(request_event_of(proposal), parser.their_http_version or b"1.1")
    early, _ = parser.trailing_data
    late = await dismiss_reader(proposal, socket)
    return HandedOver(stream, head + early + late, remote, local)


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


def _head(event: Request, version: bytes) -> bytes:
    """Write the request's head again; wsproto has taken it apart and keeps three of its fields elsewhere."""
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
