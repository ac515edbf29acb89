"""wsframework on its own server."""

from wsframework import App, Connection, Deflate, Limits, Request, Response, Room

from benchmarks.servers import MESSAGE_LIMIT, arguments, ready, tls


def build(mode: str) -> App:
    app = App(
        limits=Limits(message_bytes=MESSAGE_LIMIT),
        compression=Deflate() if mode == "deflate" else None,
    )
    if mode == "fanout":
        room = Room("room")

        @app.websocket("/")
        async def fanout(ws: Connection) -> None:
            async with room.join(ws):
                async for message in ws:
                    room.broadcast(message)

    else:

        @app.websocket("/")
        async def echo(ws: Connection) -> None:
            async for message in ws:
                await ws.send(message)

    @app.http("/sum", methods=["POST"])
    async def add(request: Request) -> Response:
        numbers = await request.json()
        return Response.json({"sum": numbers["a"] + numbers["b"]})

    return app


def main(port: int, mode: str) -> None:
    build(mode).run("127.0.0.1", port, ssl=tls(mode), on_listening=lambda server: ready(server.port))


if __name__ == "__main__":
    main(*arguments())
