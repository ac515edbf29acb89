"""Sessions in several workers: every client comes back with its data and every message, whatever happens."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection

from tests.engines.redis.conftest import redis as redis  # the fixture
from tests.engines.redis.redis_server import RedisServer
from tests.waiting import until
from tests.workers.processes import Crew, code_of, connected, crew, needs_proc
from wsframework.engines.redis import Publisher

pytestmark = [needs_proc, pytest.mark.slow]

APP = """\
import json, logging, os, trio
from wsframework import App, Rooms, Sessions, Timeouts
from wsframework.engines.redis import RedisEngine, RedisSessionStore

app = App(timeouts=Timeouts(drain=2, lifespan=2))
engine = RedisEngine(os.environ["REDIS"], prefix=os.environ["PREFIX"], lease=1.0)
app.install(engine)
sessions = Sessions(store=RedisSessionStore(engine))
app.install(sessions)
rooms = Rooms(engine=engine, stamp=lambda message, position: json.dumps([message, position]))
logging.getLogger("wsframework").setLevel(logging.WARNING)


@app.websocket("/")
async def desk(ws):
    hello = json.loads(await ws.receive())
    async with (
        sessions.open(ws, hello["token"], user="Ada", data=0) as session,
        session.join(rooms["tea"], after=hello["after"]),
    ):
        welcome = {"token": session.token, "recovered": session.recovered}
        await ws.send(json.dumps({**welcome, "data": session.data, "pid": os.getpid()}))
        async for text in ws:
            await session.confirm()
            await session.save(int(text))
            await ws.send(json.dumps({"saved": int(text)}))
            await trio.sleep(0.02)
"""


class Customer:
    """A client that comes back with its token and its last position, and saves a number again and again.

    Attributes:
        heard: the messages of the room.
        recovered: of each connection, whether it has lost nothing.
        codes: of the connections that were closed.
        pid: the process of the newest connection.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.heard: list[str] = []
        self.recovered: list[bool] = []
        self.codes: list[int] = []
        self.pid = 0
        self.token: str | None = None
        self.position: str | None = None
        self._saved = 0

    async def run(self) -> None:
        while True:
            try:
                async with connected(self.url, "/") as ws:
                    await ws.send_message(json.dumps({"token": self.token, "after": self.position}))
                    while True:
                        await self._take(ws, json.loads(await ws.get_message()))
            except* ConnectionClosed as closed:
                self.codes += [code_of(error) for error in closed.exceptions]
            except* (HandshakeError, OSError):
                await trio.sleep(0.02)

    async def _take(self, ws: WebSocketConnection, message: object) -> None:
        match message:
            case [str(text), str(position)]:
                self.heard.append(text)
                self.position = position
                return
            case {"saved": int(number)}:
                self._saved = number
            case {"token": str(token), "recovered": bool(recovered), "data": int(data), "pid": int(pid)}:
                self.token, self.pid = token, pid
                # Perhaps one more, whose answer was lost.
                assert data in (self._saved, self._saved + 1)
                self._saved = data
                self.recovered.append(recovered)
        await ws.send_message(f"{self._saved + 1}")

    @property
    def saved(self) -> int:
        """The newest number that was acknowledged."""
        return self._saved


@pytest.fixture
def prefix(request: pytest.FixtureRequest, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("REDIS", redis.url)
    monkeypatch.setenv("PREFIX", request.node.name)
    return str(request.node.name)


@asynccontextmanager
async def customers(found: Crew, publisher: Publisher, count: int) -> AsyncIterator[list[Customer]]:
    """Give clients that are connected while messages are published; all have heard all of them afterwards."""
    clients = [Customer(found.url) for _ in range(count)]
    said: list[str] = []

    async def say() -> None:
        while True:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(publisher.publish, "tea", f"{len(said)}")
                said.append(f"{len(said)}")
            await trio.sleep(0.05)

    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(client.run)
        await until(lambda: all(client.recovered for client in clients))
        async with trio.open_nursery() as publishing:
            publishing.start_soon(say)
            await until(lambda: all(client.heard for client in clients))
            yield clients
            publishing.cancel_scope.cancel()
        await until(lambda: all(client.heard[-1:] == said[-1:] for client in clients))
        before = [client.saved for client in clients]
        await until(lambda: all(client.saved > then for client, then in zip(clients, before, strict=True)))
        nursery.cancel_scope.cancel()
    for client in clients:
        assert client.heard == said
        assert client.recovered == [False] + [True] * (len(client.recovered) - 1)
        # One that was closed before its welcome is among the codes only.
        assert len(client.recovered) <= len(client.codes) + 1


async def wait_for(found: Crew, event: str, count: int = 1) -> None:
    await until(lambda: len(found.logged(event)) >= count)


def run(
    folder: Path, server: RedisServer, prefix: str, use: Callable[[Crew, Publisher], Awaitable[None]]
) -> None:
    """Run a program with two workers, and what is to happen to them."""
    (folder / "desk.py").write_text(APP)
    with crew(folder, 2, target="desk:app") as found, Publisher(server.url, prefix=prefix) as publisher:
        trio.run(use, found, publisher)
        assert not found.logged("handler.crashed")


def test_a_rolling_restart_loses_no_session(tmp_path: Path, redis: RedisServer, prefix: str) -> None:
    async def roll(found: Crew, publisher: Publisher) -> None:
        async with customers(found, publisher, 8) as clients:
            found.signal(signal.SIGHUP)
            await wait_for(found, "roll.finished")
            await until(lambda: all(client.codes for client in clients))
        assert {code for client in clients for code in client.codes} == {1012}

    run(tmp_path, redis, prefix, roll)


def test_a_killed_worker_loses_no_session(tmp_path: Path, redis: RedisServer, prefix: str) -> None:
    async def kill(found: Crew, publisher: Publisher) -> None:
        async with customers(found, publisher, 8) as clients:
            victim = clients[0].pid
            its = [client for client in clients if client.pid == victim]
            os.kill(victim, signal.SIGKILL)
            await until(lambda: all(client.codes for client in its))
            await wait_for(found, "worker.died")
        assert {code for client in clients for code in client.codes} == {1006}

    run(tmp_path, redis, prefix, kill)


def test_a_worker_that_hangs_gives_its_sessions_away_and_writes_no_more(
    tmp_path: Path, redis: RedisServer, prefix: str
) -> None:
    """For the client its connection is half open. It is closed when the worker goes on."""

    async def freeze(found: Crew, publisher: Publisher) -> None:
        victim, other = found.pids()
        client = Customer(found.url)
        async with connected_to(found.url, victim) as (old, token):
            os.kill(victim, signal.SIGSTOP)
            try:
                await old.send_message("7")
                client.token = token
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.run)
                    await until(lambda: client.saved > 2)
                    assert client.pid == other
                    os.kill(victim, signal.SIGCONT)
                    assert await end_of(old) == 4409
                    before = client.saved
                    await until(lambda: client.saved > before)
                    nursery.cancel_scope.cancel()
            finally:
                os.kill(victim, signal.SIGCONT)
        assert not client.codes
        # It asserts that it finds what it has saved.
        with trio.move_on_after(1):
            await client.run()
        assert len(client.recovered) == 2

    run(tmp_path, redis, prefix, freeze)


async def end_of(ws: WebSocketConnection) -> int:
    """Wait for the end, and return the close code."""
    with trio.fail_after(30):
        try:
            while True:
                await ws.get_message()
        except ConnectionClosed as closed:
            return code_of(closed)


@asynccontextmanager
async def connected_to(url: str, pid: int) -> AsyncIterator[tuple[WebSocketConnection, str]]:
    """Open connections until one is to this process."""
    with trio.fail_after(30):
        while True:
            async with connected(url, "/") as ws:
                await ws.send_message(json.dumps({"token": None, "after": None}))
                welcome = json.loads(await ws.get_message())
                if welcome["pid"] == pid:
                    yield ws, welcome["token"]
                    return


@pytest.mark.chaos
def test_many_rolls_and_kills_lose_no_session(tmp_path: Path, redis: RedisServer, prefix: str) -> None:
    rounds, seed = int(os.environ.get("CHAOS_ROLLS", "20")), int(os.environ.get("CHAOS_SEED", "2026"))
    chance = random.Random(seed)

    async def hurt(found: Crew, publisher: Publisher) -> None:
        async with customers(found, publisher, 100) as clients:
            for number in range(rounds):
                ready = len(found.logged("worker.ready"))
                if chance.random() < 0.5:
                    found.signal(signal.SIGHUP)
                    await wait_for(found, "roll.finished", len(found.logged("roll.finished")) + 1)
                else:
                    os.kill(chance.choice(found.pids()), signal.SIGKILL)
                    await wait_for(found, "worker.ready", ready + 1)
                await trio.sleep(chance.uniform(0, 0.5))
                print(f"round {number + 1}: {sum(len(client.codes) for client in clients)} times resumed")
        assert {code for client in clients for code in client.codes} <= {1006, 1012}

    print(f"\nseed {seed}")
    run(tmp_path, redis, prefix, hurt)
