"""The program of the page shares its rooms among processes; its account is tried in tests/engines/redis."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

import trio

from tests.docs.conftest import Follow
from tests.docs.following import exercises
from tests.docs.snippets import DOCS, ROOT, commands, files
from tests.engines.redis.conftest import redis as redis  # the fixture
from tests.engines.redis.redis_server import RedisServer
from tests.waiting import until
from wsframework import App
from wsframework.testing import serve

PAGE = "howto/redis.md"


def app_of(server: RedisServer) -> tuple[App, Any]:
    """Return the page's App and its rooms, with another server's URL."""
    program: dict[str, Any] = {}
    text = files(DOCS / PAGE)["tea.py"].replace("redis://localhost", server.url)
    exec(compile(text, PAGE, "exec"), program)
    return program["app"], program["rooms"]


@exercises(PAGE, "tea.py", "rooms.acl")
async def test_members_of_two_processes_meet(redis: RedisServer) -> None:
    (first, rooms), (second, _) = app_of(redis), app_of(redis)
    async with (
        serve(first) as one,
        serve(second) as two,
        one.connect("/rooms/tea") as ada,
        two.connect("/rooms/tea") as bob,
    ):
        await until(lambda: len(rooms["tea"].present()) == 2)
        await ada.send("hello")
        assert [await ada.receive(), await bob.receive()] == ["hello", "hello"]


@exercises(PAGE, "remind.py", "wsframework publish tea 'The kettle is on.'")
async def test_a_program_and_a_shell_publish_from_outside(redis: RedisServer, follow: Follow) -> None:
    app, rooms = app_of(redis)
    remind = follow(PAGE).load("remind.py").remind
    async with serve(app) as server, server.connect("/rooms/tea") as ada:
        await until(lambda: len(rooms["tea"].present()) == 1)
        await trio.to_thread.run_sync(remind, redis.url)
        command = next(line for line in commands(DOCS / PAGE) if line.startswith("wsframework"))
        arguments = [sys.executable, "-m", *shlex.split(command)]
        await trio.run_process(
            arguments, env={**os.environ, "WSFRAMEWORK_REDIS": redis.url}, capture_stdout=True
        )
        assert [await ada.receive(), await ada.receive()] == ["The kettle is on."] * 2


@exercises(PAGE, "visits.py")
async def test_a_script_counts_visits_and_tells_all_processes(redis: RedisServer) -> None:
    text = files(DOCS / PAGE)["visits.py"].replace("redis://localhost", redis.url)
    programs: list[dict[str, Any]] = [{}, {}]
    for program in programs:
        exec(compile(text, "visits.py", "exec"), program)
    one, two = programs
    async with serve(one["app"]) as first, serve(two["app"]) as second:
        for program in programs:
            await program["engine"].commands.call("PING")
        async with first.connect("/visits/tea") as ada:
            assert await ada.receive() == "visit 1, here ['tea']"
        async with second.connect("/visits/tea") as bob:
            assert await bob.receive() == "visit 2, here ['tea', 'tea']"
        await until(lambda: one["seen"] == ["tea", "tea"])


@exercises(PAGE, "pip install 'wsframework[redis]'")
def test_the_extra_is_declared() -> None:
    assert '\nredis = ["hiredis' in (ROOT / "pyproject.toml").read_text()
