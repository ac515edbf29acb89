"""Rooms and members for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

from tests.chat.serving import Peer, connect, serving
from tests.fake_transport import FakeTransport
from tests.fake_transport import connect as fake_connect
from wsframework import (
    App,
    Close,
    Connection,
    History,
    Limits,
    LocalEngine,
    Room,
    RoomMessage,
    Server,
    SlowPolicy,
    Subscriber,
)
from wsframework.timers import Timers


class Stage:
    """A room, the server that has it, and its members in the order in which they came."""

    def __init__(self, server: Server, room: Room) -> None:
        self.server = server
        self.room = room

    async def member(self, path: str = "/") -> Peer:
        before = len(self.room.members)
        peer = await connect(self.server, path)
        await trio.testing.wait_all_tasks_blocked()
        assert len(self.room.members) == before + 1
        return peer

    async def stuck(self) -> Peer:
        """Return a member that does not read, whose outbox is full to the last byte."""
        peer = await self.member()
        ws = self.room.members[-1].ws
        limit = ws.endpoint._limits.outbox_bytes
        await ws.send(b"\0" * (limit - 4))
        await trio.testing.wait_all_tasks_blocked()
        return peer


@asynccontextmanager
async def staged(
    room: Room | None = None, *, limits: Limits | None = None, **slow: Any
) -> AsyncIterator[Stage]:
    room = room or Room("lobby", slow=SlowPolicy(**slow))
    app = App(limits=limits or Limits(outbox_bytes=1000))

    @app.websocket("/")
    async def talk(ws: Connection) -> None:
        async with room.join(ws):
            async for message in ws:
                room.broadcast(message, exclude=ws)

    @app.websocket("/crash")
    async def crash(ws: Connection) -> None:
        async with room.join(ws):
            await ws.receive()
            raise RuntimeError("a handler's mistake")

    @app.websocket("/close")
    async def close(ws: Connection) -> None:
        async with room.join(ws):
            await ws.receive()
            raise Close(4000, "enough")

    async with serving(app) as server:
        yield Stage(server, room)


class Relay(LocalEngine):
    """An engine that carries rooms between two processes: here, two sets of rooms in one."""

    def __init__(self) -> None:
        super().__init__()
        self.peers: list[Relay] = []
        self.calls: list[tuple[str, str]] = []

    def subscribe(self, room: str, subscriber: Subscriber) -> None:
        self.calls.append(("subscribe", room))
        super().subscribe(room, subscriber)

    def unsubscribe(self, room: str) -> None:
        self.calls.append(("unsubscribe", room))
        super().unsubscribe(room)

    def broadcast(
        self, room: str, message: RoomMessage, exclude: Collection[str], history: History | None
    ) -> int:
        for peer in self.peers:
            LocalEngine.broadcast(peer, room, message, exclude, history)
        return super().broadcast(room, message, exclude, history)

    def present(self, room: str) -> dict[str, Any]:
        everywhere = [self, *self.peers]
        return {id_: data for node in everywhere for id_, data in LocalEngine.present(node, room).items()}


def full(limits: Limits | None = None) -> FakeTransport:
    """Return a transport whose outbox has no room for another byte."""
    transport = fake_connect(limits)
    transport.taking = False
    transport.outbox_bytes = transport.connection.endpoint.outbox_limit
    return transport


@asynccontextmanager
async def ticking(*transports: FakeTransport) -> AsyncIterator[None]:
    timers = Timers()
    for transport in transports:
        transport.timers = timers
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        yield
        nursery.cancel_scope.cancel()
