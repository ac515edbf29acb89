"""The server under test: an echo on wsframework's own defaults, but for what the suite needs.

Groups 12 and 13 need compression, group 9 messages of 16 MiB. Prints its port (see run.py for the contract).
"""

from __future__ import annotations

from wsframework import App, Connection, Deflate, Limits

app = App(compression=Deflate(), limits=Limits(message_bytes=64 * 1024 * 1024))


@app.websocket("/")
async def echo(ws: Connection) -> None:
    async for message in ws:
        await ws.send(message)


if __name__ == "__main__":
    app.run(port=0, on_listening=lambda server: print(server.port, flush=True))
