"""Apps and raw clients for the trio-websocket host."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
import trio_websocket

from wsframework import App, Connection, Timeouts
from wsframework.wire import Opcode, build_request, encode_frame

__all__ = ["KEY", "ask", "echo_app", "frame", "opened", "plainly", "reset", "told"]

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
TIMEOUTS = Timeouts(handshake=0.5, close=0.5, disconnect_grace=0.2, drain=0.5)


def echo_app() -> App:
    app = App(timeouts=TIMEOUTS)

    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    return app


def frame(text: str) -> bytes:
    return encode_frame(Opcode.TEXT, text.encode(), masking_key=bytes(4))


def told(text: str) -> bytes:
    """Return the server's frame."""
    return encode_frame(Opcode.TEXT, text.encode())


@asynccontextmanager
async def plainly(
    handler: Callable[[trio_websocket.WebSocketRequest], Awaitable[None]],
) -> AsyncIterator[tuple[int, trio.CancelScope]]:
    """Run a server of trio-websocket's own; its port, and what cancels it."""
    scope = trio.CancelScope()

    async def serve(*, task_status: trio.TaskStatus[trio_websocket.WebSocketServer]) -> None:
        with scope:
            await trio_websocket.serve_websocket(handler, "127.0.0.1", 0, None, task_status=task_status)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve)
        yield server.port, scope
        scope.cancel()


async def ask(port: int, *behind: bytes, path: str = "/") -> trio.SocketStream:
    """Connect and send an opening handshake, and bytes right behind it."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(build_request("localhost", path, KEY) + b"".join(behind))
    return stream


@asynccontextmanager
async def opened(port: int, path: str = "/") -> AsyncIterator[trio.SocketStream]:
    """Open a connection; its stream stands behind the 101."""
    async with await ask(port, path=path) as stream:
        answer = b""
        with trio.fail_after(30):
            while not answer.endswith(b"\r\n\r\n"):
                data = await stream.receive_some(1)
                assert data, answer
                answer += data
        assert answer.startswith(b"HTTP/1.1 101")
        yield stream


def reset(stream: trio.SocketStream) -> None:
    """End TCP with RST, now."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()
