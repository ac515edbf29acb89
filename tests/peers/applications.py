"""The same application on each server: `python -m tests.peers.applications NAME PORT`."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["SERVERS", "main"]


def text_of(method: str, path: str, size: int) -> str:
    return f"{method} {path} {size}"


def wsframework(port: int) -> None:
    from wsframework import App, Request, Timeouts

    app = App(allowed_hosts=["*"], timeouts=Timeouts(body=30.0))

    @app.http("/{rest:path}", methods=["GET", "POST", "OPTIONS", "BREW"])
    async def every(request: Request, rest: str) -> str:
        return text_of(request.method, request.path, len(await request.body()))

    app.run("127.0.0.1", port)


async def asgi(
    scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["type"] != "http":
        raise RuntimeError("HTTP only")
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    body = text_of(scope["method"], scope["path"], size).encode("latin-1", "replace")
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def uvicorn(port: int) -> None:
    import uvicorn

    uvicorn.run(asgi, port=port, log_level="critical", lifespan="off", http="h11")


def hypercorn(port: int) -> None:
    import trio
    from hypercorn.config import Config
    from hypercorn.trio import serve

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.loglevel = "CRITICAL"
    trio.run(serve, asgi, config)


def aiohttp(port: int) -> None:
    from aiohttp import web

    async def every(request: Any) -> Any:
        return web.Response(text=text_of(request.method, request.path, len(await request.read())))

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", every)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


SERVERS = {"wsframework": wsframework, "uvicorn": uvicorn, "hypercorn": hypercorn, "aiohttp": aiohttp}


def main() -> None:
    SERVERS[sys.argv[1]](int(sys.argv[2]))


if __name__ == "__main__":
    main()
