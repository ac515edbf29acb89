"""quart-trio on hypercorn."""

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import websocket
from quart_trio import QuartTrio

from benchmarks.servers import (
    BACKLOG,
    KEEPALIVE_SECONDS,
    MESSAGE_LIMIT,
    arguments,
    certificate,
    free_port,
    ready,
)

queues: set[trio.MemorySendChannel] = set()


async def echo() -> None:
    while True:
        await websocket.send(await websocket.receive())


async def fanout() -> None:
    # `websocket` is a context-local proxy, so each member sends for itself from a queue (Quart's own idiom).
    send_channel, receive_channel = trio.open_memory_channel(1024)

    async def forward() -> None:
        async for message in receive_channel:
            await websocket.send(message)

    queues.add(send_channel)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forward)
            while True:
                message = await websocket.receive()
                for queue in tuple(queues):
                    await queue.send(message)
    finally:
        queues.discard(send_channel)


async def main(port: int, mode: str) -> None:
    app = QuartTrio(__name__)
    app.add_websocket("/", view_func=fanout if mode == "fanout" else echo)
    config = Config()
    config.bind = [f"127.0.0.1:{free_port(port)}"]
    config.backlog = BACKLOG
    config.accesslog = None
    config.errorlog = None
    config.websocket_max_message_size = MESSAGE_LIMIT
    config.websocket_ping_interval = KEEPALIVE_SECONDS if mode == "keepalive" else None
    if mode == "tls":
        config.certfile = config.keyfile = certificate()
    async with trio.open_nursery() as nursery:
        (bind,) = await nursery.start(serve, app, config)
        ready(int(bind.rpartition(":")[2]))


if __name__ == "__main__":
    trio.run(main, *arguments())
