"""websockets (asyncio) on uvloop."""

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from benchmarks.servers import BACKLOG, MESSAGE_LIMIT, arguments, listen, ready, tls

members: set[ServerConnection] = set()


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


async def fanout(ws: ServerConnection) -> None:
    members.add(ws)
    try:
        async for message in ws:
            broadcast(members, message)
    finally:
        members.discard(ws)


async def main(port: int, mode: str) -> None:
    sock = listen(port)
    server = await serve(
        fanout if mode == "fanout" else echo,
        sock=sock,
        backlog=BACKLOG,
        ssl=tls(mode),
        max_size=MESSAGE_LIMIT,
        compression="deflate" if mode == "deflate" else None,
    )
    ready(sock.getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(*arguments()))
