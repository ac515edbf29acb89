"""Sockets that were accepted and are no connections yet."""

from __future__ import annotations

import socket as stdlib_socket
import ssl
from typing import Any

import trio
import trio.testing

from wsframework.server.accepting import HubListener
from wsframework.server.core import Core
from wsframework.server.http import Head
from wsframework.server.hub import Hub
from wsframework.server.incoming import Incoming

REQUEST = b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n"


class Desk:
    """A listener in a hub, clients for it, and a server that decides nothing by itself."""

    def __init__(self, core: Core, hub: Hub, tls: ssl.SSLContext | None = None) -> None:
        self.core = core
        self.heads: list[tuple[Incoming, Head]] = []
        self.listener = stdlib_socket.create_server(("127.0.0.1", 0))
        self.pollee = HubListener(self.listener, hub, core, self.take, tls, shared=False)
        self.address = self.listener.getsockname()

    @property
    def waiting(self) -> set[Incoming]:
        return {incoming for incoming in self.core.waiting if isinstance(incoming, Incoming)}

    def take(self, incoming: Incoming, head: Head) -> None:
        self.heads.append((incoming, head))

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(*self.address[:2])


async def receive_all(stream: trio.SocketStream) -> bytes:
    data = bytearray()
    try:
        while piece := await stream.receive_some():
            data += piece
    except trio.BrokenResourceError:
        data += b"<reset>"
    return bytes(data)


class Poor:
    """A listener whose `accept` fails as the test says, then works."""

    def __init__(self, listener: stdlib_socket.socket, *errors: int) -> None:
        self._listener = listener
        self._errors = list(errors)
        self.calls = 0

    def accept(self) -> Any:
        self.calls += 1
        if self._errors:
            number = self._errors.pop(0)
            raise OSError(number, "as the system says") if number else MemoryError
        return self._listener.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)
