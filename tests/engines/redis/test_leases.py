"""A node whose lease was over and that comes back while others remove its members."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.engines.redis.judge import Member
from tests.engines.redis.redis_server import RedisServer
from tests.waiting import until
from wsframework.engines.redis import RedisEngine, Script
from wsframework.rooms import RoomMessage

REAP = Script.load("reap")


async def test_a_removal_that_is_late_leaves_the_members_of_a_node_that_came_back(redis: RedisServer) -> None:
    engine = RedisEngine(redis.url, prefix="late")
    keys = ("late:{r/tea}:w", "late:nodes", f"late:node:{engine.node}")
    async with engine.run():
        engine.subscribe("tea", Member())
        engine.enter("tea", f"{engine.node}/1", "here")
        await until(lambda: bool(engine.present("tea")))
        # The others that remove it are between two steps: of one room, and after the last one.
        for step in (("late:{r/tea}", engine.node, "0"), ("", engine.node, "")):
            assert await engine.commands.call(*REAP.call(keys, *step)) == b""
        assert await engine.commands.call("SISMEMBER", keys[2], "late:{r/tea}") == 1
        assert await engine.commands.call("ZCARD", keys[1]) == 1
        assert await engine.count("tea") == 1
        # It is gone as soon as its lease is over.
        await engine.commands.call("ZADD", keys[1], "1", engine.node)
        for step in (("late:{r/tea}", engine.node, "0"), ("", engine.node, "")):
            assert await engine.commands.call(*REAP.call(keys, *step)) == b"0"
        assert await engine.commands.call("EXISTS", *keys) == 0


async def test_a_member_that_leaves_while_redis_has_no_scripts_is_gone(tmp_path: Path) -> None:
    """So it is when a master has just become a replica. The leave was forgotten with the connection."""
    server = RedisServer(tmp_path)
    async with server.running():
        engine = RedisEngine(server.url)
        async with engine.run():
            engine.subscribe("tea", Member())
            for number in (1, 2):
                engine.enter("tea", f"{engine.node}/{number}", number)
            position = await engine.publish("tea", RoomMessage.of("x"), (), None, None)
            await until(lambda: len(engine.present("tea")) == 2)
            await server.command("SCRIPT", "FLUSH")
            engine.leave("tea", f"{engine.node}/1")
            # Nor does a history wait for as long as there may be no connection.
            with trio.fail_after(engine.outage * 0.8):
                assert (await engine.history("tea", position, None)).complete
            await until(lambda: engine.statistics().generation == 2)
            await until(lambda: list(engine.present("tea").values()) == [2])
            assert await engine.count("tea") == 1


async def test_a_node_that_comes_back_tells_of_members_of_which_others_have_removed_some(
    tmp_path: Path,
) -> None:
    """It had an entry among the nodes still, so it took its lease for one that had never ended."""
    server = RedisServer(tmp_path)
    async with server.running():
        engine = RedisEngine(server.url, lease=0.6)
        async with engine.run():
            for room in ("tea", "milk"):
                engine.subscribe(room, Member())
                engine.enter(room, f"{engine.node}/1", "here")
            await until(lambda: bool(engine.present("tea")) and bool(engine.present("milk")))
            # It hangs, and another node is killed after it has done the first of two rooms.
            await server.command("SET", f"ws:reap:{engine.node}", "another")
            await server.command("ZADD", "ws:nodes", "1", engine.node)
            keys = ("ws:{r/tea}:w", "ws:nodes", f"ws:node:{engine.node}")
            assert await engine.commands.call(*REAP.call(keys, "ws:{r/tea}", engine.node, "0")) == b"0"
            assert not engine.present("tea")
            with trio.fail_after(30):
                await until(lambda: list(engine.present("tea").values()) == ["here"])
            assert await engine.commands.call("SCARD", keys[2]) == 2
