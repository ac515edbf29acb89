"""A chat that asks for names; the questions overlap with receiving. See chat_client.py.

python examples/chat_server.py
"""

import trio

from wsframework import App, Connection, ConnectionClosed

app = App()


@app.websocket("/ws/chat", subprotocols=["chat"])
@app.websocket("/ws/chat")
async def chat(ws: Connection) -> None:
    """Answer every message with a question, a second later."""
    log("connection()")
    # A nursery of the handler's own: the tasks in ws.nursery would end at once with the connection, these
    # have the handler's grace (`Timeouts.disconnect_grace`) to find out for themselves.
    async with trio.open_nursery() as nursery:
        async for message in ws:
            log("Received:", message)
            nursery.start_soon(ask, ws)


async def ask(ws: Connection) -> None:
    """Ask for a name after a second of thought."""
    await trio.sleep(1)
    try:
        await ws.send("What's your name?")
    except ConnectionClosed as error:
        log("error:", error)


def log(*words: object) -> None:
    print("[SERVER]", *words, flush=True)


if __name__ == "__main__":
    app.run(port=3000)
