"""Both ends of one connection in the hands of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

from tests.contract.hosts import Host, Served, new_app
from wsframework import App, Connection
from wsframework.testing import Client

__all__ = ["lend", "lending", "setting"]


@asynccontextmanager
async def lend(host: Host, app: App | None = None) -> AsyncIterator[tuple[Connection, Client]]:
    """Serve an App with one connection, whose handler hands over what it holds and sleeps."""
    async with lending(host, app) as lender, lender.connect() as pair:
        yield pair


class Lender:
    """Makes connections and hands over both ends of each."""

    def __init__(self, served: Served, opened: trio.MemoryReceiveChannel[Connection]) -> None:
        self.served = served
        self._opened = opened

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[tuple[Connection, Client]]:
        async with self.served.connect("/") as client:
            with trio.fail_after(30):
                ws = await self._opened.receive()
            yield ws, client


@asynccontextmanager
async def lending(host: Host, app: App | None = None) -> AsyncIterator[Lender]:
    app = app or new_app()
    give, take = trio.open_memory_channel[Connection](0)

    @app.websocket("/")
    async def hand_over(ws: Connection) -> None:
        await give.send(ws)
        await ws.wait_closed()

    async with host.serve(app) as served:
        yield Lender(served, take)


@contextmanager
def setting(ended: trio.Event) -> Iterator[None]:
    """Set an event when the block ends, however it does."""
    try:
        yield
    finally:
        ended.set()
