"""Rooms over Redis: `stored` awaits each publish, `queued` broadcasts, `stamped` adds positions."""

import os
import sys

from wsframework import App, Connection, Position, Rooms
from wsframework.engines.redis import RedisEngine

from benchmarks.servers import ready


def build(mode: str) -> App:
    app = App()
    engine = RedisEngine(os.environ["BENCH_REDIS"], prefix=os.environ["BENCH_PREFIX"])
    app.install(engine)
    rooms = Rooms(engine=engine, stamp=stamp) if mode == "stamped" else Rooms(engine=engine)

    @app.websocket("/member/{name}")
    async def member(ws: Connection, name: str) -> None:
        async with rooms[name].join(ws, after=ws.request.query.get("after")):
            await ws.send("joined")
            async for _ in ws:
                pass

    @app.websocket("/publisher")
    async def publisher(ws: Connection) -> None:
        async for message in ws:
            name, _, text = str(message).partition(" ")
            if mode == "queued":
                rooms[name].broadcast(text)
            else:
                await rooms[name].publish(text)

    return app


def stamp(message: str | bytes, position: Position) -> str:
    return f"{position} {message!s}"


if __name__ == "__main__":
    build(sys.argv[2]).run("127.0.0.1", int(sys.argv[1]), on_listening=lambda server: ready(server.port))
