"""Rooms on Redis in several workers: a rolling restart or a killed worker costs its members no message."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from trio_websocket import ConnectionClosed, HandshakeError

from tests.cli.conftest import Command
from tests.cli.conftest import command as command
from tests.engines.redis.conftest import redis as redis  # the fixture
from tests.engines.redis.redis_server import RedisServer
from tests.waiting import until
from tests.workers.processes import Crew, code_of, connected, crew, needs_proc
from wsframework.engines.redis import Publisher

pytestmark = [needs_proc, pytest.mark.slow]

APP = """\
import json, os
from wsframework import App, Rooms, Timeouts
from wsframework.engines.redis import RedisEngine

app = App(timeouts=Timeouts(drain=2, lifespan=2))
engine = RedisEngine(os.environ["REDIS"], prefix=os.environ["PREFIX"], lease=1.0)
app.install(engine)
rooms = Rooms(engine=engine, stamp=lambda message, position: json.dumps([message, position]))


@app.websocket("/")
async def follow(ws):
    async with rooms["tea"].join(ws, os.getpid(), after=ws.request.query.get("after")) as member:
        await ws.send(json.dumps({"missed": member.missed, "pid": os.getpid()}))
        async for message in ws:
            await ws.send(json.dumps({"present": rooms["tea"].present()}))
"""

CLIENTS = 6


class Follower:
    """A client that comes back with its last position, as the page of a program would."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.heard: list[str] = []
        self.pids: list[int] = []
        self.missed: list[bool] = []
        self.codes: list[int] = []
        self._position = "none"

    async def run(self) -> None:
        while True:
            try:
                async with connected(self.url, f"/?after={self._position}") as ws:
                    while True:
                        self._take(json.loads(await ws.get_message()))
            except* ConnectionClosed as closed:
                self.codes += [code_of(error) for error in closed.exceptions]
            except* (HandshakeError, OSError):
                await trio.sleep(0.02)

    def _take(self, message: object) -> None:
        match message:
            case [str(text), str(position)]:
                self.heard.append(text)
                self._position = position
            case {"missed": bool(missed), "pid": int(pid)}:
                self.missed.append(missed)
                self.pids.append(pid)


async def conversation(
    found: Crew, publisher: Publisher, fault: Callable[[], None], over: str
) -> list[Follower]:
    """Publish until what happens to the workers is over; each client then has heard all of it."""
    followers = [Follower(found.url) for _ in range(CLIENTS)]
    expected: list[str] = []
    async with trio.open_nursery() as nursery:
        for follower in followers:
            nursery.start_soon(follower.run)
        await until(lambda: all(follower.pids for follower in followers))
        while len(expected) < 10 or not found.logged(over):
            await trio.to_thread.run_sync(publisher.publish, "tea", f"{len(expected)}")
            expected.append(f"{len(expected)}")
            if len(expected) == 5:
                fault()
            await trio.sleep(0.05)
        await until(lambda: all(follower.heard[-1:] == expected[-1:] for follower in followers))
        await all_are_present(found.url, followers)
        nursery.cancel_scope.cancel()
    assert all(follower.heard == expected for follower in followers)
    return followers


async def all_are_present(url: str, followers: list[Follower]) -> None:
    """Wait until everybody is present, as one more client sees it."""
    async with connected(url, "/") as ws:
        own = json.loads(await ws.get_message())["pid"]
        with trio.fail_after(30):
            while True:
                await ws.send_message("who")
                while not isinstance(message := json.loads(await ws.get_message()), dict):
                    pass
                if sorted(message["present"]) == sorted([own, *(each.pids[-1] for each in followers)]):
                    return
                await trio.sleep(0.05)


@pytest.fixture
def prefix(request: pytest.FixtureRequest, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("REDIS", redis.url)
    monkeypatch.setenv("PREFIX", request.node.name)
    return str(request.node.name)


def test_the_workers_show_the_figures_of_their_engines(tmp_path: Path, prefix: str, command: Command) -> None:
    (tmp_path / "tea.py").write_text(APP)
    path = str(tmp_path / "admin.sock")
    with crew(tmp_path, 2, "--admin", path, target="tea:app"):
        for _ in range(600):
            shown = json.loads(command("workers", "--admin", path, "--json")[1])
            if all(worker["engines"] for worker in shown["workers"]):
                break
            time.sleep(0.05)
        assert [worker["engines"]["generation"] for worker in shown["workers"]] == [1, 1]
        assert (shown["total"]["engines"]["up"], shown["total"]["engines"]["generation"]) == (True, 2)
        header, *rows = command("workers", "--admin", path)[1].splitlines()
        assert header.split()[-5:] == ["ROOMS", "QUEUED", "TAKES", "LOST", "GAPS"]
        assert all(re.search(r" up +0 \(0\.0 s\) +0 ms +0 +0$", row) for row in rows)


def test_a_rolling_restart_costs_no_message(tmp_path: Path, redis: RedisServer, prefix: str) -> None:
    (tmp_path / "tea.py").write_text(APP)
    with crew(tmp_path, 2, target="tea:app") as found:
        before = found.pids()
        with Publisher(redis.url, prefix=prefix) as publisher:
            roll = partial(found.signal, signal.SIGHUP)
            followers = trio.run(conversation, found, publisher, roll, "roll.finished")
        assert not set(before) & set(found.pids())
    for follower in followers:
        assert follower.missed[0]
        assert not any(follower.missed[1:])
        assert set(follower.codes) == {1012}


def test_a_killed_worker_costs_no_message_and_its_members_are_gone(
    tmp_path: Path, redis: RedisServer, prefix: str
) -> None:
    (tmp_path / "tea.py").write_text(APP)
    with crew(tmp_path, 2, target="tea:app") as found:
        victim = found.pids()[0]
        with Publisher(redis.url, prefix=prefix) as publisher:
            kill = partial(os.kill, victim, signal.SIGKILL)
            followers = trio.run(conversation, found, publisher, kill, "worker.died")
        present = trio.run(present_without, found.url, victim)
    assert victim not in present
    for follower in followers:
        assert set(follower.codes) <= {1006}
        assert bool(follower.codes) == (follower.pids[0] == victim)


def test_a_worker_that_hangs_for_longer_than_its_lease_misses_nothing_and_is_present_again(
    tmp_path: Path, redis: RedisServer, prefix: str
) -> None:
    (tmp_path / "tea.py").write_text(APP)
    with crew(tmp_path, 2, target="tea:app") as found:
        victim = found.pids()[0]

        def hang() -> None:
            os.kill(victim, signal.SIGSTOP)
            threading.Timer(2.5, os.kill, (victim, signal.SIGCONT)).start()

        with Publisher(redis.url, prefix=prefix) as publisher:
            followers = trio.run(conversation, found, publisher, hang, "redis.lease_lost")
        # Its members were gone meanwhile.
        assert found.logged("redis.node_gone")
    for follower in followers:
        assert follower.codes == []


async def present_without(url: str, pid: int) -> list[int]:
    """Return who is present, once a process is not."""
    async with connected(url, "/") as ws:
        await ws.get_message()
        with trio.fail_after(60):
            while True:
                await ws.send_message("who")
                present: list[int] = json.loads(await ws.get_message())["present"]
                if present and pid not in present:
                    return present
                await trio.sleep(0.05)
