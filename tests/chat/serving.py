"""Serve an App in memory and talk to it, with readers and with peers that do not read.

The server's side is the native server over a pair of memory streams. From the server to the client the pair
is in lockstep: a write ends only when the client has read it, so a client that does not read holds the server
up at once, without a kernel's buffers in between.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from tests.chat.forms import Workers, chosen, workers_of
from wsframework import Address, App, CloseFrame, Limits, Server
from wsframework.chat import Chat, Rate
from wsframework.wire import (
    CloseReceived,
    Decoder,
    Opcode,
    accept_key,
    close_payload,
    encode_frame,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
NO_LIMIT = Rate(per_second=1e9, burst=10**9)
MASK = b"\x01\x02\x03\x04"


class Peer:
    """A WebSocket client that reads only when it is asked to."""

    def __init__(self, stream: trio.abc.Stream, head: bytes, rest: bytes) -> None:
        self.stream = stream
        self.head = head
        self.closed: CloseFrame | None = None
        self.messages: list[str | bytes] = []
        self._decoder = Decoder(max_message_bytes=1 << 30, masked=False)
        self._keep(rest)

    def _keep(self, data: bytes | bytearray) -> None:
        for event in self._decoder.feed(data):
            match event:
                case str() | bytes():
                    self.messages.append(event)
                case CloseReceived(frame):
                    self.closed = frame
                case _:
                    raise AssertionError(f"unexpected {event!r}")

    async def send(self, message: str | bytes) -> None:
        opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
        payload = message.encode() if isinstance(message, str) else message
        await self.stream.send_all(encode_frame(opcode, payload, masking_key=MASK))

    async def receive(self) -> str | bytes:
        """Return the next message; fails when there will be none."""
        while not self.messages:
            assert self.closed is None, f"the connection ended: {self.closed}"
            assert await self._read(), "the connection ended"
        return self.messages.pop(0)

    async def read_to_end(self) -> list[str | bytes]:
        """Read until the server's Close frame or FIN; return the messages before it."""
        while self.closed is None and await self._read():
            pass
        taken, self.messages = self.messages, []
        return taken

    async def _read(self) -> bool:
        data = await self.stream.receive_some(65536)
        self._keep(data)
        return bool(data)

    async def close(self, code: int = 1000) -> None:
        """Say goodbye, or answer the server's Close."""
        await self.stream.send_all(encode_frame(Opcode.CLOSE, close_payload(code), masking_key=MASK))

    async def vanish(self) -> None:
        await self.stream.aclose()


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[Server]:
    """Serve an App with its lifespans; clients come through `join`."""
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(app.serve, "127.0.0.1", 0)
        try:
            yield server
        finally:
            # Twice, because nobody is there any more to answer Close frames.
            server.stop()
            server.stop()


async def connect(server: Server | Workers, path: str, *, subprotocol: str | None = None) -> Peer:
    """Open a connection to a server of this process, in memory."""
    up_send, up_receive = trio.testing.memory_stream_one_way_pair()
    down_send, down_receive = trio.testing.lockstep_stream_one_way_pair()
    server.serve_soon(
        trio.StapledStream(down_send, up_receive), Address("192.0.2.1", 1234), Address("192.0.2.2", 80)
    )
    return await shake_hands(trio.StapledStream(up_send, down_receive), path, subprotocol=subprotocol)


async def shake_hands(
    stream: trio.abc.Stream, path: str, *, host: str = "chat.example", subprotocol: str | None = None
) -> Peer:
    """Open a WebSocket over a stream."""
    offer = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    await stream.send_all(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{offer}\r\n".encode()
    )
    answer = bytearray()
    while b"\r\n\r\n" not in answer:
        data = await stream.receive_some(65536)
        assert data, f"no answer: {bytes(answer)!r}"
        answer += data
    head, _, rest = bytes(answer).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head.decode()
    assert accept_key(KEY).encode() in head
    return Peer(stream, head, rest)


@asynccontextmanager
async def chatting(*, limits: Limits | None = None, **options: Any) -> AsyncIterator[tuple[Workers, Chat]]:
    """Serve a chat in the chosen form; the `Chat` is the first worker's."""
    async with workers_of(chosen(), limits, {"rate": NO_LIMIT, **options}) as (servers, chats):
        with trio.fail_after(30):
            yield Workers(servers), chats[0]
