"""What a program does in Redis beside its rooms."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from tests.engines.redis.redis_server import Proxy, RedisServer
from tests.waiting import until
from wsframework import ConfigurationError, RoomUnavailable
from wsframework.engines.redis import Commands, RedisEngine, RedisError, Script
from wsframework.testing import cancel_everywhere

TAKE = Script.of(
    "redis.call('SET', KEYS[1], ARGV[1]); redis.call('PUBLISH', ARGV[2], ARGV[1]); return ARGV[1]"
)


@asynccontextmanager
async def running(
    url: str, before: Callable[[Commands], None] = lambda commands: commands.load(TAKE), outage: float = 5.0
) -> AsyncIterator[RedisEngine]:
    engine = RedisEngine(url, timeout=1.0, outage=outage)
    before(engine.commands)
    async with engine.run():
        yield engine


async def test_a_command_is_done_and_answered(redis: RedisServer) -> None:
    async with running(redis.url) as engine:
        commands = engine.commands
        assert commands.prefix == "ws"
        assert await commands.call("SET", "ws:kettle", "on") in (b"OK", "OK")
        assert await commands.call("GET", "ws:kettle") == b"on"
        assert commands.call_soon("SET", "ws:kettle", 1)  # there is a connection now
        assert await commands.call("INCR", "ws:kettle") == 2


async def test_a_refused_command_raises_and_the_connection_goes_on(redis: RedisServer) -> None:
    async with running(redis.url) as engine:
        await engine.commands.call("SET", "ws:text", "x")
        with pytest.raises(RedisError, match="not an integer"):
            await engine.commands.call("INCR", "ws:text")
        assert engine.statistics().generation == 1


async def test_a_message_is_heard_before_the_answer_of_what_published_it(redis: RedisServer) -> None:
    async with running(redis.url) as engine:
        heard: list[bytes | None] = []
        engine.commands.listen("ws:told", heard.append)
        await until(lambda: heard == [None])
        said = await engine.commands.call(*TAKE.call(["ws:told"], "1", "ws:told"))
        assert (said, heard) == (b"1", [None, b"1"])


async def test_a_function_that_fails_hears_the_next_message_too(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bytes | None] = []

    def hear(payload: bytes | None) -> None:
        heard.append(payload)
        raise RuntimeError("a mistake")

    def before(commands: Commands) -> None:
        commands.load(TAKE)
        commands.listen("ws:told", hear)

    async with running(redis.url, before) as engine:
        await until(lambda: heard == [None])
        for number in (1, 2):
            await engine.commands.call(*TAKE.call(["ws:told"], number, "ws:told"))
        assert heard == [None, b"1", b"2"]
        assert engine.statistics().generation == 1
    assert "a mistake" in caplog.text


async def test_a_lost_connection_is_told_and_scripts_and_channels_work_on_the_next_one(
    redis: RedisServer,
) -> None:
    async with Proxy(redis.port).running() as proxy, running(proxy.url) as engine:
        commands, heard = engine.commands, list[bytes | None]()
        commands.listen("ws:told", heard.append)
        await until(lambda: heard == [None])
        async with trio.open_nursery() as nursery:
            proxy.swallow = True
            nursery.start_soon(_expect_unknown, commands)
            await trio.sleep(0.1)
            proxy.cut()
        assert not commands.call_soon("PING")
        async with trio.open_nursery() as nursery:
            # It waits for the next connection.
            nursery.start_soon(commands.call, *TAKE.call(["ws:told"], "again", "ws:told"))
            await trio.sleep(0.1)
            proxy.swallow = False
        assert heard == [None, None, b"again"]


async def test_a_command_waits_for_a_connection_for_so_long_and_no_longer(redis: RedisServer) -> None:
    async with Proxy(redis.port).running() as proxy, running(proxy.url, outage=0.2) as engine:
        await engine.commands.call("PING")
        proxy.swallow = True
        proxy.cut()
        await until(lambda: not engine.statistics().up)
        with pytest.raises(RoomUnavailable, match="no connection") as error:
            await engine.commands.call("PING")
        assert not error.value.unknown


async def _expect_unknown(commands: Commands) -> None:
    with pytest.raises(RoomUnavailable) as error:
        await commands.call("PING")
    assert error.value.unknown


async def test_a_script_that_the_server_has_forgotten_is_loaded_again(redis: RedisServer) -> None:
    async with running(redis.url) as engine:
        await engine.commands.call("SCRIPT", "FLUSH")
        with pytest.raises(RoomUnavailable) as error:
            await engine.commands.call(*TAKE.call(["ws:told"], 1, "ws:told"))
        assert not error.value.unknown
        await until(lambda: engine.statistics().generation == 2)
        assert await engine.commands.call(*TAKE.call(["ws:told"], 1, "ws:told")) == b"1"


async def test_an_engine_that_does_not_run_says_so(redis: RedisServer) -> None:
    with pytest.raises(ConfigurationError, match="does not run"):
        await RedisEngine(redis.url).commands.call("PING")


async def test_a_cancelled_command_leaves_the_connection_as_it_was(redis: RedisServer) -> None:
    async with running(redis.url) as engine:
        assert (await cancel_everywhere(functools.partial(engine.commands.call, "PING"))).points
        assert await engine.commands.call("ECHO", "mine") == b"mine"
