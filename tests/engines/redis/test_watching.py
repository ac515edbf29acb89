"""Who is present, watched over three nodes: nodes that die, that are replaced, and a Redis that is away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.engines.redis.redis_server import Proxy, RedisServer
from tests.fake_transport import connect as fake_connect
from tests.waiting import until
from wsframework import Member, PresenceChange, Room, Rooms
from wsframework.engines.redis import RedisEngine
from wsframework.testing import cancel_everywhere

LINGER = 3.0
"""Longer than a lease here, so what happens within a lease is no news."""


class Node:
    """One process, as far as Redis can tell."""

    def __init__(self, engine: RedisEngine) -> None:
        # After the loss of all data, people would be closed and have to come back.
        self.room: Room = Rooms(engine=engine, gap="ignore")["watched"]
        self._engine = engine
        self._ending = trio.Event()
        self._ended = trio.Event()

    async def run(self, task_status: trio.TaskStatus[Node]) -> None:
        async with self._engine.run():
            task_status.started(self)
            try:
                await self._ending.wait()
            finally:
                for member in self.room.members:
                    member.leave()
        self._ended.set()

    async def enter(self, data: Any, key: str) -> Member:
        return await self.room.enter(fake_connect().connection, data, key=key)

    async def stop(self) -> None:
        """End as a process does that is replaced: its members leave first."""
        self._ending.set()
        await self._ended.wait()


class Seen:
    """What a watcher is told."""

    def __init__(self) -> None:
        self.first: PresenceChange | None = None
        self.changes: list[PresenceChange] = []

    async def watch(self, changes: AsyncIterator[PresenceChange]) -> None:
        async for change in changes:
            if self.first is None:
                self.first = change
            else:
                self.changes.append(change)

    @property
    def entered(self) -> dict[str, Any]:
        return {key: data for change in self.changes for key, data in change.entered.items()}

    @property
    def left(self) -> list[str]:
        return [key for change in self.changes for key in change.left]

    @property
    def stale(self) -> list[bool]:
        return [change.stale for change in self.changes]


class Nodes:
    """Starts nodes, and watches at them."""

    def __init__(self, nursery: trio.Nursery, prefix: str) -> None:
        self._nursery = nursery
        self._prefix = prefix

    async def start(self, url: str, lease: float = 1.0) -> Node:
        node = Node(RedisEngine(url, lease=lease, timeout=0.5, prefix=self._prefix))
        started: Node = await self._nursery.start(node.run)
        return started

    async def watch(self, node: Node, linger: float) -> Seen:
        seen = Seen()
        self._nursery.start_soon(seen.watch, node.room.watch(linger=linger))
        await until(lambda: seen.first is not None)
        return seen


@asynccontextmanager
async def nodes(prefix: str) -> AsyncIterator[Nodes]:
    async with trio.open_nursery() as nursery:
        try:
            yield Nodes(nursery, prefix)
        finally:
            nursery.cancel_scope.cancel()


async def test_people_of_three_nodes_are_watched_at_each(redis: RedisServer) -> None:
    async with nodes("three") as start:
        one, two, three = [await start.start(redis.url) for _ in range(3)]
        seen = [await start.watch(node, 0.1) for node in (one, two)]
        ada = await one.enter("Ada", "ada")
        tab = await three.enter("Ada's second tab", "ada")
        await three.enter("Bob", "ü /\n:0")
        await until(lambda: all(each.entered == {"ada": "Ada", "ü /\n:0": "Bob"} for each in seen))
        ada.leave()
        tab.data = "Ada, alone"
        await until(lambda: all(each.changes[-1].updated == {"ada": "Ada, alone"} for each in seen))
        tab.leave()
        await until(lambda: all(each.left == ["ada"] for each in seen))
        # A node without members sees everybody too.
        late = await start.watch(two, 0.1)
        assert late.first is not None
        assert late.first.entered == {"ü /\n:0": "Bob"}
        assert not two.room.presence_stale


async def test_the_people_of_a_dead_node_leave_after_its_lease_except_who_is_elsewhere_by_then(
    redis: RedisServer,
) -> None:
    proxy = Proxy(redis.port)
    async with proxy.running(), nodes("dead") as start:
        watching, other, dying = (
            await start.start(redis.url),
            await start.start(redis.url),
            await start.start(proxy.url),
        )
        seen = await start.watch(watching, 0.1)
        for key in ("gone", "moves"):
            await dying.enter(key, key)
        await until(lambda: len(seen.entered) == 2)
        proxy.swallow = True
        proxy.cut()
        await other.enter("elsewhere", "moves")
        await until(lambda: seen.left == ["gone"])
        await until(lambda: watching.room.present() == ["elsewhere"])
        assert [change.updated for change in seen.changes if change.updated] == [{"moves": "elsewhere"}]
        # It was only cut off.
        proxy.swallow = False
        await until(lambda: sorted(watching.room.present()) == ["elsewhere", "gone", "moves"])
        assert seen.left == ["gone"]


async def test_a_rolling_restart_is_no_news(redis: RedisServer) -> None:
    people = [f"person {number}" for number in range(20)]
    async with nodes("rolling") as start:
        watching = await start.start(redis.url)
        old = [await start.start(redis.url) for _ in range(2)]
        seen = await start.watch(watching, LINGER)
        for number, key in enumerate(people):
            await old[number % 2].enter(key, key)
        await until(lambda: len(seen.entered) == len(people))
        before = len(seen.changes)
        for number, node in enumerate(old):
            new = await start.start(redis.url)
            await node.stop()
            for key in people[number::2]:
                await new.enter(key, key)
        await until(lambda: sorted(watching.room.present()) == sorted(people))
        await trio.sleep(LINGER + 0.2)
        assert seen.changes[before:] == []


async def test_a_redis_that_is_away_is_told_and_one_that_lost_everything_is_no_news(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    async with server.running(), nodes("away") as start:
        one, two = await start.start(server.url), await start.start(server.url)
        seen = await start.watch(one, LINGER)
        await one.enter("Ada", "ada")
        await two.enter("Bob", "bob")
        await until(lambda: len(seen.entered) == 2)
        before = len(seen.changes)
        server.kill()
        await until(lambda: seen.stale[before:] == [True])
        assert one.room.presence_stale
        assert one.room.present() == ["Ada", "Bob"]
        await server.start()
        await until(lambda: seen.stale[before:] == [True, False])
        await until(lambda: sorted(one.room.present()) == ["Ada", "Bob"])
        await server.command("FLUSHALL")
        await two.enter("Kim", "kim")
        await until(lambda: "kim" in seen.entered)
        await trio.sleep(LINGER + 0.2)
        assert seen.left == []


async def test_a_watcher_on_redis_that_is_cancelled_anywhere_misses_nothing(redis: RedisServer) -> None:
    async with nodes("cancelled") as start:
        one, two = await start.start(redis.url), await start.start(redis.url)
        changes = one.room.watch()
        known: set[str] = set()

        async def watch() -> None:
            known.update((await anext(changes)).entered)

        async def check() -> None:
            while not {member.id.split("/")[2] for member in two.room.members} <= known:
                await watch()
            await two.enter(None, f"{len(known)}")

        await watch()
        await check()
        assert (await cancel_everywhere(watch, check)).cancelled >= 2
