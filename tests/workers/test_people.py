"""People in several workers: a worker that is replaced or killed is no news, and a disconnect reaches all."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, HandshakeError

from tests.engines.redis.conftest import redis as redis  # the fixture
from tests.engines.redis.redis_server import RedisServer
from tests.waiting import until
from tests.workers.processes import Crew, code_of, connected, crew, needs_proc
from wsframework import PresenceChange, Rooms
from wsframework.engines.redis import RedisEngine

pytestmark = [needs_proc, pytest.mark.slow]

APP = """\
import os
from wsframework import App, Rooms, Timeouts
from wsframework.engines.redis import RedisEngine

app = App(timeouts=Timeouts(drain=2, lifespan=2))
engine = RedisEngine(os.environ["REDIS"], prefix=os.environ["PREFIX"], lease=1.0)
app.install(engine)
rooms = Rooms(engine=engine)


@app.websocket("/{user}")
async def talk(ws, user):
    async with rooms.user(user).join(ws), rooms["online"].join(ws, key=user):
        await ws.send(str(os.getpid()))
        async for message in ws:
            pass
"""

USERS = [f"user {number}" for number in range(6)]


class Client:
    """A client of one user, which comes back unless it was disconnected for good."""

    def __init__(self, url: str, user: str) -> None:
        self.pids: list[int] = []
        self.codes: list[int] = []
        self._url = url
        self._path = "/" + user.replace(" ", "%20")

    async def run(self) -> None:
        while 4403 not in self.codes:
            try:
                async with connected(self._url, self._path) as ws:
                    while True:
                        self.pids.append(int(await ws.get_message()))
            except* ConnectionClosed as closed:
                self.codes += [code_of(error) for error in closed.exceptions]
            except* (HandshakeError, OSError):
                await trio.sleep(0.02)


@asynccontextmanager
async def people(
    found: Crew, redis: RedisServer, linger: float
) -> AsyncIterator[tuple[list[Client], Rooms, list[PresenceChange]]]:
    """Give two clients of each user, and another process's rooms and view of who is online."""
    changes: list[PresenceChange] = []
    engine = RedisEngine(redis.url, prefix=os.environ["PREFIX"])
    rooms = Rooms(engine=engine)

    async def watch() -> None:
        async for change in rooms["online"].watch(linger=linger):
            changes.append(change)

    clients = [Client(found.url, user) for user in USERS for _ in range(2)]
    async with engine.run(), trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        for client in clients:
            nursery.start_soon(client.run)
        await until(lambda: len(rooms["online"].present()) == len(clients))
        await until(lambda: {key for change in changes for key in change.entered} == set(USERS))
        yield clients, rooms, changes
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def _program(
    request: pytest.FixtureRequest, redis: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REDIS", redis.url)
    monkeypatch.setenv("PREFIX", f"people {request.node.name}")
    (tmp_path / "people.py").write_text(APP)


@pytest.mark.parametrize("fault", ["roll", "kill"])
def test_who_comes_back_to_another_worker_was_never_away(
    tmp_path: Path, redis: RedisServer, fault: str
) -> None:
    async def watch(found: Crew, hurt: Callable[[], Any], over: str) -> None:
        async with people(found, redis, linger=20) as (clients, rooms, changes):
            before = len(changes)
            hurt()
            await until(lambda: found.logged(over))
            await until(lambda: victim not in {client.pids[-1] for client in clients})
            await until(lambda: len(rooms["online"].present()) == len(clients))
            await trio.sleep(0.2)
            assert changes[before:] == []

    with crew(tmp_path, 2, target="people:app") as found:
        victim = found.pids()[0]
        if fault == "roll":
            trio.run(watch, found, lambda: found.signal(signal.SIGHUP), "roll.finished")
        else:
            trio.run(watch, found, lambda: os.kill(victim, signal.SIGKILL), "redis.node_gone")


def test_a_user_is_disconnected_in_all_workers(tmp_path: Path, redis: RedisServer) -> None:
    async def disconnect(found: Crew) -> None:
        async with people(found, redis, linger=0.1) as (clients, rooms, changes):
            ours, others = clients[:2], clients[2:]
            await rooms.disconnect(USERS[0], 4403, "you are banned")
            await until(lambda: all(client.codes == [4403] for client in ours))
            await until(lambda: [list(change.left) for change in changes if change.left] == [[USERS[0]]])
            assert all(client.codes == [] for client in others)

    with crew(tmp_path, 2, target="people:app") as found:
        trio.run(disconnect, found)
