"""People who speak superchat, for tests: each request gets its answer, whatever events come in between."""

from __future__ import annotations

import itertools
import json
from typing import Any, Self

from tests.chat.forms import Workers
from tests.chat.serving import Peer, connect
from wsframework import Server

Answer = dict[str, Any]


class Person:
    """A client of the chat; reads when it waits for something."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.events: list[Answer] = []
        self.token = ""
        self._ids = itertools.count(1)

    @classmethod
    async def come(cls, server: Server | Workers, name: str, *rooms: str, **hello: Any) -> Self:
        """Connect, say hello and join rooms."""
        person = cls(await connect(server, "/ws/chat", subprotocol="superchat"))
        welcome = await person.ask("hello", version=1, name=name, **hello)
        assert welcome["type"] == "welcome", welcome
        person.token = welcome["token"]
        for room in rooms:
            joined = await person.ask("join", room=room)
            assert joined["type"] == "joined", joined
        return person

    async def send(self, message: Any) -> None:
        """Send something that need not be a request."""
        await self.peer.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def ask(self, type: str, **members: Any) -> Answer:
        """Send a request and return its answer."""
        id = next(self._ids)
        await self.send({"type": type, "id": id, **members})
        answer = await self.answer()
        assert answer["re"] == id, answer
        return answer

    async def answer(self) -> Answer:
        """Return the next answer; events before it are kept."""
        while True:
            value = await self._receive()
            if "re" in value:
                return value
            self.events.append(value)

    async def event(self, type: str | None = None) -> Answer:
        """Return the next event (of that type), in the order in which they came."""
        while True:
            for index, event in enumerate(self.events):
                if type is None or event["type"] == type:
                    return self.events.pop(index)
            value = await self._receive()
            assert "re" not in value, f"an answer where an event was expected: {value}"
            self.events.append(value)

    async def hear(self, count: int) -> list[tuple[str, str]]:
        """Return the next messages as (name, text)."""
        heard: list[tuple[str, str]] = []
        while len(heard) < count:
            event = await self.event("messages")
            heard += [(message["name"], message["text"]) for message in event["messages"]]
        assert len(heard) == count, heard
        return heard

    async def _receive(self) -> Answer:
        text = await self.peer.receive()
        assert isinstance(text, str)
        value = json.loads(text)
        assert isinstance(value, dict)
        return value

    async def leave(self) -> None:
        """Close the connection and wait for the server's Close."""
        await self.peer.close()
        await self.peer.read_to_end()


def texts(answer: Answer) -> list[str]:
    """Return the texts of an answer's messages."""
    return [message["text"] for message in answer["messages"]]
