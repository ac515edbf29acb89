"""Plain HTTP on a real port, over each transport, with and without TLS: clients that read answers."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import trio

from tests.server.serving import serving
from wsframework import App, Server

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


class Client:
    """Sends bytes, and reads answers one by one."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.data = b""

    async def send(self, *pieces: bytes) -> None:
        for place, piece in enumerate(pieces):
            if place:
                await trio.sleep(0.005)
            await self.stream.send_all(piece)

    async def _more(self) -> bool:
        try:
            data = bytes(await self.stream.receive_some())
        except trio.BrokenResourceError:
            return False
        self.data += data
        return bool(data)

    async def until(self, end: bytes) -> bytes:
        """Return what comes before these bytes."""
        while end not in self.data:
            assert await self._more(), self.data
        before, _, self.data = self.data.partition(end)
        return before

    async def head(self) -> tuple[int, dict[str, str]]:
        """Return the status and the fields of the next answer."""
        first, *lines = (await self.until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(first.split()[1]), fields

    async def exactly(self, size: int) -> bytes:
        """Return so many bytes."""
        while len(self.data) < size:
            assert await self._more(), self.data
        data, self.data = self.data[:size], self.data[size:]
        return data

    async def chunk(self) -> bytes:
        """Return the next chunk of an answer; empty at its end."""
        piece = await self.exactly(int(await self.until(b"\r\n"), 16))
        assert await self.until(b"\r\n") == b""
        return piece

    async def content(self, fields: dict[str, str]) -> bytes:
        """Return the content behind a head with these fields."""
        if fields.get("transfer-encoding") != "chunked":
            return await self.exactly(int(fields["content-length"]))
        content = b""
        while piece := await self.chunk():
            content += piece
        return content

    async def answer(self, *, head_only: bool = False) -> tuple[int, bytes]:
        """Return the next answer's status and body."""
        status, fields = await self.head()
        bodiless = head_only or status < 200 or status in (204, 304)
        return status, b"" if bodiless else await self.content(fields)

    async def rest(self) -> bytes:
        """Return what comes up to the end."""
        while await self._more():
            pass
        return self.data

    async def at_end(self) -> bool:
        """Whether nothing follows but the end."""
        return not self.data and not await self._more()


class Port:
    def __init__(self, server: Server, tls: ssl.SSLContext | None) -> None:
        self.server = server
        self._tls = tls

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Client]:
        address = self.server.addresses[0]
        assert address.port is not None
        tcp = await trio.open_tcp_stream(address.host, address.port)
        stream: trio.abc.Stream = tcp
        if self._tls is not None:
            stream = trio.SSLStream(tcp, self._tls, server_hostname="localhost", https_compatible=True)
        try:
            yield Client(stream)
        finally:
            await trio.aclose_forcefully(stream)


@asynccontextmanager
async def port(kind: str, contexts: Contexts | None, app: App) -> AsyncIterator[Port]:
    choice: Literal["hub", "stream"] = "hub" if kind.startswith("hub") else "stream"
    secure = kind.endswith("tls")
    server_side, client_side = contexts if secure and contexts is not None else (None, None)
    async with serving(app, transport=choice, ssl=server_side) as server:
        yield Port(server, client_side)


def get(path: str, *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: localhost", *fields, "", ""]).encode()


def post(path: str, body: bytes | str, *fields: str) -> bytes:
    data = body.encode() if isinstance(body, str) else body
    return get(path, f"Content-Length: {len(data)}", *fields, method="POST") + data
