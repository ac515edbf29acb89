"""Two handlers on one path: the subprotocol that the client prefers chooses between them.

python examples/subprotocols.py
"""

import json

from wsframework import App, Connection

app = App()


@app.websocket("/add", subprotocols=["json.add"])
async def add_json(ws: Connection) -> None:
    """Add lists of numbers: `[1, 2]` gives `{"sum": 3}`."""
    async for message in ws:
        await ws.send(json.dumps({"sum": sum(json.loads(message))}))


@app.websocket("/add", subprotocols=["text.add", "text"])
async def add_text(ws: Connection) -> None:
    """Add numbers with blanks between them: `1 2` gives `3`. It goes by two names."""
    async for message in ws:
        await ws.send(f"{sum(map(float, message.split())):g} in {ws.subprotocol}")


# A client that offers neither gets an HTTP 400 that names all three. A third handler, without
# `subprotocols`, would be asked instead.

if __name__ == "__main__":
    app.run(port=8000)
