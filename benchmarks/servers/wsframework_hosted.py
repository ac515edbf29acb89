"""wsframework as the handler of a trio-websocket server."""

import functools

import trio
import trio_websocket

from benchmarks.servers import MESSAGE_LIMIT, arguments, ready, tls
from benchmarks.servers.wsframework_native import build


async def main(port: int, mode: str) -> None:
    async with trio.open_nursery() as nursery:
        serve = functools.partial(trio_websocket.serve_websocket, max_message_size=MESSAGE_LIMIT)
        server = await nursery.start(serve, build(mode), "127.0.0.1", port, tls(mode))
        ready(server.port)


if __name__ == "__main__":
    trio.run(main, *arguments())
