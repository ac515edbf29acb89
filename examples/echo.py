"""The smallest server there is: every message comes back.

python examples/echo.py
"""

from wsframework import App, Connection

app = App()


@app.websocket("/")
async def echo(ws: Connection) -> None:
    """Send back what arrives, text as text and bytes as bytes, until the client leaves."""
    async for message in ws:
        await ws.send(message)


if __name__ == "__main__":
    app.run(port=8000)
