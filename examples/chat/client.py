"""A client that speaks superchat: it says one line in the lobby and prints what it hears.

wsframework chat --no-history
python examples/chat/client.py "Hello!"
"""

import json
import sys
from typing import Any

import trio
from trio_websocket import WebSocketConnection, open_websocket_url


async def ask(ws: WebSocketConnection, id: int, **request: Any) -> dict[str, Any]:
    """Send a request and return its answer, which says what it is the answer to; print what comes before."""
    await ws.send_message(json.dumps({"id": id, **request}))
    while True:
        value: dict[str, Any] = json.loads(await ws.get_message())
        if value.get("re") == id:
            if value["type"] == "error":
                raise SystemExit(f"{value['code']}: {value['message']}")
            return value
        for message in value.get("messages", []):
            print(f"{message['name']}: {message['text']}")


async def main(url: str, text: str) -> None:
    async with open_websocket_url(url, subprotocols=["superchat"]) as ws:
        await ask(ws, 1, type="hello", version=1, name="Example")
        joined = await ask(ws, 2, type="join", room="lobby")
        people, cursor = joined["people"], joined["people_cursor"]
        while cursor is not None:  # long answers come in pages
            page = await ask(ws, 3, type="people", room="lobby", cursor=cursor)
            people, cursor = [*people, *page["people"]], page["cursor"]
        print("In the lobby:", ", ".join(people))
        await ask(ws, 4, type="say", room="lobby", text=text)


if __name__ == "__main__":
    trio.run(main, "ws://127.0.0.1:3000/ws/chat", " ".join(sys.argv[1:]) or "Hello!")
