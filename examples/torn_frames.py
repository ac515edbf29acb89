"""What a cancelled send leaves on the wire: one handler on three libraries, and one strict client.

python examples/torn_frames.py

The handler gives each of two large pictures 0.3 s and then sends a short text. The client is slow: it reads
nothing until the handler is done. Then it reads everything there is, and takes it apart as RFC 6455 says.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import trio
import trio_websocket

from wsframework import App, Connection

PICTURE_BYTES = 8_000_000
PATIENCE_SECONDS = 0.3
QUIET_SECONDS = 0.5
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
Send = Callable[[str], Awaitable[None]]


async def handle(send: Send, done: trio.Event) -> None:
    """Do what every handler below does: give up on two messages, not on the client."""
    for number in (1, 2):
        with trio.move_on_after(PATIENCE_SECONDS) as patience:
            await send(f"<picture {number}>".ljust(PICTURE_BYTES, "."))
        print(f"  server: picture {number} was {'cancelled' if patience.cancelled_caught else 'sent'}")
    done.set()
    await send("<hello>")
    print("  server: <hello> was sent, without an error")


@asynccontextmanager
async def on_trio_websocket(done: trio.Event) -> AsyncIterator[int]:
    """Serve with trio-websocket."""

    async def handler(request: trio_websocket.WebSocketRequest) -> None:
        ws = await request.accept()
        await handle(ws.send_message, done)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, handler, "127.0.0.1", 0, None)
        yield server.port
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def on_websockets(done: trio.Event) -> AsyncIterator[int]:
    """Serve with the Trio side of websockets, where that is installed."""
    from websockets.trio.server import ServerConnection, serve

    async def handler(ws: ServerConnection) -> None:
        await handle(ws.send, done)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda task_status: serve(handler, 0, host="127.0.0.1", task_status=task_status)
        )
        yield server.listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def on_wsframework(done: trio.Event) -> AsyncIterator[int]:
    """Serve with wsframework."""
    app = App()

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await handle(ws.send, done)
        await ws.wait_closed()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(app.serve, "127.0.0.1", 0)
        yield server.port
        nursery.cancel_scope.cancel()


async def read_late(port: int, done: trio.Event) -> bytes:
    """Return what the client finds after the 101, when it reads only once the handler is done."""
    data = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(REQUEST)
        await done.wait()
        while True:
            with trio.move_on_after(QUIET_SECONDS) as quiet:
                data += await stream.receive_some(1_000_000)
            if quiet.cancelled_caught:
                return data.partition(b"\r\n\r\n")[2]


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Take bytes apart into announced lengths and payloads; only the last payload may be shorter."""
    while data:
        assert data[0] == 0x81, f"a whole Text frame begins with 81, not {data[0]:02x}"
        short = data[1]
        size, start = (short, 2) if short < 126 else (int.from_bytes(data[2:4]), 4)
        if short == 127:
            size, start = int.from_bytes(data[2:10]), 10
        yield size, data[start : start + size]
        data = data[start + size :]


def tell(data: bytes) -> None:
    """Say in plain words what the client has got."""
    for number, (size, payload) in enumerate(frames(data), 1):
        print(f"  client: frame {number} announces {size:,} bytes, {payload[:11]!r}")
        inside = payload.find(b"<hello>", 1)
        if inside > 0:
            print(f"          TORN: <hello> came as bytes {inside:,} to {inside + 7:,} of it")
        if len(payload) < size:
            print(f"          {size - len(payload):,} bytes are missing; the client waits for them for ever")
        elif inside < 0:
            print("          whole")


async def main() -> None:
    """Run the experiment with each library that is installed."""
    for name, serve in {
        "trio-websocket": on_trio_websocket,
        "websockets": on_websockets,
        "wsframework": on_wsframework,
    }.items():
        done = trio.Event()
        try:
            async with serve(done) as port:
                print(name, version(name))
                tell(await read_late(port, done))
        except* ImportError:
            print(name, "is not installed")


if __name__ == "__main__":
    trio.run(main)
