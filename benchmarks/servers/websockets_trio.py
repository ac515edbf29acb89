"""websockets on Trio."""

import trio
from websockets.trio.server import ServerConnection, broadcast, serve

from benchmarks.servers import BACKLOG, MESSAGE_LIMIT, arguments, ready, tls

members: set[ServerConnection] = set()


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def fanout(ws: ServerConnection) -> None:
    members.add(ws)
    try:
        async for message in ws:
            await broadcast(members, message)
    finally:
        members.discard(ws)


async def main(port: int, mode: str) -> None:
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1", backlog=BACKLOG)
    ready(listeners[0].socket.getsockname()[1])
    await serve(
        fanout if mode == "fanout" else echo,
        listeners=listeners,
        ssl=tls(mode),
        max_size=MESSAGE_LIMIT,
        compression="deflate" if mode == "deflate" else None,
    )


if __name__ == "__main__":
    trio.run(main, *arguments())
