"""The client of chat_server.py: says hello, gives three names, says goodbye.

python examples/chat_client.py [URL]
"""

import sys

import trio
from trio_websocket import open_websocket_url


async def main(url: str) -> None:
    """Play the client's part, and leave after the fourth question."""
    async with open_websocket_url(url, subprotocols=["chat", "superchat"]) as ws:
        log("open()")
        await ws.send_message("Hello!")
        for number in range(1, 5):
            log("Received:", await ws.get_message())
            if number <= 3:
                await trio.sleep(1)
                await ws.send_message(f"Hello, I'm Mr No.{number}!")
        await ws.send_message("Goodbye!")


def log(*words: object) -> None:
    print("[CLIENT]", *words, flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:3000/ws/chat")
