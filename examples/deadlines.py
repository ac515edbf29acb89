"""Give up on a message, not on the client: a send that was cancelled has sent nothing.

python examples/deadlines.py
"""

import itertools

import trio

from wsframework import App, Connection

app = App()
PICTURE = bytes(512 * 1024)


@app.websocket("/camera")
async def camera(ws: Connection) -> None:
    """Send a picture every 50 ms, numbered, and skip those that a slow client has no room for.

    Where a library's `send` writes to the socket itself, the picture after such a cancellation lands in the
    middle of the one before, and the client gets rubbish.
    """
    for number in itertools.count():
        with trio.move_on_after(0.05) as patience:
            await ws.send(number.to_bytes(4) + PICTURE)
        if not patience.cancelled_caught:
            await trio.sleep(0.05)


if __name__ == "__main__":
    app.run(port=8000)
