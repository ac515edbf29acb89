"""Starlette on uvicorn with uvloop."""

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from benchmarks.servers import BACKLOG, MESSAGE_LIMIT, arguments, certificate, listen, ready

members: set[WebSocket] = set()


async def echo(ws: WebSocket) -> None:
    await ws.accept()
    while (event := await ws.receive())["type"] == "websocket.receive":
        if (text := event.get("text")) is not None:
            await ws.send_text(text)
        else:
            await ws.send_bytes(event["bytes"])


async def fanout(ws: WebSocket) -> None:
    await ws.accept()
    members.add(ws)
    try:
        while True:
            text = await ws.receive_text()
            for member in tuple(members):
                await member.send_text(text)
    except WebSocketDisconnect:
        pass
    finally:
        members.discard(ws)


async def add(request: Request) -> JSONResponse:
    numbers = await request.json()
    return JSONResponse({"sum": numbers["a"] + numbers["b"]})


def main(port: int, mode: str) -> None:
    sockets = WebSocketRoute("/", fanout if mode == "fanout" else echo)
    app = Starlette(routes=[sockets, Route("/sum", add, methods=["POST"])])
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="h11" if mode == "post" else "auto",
        backlog=BACKLOG,
        log_level="warning",
        access_log=False,
        ws_max_size=MESSAGE_LIMIT,
        ws_per_message_deflate=mode == "deflate",
        ssl_certfile=certificate() if mode == "tls" else None,
        ssl_keyfile=certificate() if mode == "tls" else None,
    )
    sock = listen(port)
    ready(sock.getsockname()[1])
    uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    main(*arguments())
