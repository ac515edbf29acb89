"""What lives as long as the server: made before the first connection, unmade after the last.

python examples/lifespan.py
"""

from collections.abc import AsyncIterator

import trio

from wsframework import App, Connection

app = App()
state = {"seconds": 0}


@app.lifespan
async def keep_time() -> AsyncIterator[None]:
    """Run a clock beside the server; a database pool would be opened and closed here too."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_seconds)
        yield
        nursery.cancel_scope.cancel(reason="the server has stopped")


async def count_seconds() -> None:
    while True:
        await trio.sleep(1)
        state["seconds"] += 1


@app.websocket("/uptime")
async def uptime(ws: Connection) -> None:
    async for _ in ws:
        await ws.send(f"up for {state['seconds']} s")


if __name__ == "__main__":
    app.run(port=8000)
