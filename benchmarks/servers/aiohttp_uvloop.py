"""aiohttp on uvloop."""

import asyncio

import uvloop
from aiohttp import WSMsgType, web

from benchmarks.servers import BACKLOG, KEEPALIVE_SECONDS, MESSAGE_LIMIT, arguments, listen, ready, tls

members: set[web.WebSocketResponse] = set()


def build(mode: str) -> web.Application:
    def response() -> web.WebSocketResponse:
        return web.WebSocketResponse(
            max_msg_size=MESSAGE_LIMIT,
            compress=mode == "deflate",
            heartbeat=KEEPALIVE_SECONDS if mode == "keepalive" else None,
        )

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = response()
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                await ws.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await ws.send_bytes(message.data)
        return ws

    async def fanout(request: web.Request) -> web.WebSocketResponse:
        ws = response()
        await ws.prepare(request)
        members.add(ws)
        try:
            async for message in ws:
                for member in tuple(members):
                    await member.send_str(message.data)
        finally:
            members.discard(ws)
        return ws

    async def add(request: web.Request) -> web.Response:
        numbers = await request.json()
        return web.json_response({"sum": numbers["a"] + numbers["b"]})

    app = web.Application()
    app.router.add_post("/sum", add)
    app.router.add_get("/", fanout if mode == "fanout" else echo)
    return app


async def main(port: int, mode: str) -> None:
    runner = web.AppRunner(build(mode), access_log=None)
    await runner.setup()
    sock = listen(port)
    await web.SockSite(runner, sock, ssl_context=tls(mode), backlog=BACKLOG).start()
    ready(sock.getsockname()[1])
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(*arguments()))
