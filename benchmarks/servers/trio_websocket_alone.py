"""trio-websocket."""

import functools

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from benchmarks.servers import MESSAGE_LIMIT, arguments, ready, tls

members: set[WebSocketConnection] = set()


async def echo(request: WebSocketRequest) -> None:
    ws = await request.accept()
    try:
        while True:
            await ws.send_message(await ws.get_message())
    except ConnectionClosed:
        pass


async def fanout(request: WebSocketRequest) -> None:
    ws = await request.accept()
    members.add(ws)
    try:
        while True:
            message = await ws.get_message()
            for member in tuple(members):
                await member.send_message(message)
    except ConnectionClosed:
        pass
    finally:
        members.discard(ws)


async def main(port: int, mode: str) -> None:
    handler = fanout if mode == "fanout" else echo
    async with trio.open_nursery() as nursery:
        serve = functools.partial(serve_websocket, max_message_size=MESSAGE_LIMIT)
        server = await nursery.start(serve, handler, "127.0.0.1", port, tls(mode))
        ready(server.port)


if __name__ == "__main__":
    trio.run(main, *arguments())
