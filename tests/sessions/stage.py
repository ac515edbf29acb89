"""A program with sessions, and clients that resume them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from wsframework import (
    App,
    Connection,
    History,
    LocalEngine,
    LocalSessionStore,
    Reject,
    Request,
    Rooms,
    Sessions,
)
from wsframework.testing import Client, MemoryServer, cancel_everywhere, serve


class Stage:
    """The program: it does what its clients ask for, and remembers the sessions."""

    def __init__(self, sessions: Sessions | None = None, rooms: Rooms | None = None) -> None:
        self.store = LocalSessionStore()
        self.sessions = sessions or Sessions(store=self.store)
        stamp = lambda message, position: json.dumps([message, position])  # noqa: E731
        self.rooms = rooms or Rooms(engine=LocalEngine(), history=History(messages=5), stamp=stamp)
        self.banned: set[str] = set()
        self.app = App()
        self.app.install(self.sessions)
        self.app.websocket("/", given={"user": self._user})(self._handle)

    async def _user(self, request: Request) -> str:
        user = request.query.get("user", "Ada")
        if user in self.banned:
            raise Reject(403)
        return user

    async def _handle(self, ws: Connection, user: str) -> None:
        hello = json.loads(await ws.receive())
        async with (
            self.sessions.open(ws, hello.get("token"), user=user, data={"n": 0}) as session,
            AsyncExitStack() as stack,
        ):
            for room, after in hello.get("rooms", {}).items():
                await stack.enter_async_context(session.join(self.rooms[room], after=after))
            welcome = {
                "token": session.token,
                "id": session.id,
                "resumed": session.resumed,
                "recovered": session.recovered,
                "data": session.data,
                "rooms": list(session.rooms),
            }
            await ws.send(json.dumps(welcome))
            async for text in ws:
                match json.loads(text):
                    case {"save": data}:
                        await session.save(data)
                    case {"confirm": _}:
                        await session.confirm()
                    case {"end": _}:
                        await session.end()
                    case {"visit": room}:
                        async with session.join(self.rooms[room]):
                            await ws.send(json.dumps(list(session.rooms)))
                    case {"say": [room, message]}:
                        await self.rooms[room].publish(message)
                await ws.send("done")

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[MemoryServer]:
        async with serve(self.app) as server:
            yield server


class Guest:
    """A client."""

    def __init__(self, client: Client, welcome: dict[str, Any], messages: list[Any]) -> None:
        self.client = client
        self.welcome = welcome
        self.messages = messages
        self.token: str = welcome["token"]

    async def ask(self, **what: Any) -> Any:
        """Send a request; return what came before its end."""
        await self.client.send(json.dumps(what))
        came = []
        while (message := await self.client.receive()) != "done":
            came.append(json.loads(message))
        return came


@asynccontextmanager
async def guest(
    server: MemoryServer, token: Any = None, user: str = "Ada", /, **rooms: str | None
) -> AsyncIterator[Guest]:
    """Connect, and say hello."""
    async with server.connect(f"/?user={user}") as client:
        yield await hello(client, token, **rooms)


async def hello(client: Client, token: Any = None, /, **rooms: str | None) -> Guest:
    await client.send(json.dumps({"token": token, "rooms": rooms}))
    messages = []
    while not isinstance(found := json.loads(await client.receive()), dict):
        messages.append(found)
    return Guest(client, found, messages)


def seen(found: Guest) -> tuple[bool, bool, object, list[str]]:
    """Return what the session was when it was opened: resumed, recovered, data, rooms."""
    welcome = found.welcome
    return welcome["resumed"], welcome["recovered"], welcome["data"], welcome["rooms"]


async def cancel_resuming_everywhere(sessions: Sessions, rooms: Rooms, ws: Connection) -> None:
    """Cancel at each checkpoint what a connection does with a session, and see that it can be resumed."""
    tokens: list[str] = []
    async with sessions.open(ws, None, user=1, data=0) as session:
        tokens.append(session.token)

    async def use() -> None:
        async with sessions.open(ws, tokens[-1], user=1) as session:
            assert session.resumed
            # As a client would: it may have got the token.
            tokens.append(session.token)
            await session.save(session.data + 1)
            async with session.join(rooms["tea"]) as member:
                assert member.room is rooms["tea"]
                await session.confirm()

    def check() -> None:
        assert not rooms["tea"].has_members

    report = await cancel_everywhere(use, check)
    assert report.points
    async with sessions.open(ws, tokens[-1], user=1) as session:
        assert session.resumed
        assert 1 <= session.data <= len(report.points) + 1
