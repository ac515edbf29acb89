"""Push while receiving: what runs in `ws.nursery` ends the moment the connection does.

python examples/push.py
"""

import trio

from wsframework import App, Connection

app = App()


@app.websocket("/ticks")
async def ticks(ws: Connection) -> None:
    """Count for the client; what it sends sets the pace, in ticks a second."""
    pace = 1.0

    async def count() -> None:
        number = 0
        while True:
            number += 1
            await ws.send(f"tick {number}")
            await trio.sleep(1 / pace)

    ws.nursery.start_soon(count)
    async for message in ws:
        pace = min(100.0, max(0.1, float(message)))


if __name__ == "__main__":
    app.run(port=8000)
