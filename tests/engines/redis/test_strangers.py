"""What strangers can do: those who write to Redis, and clients that make up positions."""

from __future__ import annotations

import multiprocessing
import secrets
from pathlib import Path

import pytest
import trio

from tests.engines.redis.judge import Member
from tests.engines.redis.redis_server import Proxy, RedisServer
from tests.waiting import until
from wsframework import ConfigurationError, RoomMessage
from wsframework.engines.redis import RedisEngine
from wsframework.engines.redis.subscriptions import HISTORY
from wsframework.rooms import Position


async def say(engine: RedisEngine, text: str, room: str = "tea") -> Position:
    return await engine.publish(room, RoomMessage.of(text), (), None, None)


async def test_nodes_that_strangers_made_up_do_not_keep_dead_ones_alive(tmp_path: Path) -> None:
    """Names that are no text ended every process. Those that could not be removed filled each answer."""
    server = RedisServer(tmp_path)
    async with server.running():
        engine = RedisEngine(server.url, lease=0.3)
        async with engine.run():
            engine.subscribe("tea", Member())
            engine.enter("tea", f"{engine.node}/1", "here")
            await until(lambda: list(engine.present("tea").values()) == ["here"])
            await server.command("SET", "string", "x")
            for number in range(20):
                name = f"\udcff{number}"
                await server.command("ZADD", "ws:nodes", "0", name)
                await server.command("SADD", f"ws:node:{name}", "string", "ws:{r/tea}", "\udcff")
            await server.command("SET", "string:w", "no hash")
            await server.command("HSET", "ws:{r/tea}:w", "dead/1", '7 "dead"')
            await server.command("ZADD", "ws:nodes", "1", "dead")
            await server.command("SADD", "ws:node:dead", "ws:{r/tea}")
            with trio.fail_after(30):
                while await server.command("ZCARD", "ws:nodes") != b":1\r\n":  # noqa: ASYNC110
                    await trio.sleep(0.02)
            assert b"dead" not in await server.command("HKEYS", "ws:{r/tea}:w")
            assert list(engine.present("tea").values()) == ["here"]
            assert engine.statistics().generation == 1


async def test_a_node_that_says_nothing_notices_that_its_scripts_are_gone(tmp_path: Path) -> None:
    """Its lease was not extended any more, and others removed its members."""
    server = RedisServer(tmp_path)
    async with server.running():
        quiet = RedisEngine(server.url, lease=0.6)
        async with quiet.run():
            quiet.enter("tea", f"{quiet.node}/1", "quiet")
            await until(lambda: quiet.statistics().up)
            await server.command("SCRIPT", "FLUSH")
            await until(lambda: quiet.statistics().generation == 2)
            other = RedisEngine(server.url, lease=0.6)
            async with other.run():
                other.subscribe("tea", Member())
                await until(lambda: bool(other.present("tea")))
                await trio.sleep(1.0)
                assert list(other.present("tea").values()) == ["quiet"]


async def test_a_subscription_that_is_refused_is_no_answer_to_anything_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The error was taken for the reply to the next command, and each reply for that of the next one."""
    server = RedisServer(tmp_path)
    async with server.running():
        rights = ("on", ">secret", "~*", "&*", "+@all")
        await server.command("ACL", "SETUSER", "rooms", *rights)
        engine = RedisEngine(f"redis://rooms:secret@127.0.0.1:{server.port}")
        async with engine.run():
            await say(engine, "1:1", "milk")
            await server.command("ACL", "SETUSER", "rooms", "resetchannels", "&ws:probe")
            member = Member()
            engine.subscribe("tea", member)
            engine.enter("tea", f"{engine.node}/1", "here")
            await until(lambda: "refuses a subscription: NOPERM" in caplog.text)
            await server.command("ACL", "SETUSER", "rooms", "&*")
            await until(lambda: list(engine.present("tea").values()) == ["here"])
            assert (await say(engine, "1:2", "milk")).split(".")[1] == "2"
            assert [await say(engine, f"2:{n + 1}") for n in range(3)] == [
                position for _, position in member.messages
            ]
            assert not member.gaps


@pytest.mark.parametrize(
    "made_up",
    [
        "",
        "x",
        "..",
        "-.0.",
        "-.5.x",
        "{epoch}.0.x",
        "{epoch}.1.",
        "{epoch}.1.forged",
        "{epoch}.99.{tag}",
        "{epoch}.-1.{tag}",
        "{epoch}.٣.{tag}",
        "{epoch}.1e1.{tag}",
        "{epoch}.999999999999999.{tag}",
        "{epoch}.9999999999999999999999999.{tag}",
        "{epoch}.3.{tag}",
        "{epoch} .1.{tag}",
        "{epoch}.1.{tag}\x00",
        "{epoch}.1.{tag}\ud800",
        "{other}",
        "x" * 10_000 + ".1.{tag}",
    ],
    ids=lambda text: ascii(text)[:30],
)
async def test_a_position_that_a_client_made_up_is_one_after_which_something_was_missed(
    made_up: str, redis: RedisServer
) -> None:
    prefix = f"forged-{secrets.token_hex(4)}"
    engine = RedisEngine(redis.url, prefix=prefix)
    async with engine.run():
        engine.subscribe("tea", Member())
        await until(lambda: engine.position("tea") is not None)
        first = await say(engine, "1:1")
        newest = await say(engine, "1:2")
        other = await say(engine, "1:1", "milk")
        epoch, _, tag = first.split(".")
        position = made_up.format(epoch=epoch, tag=tag, other=other)
        replay = await engine.history("tea", position, None)
        assert not replay.complete
        assert list(replay.messages) == []
        assert (await engine.history("tea", newest, None)).complete
        assert engine.statistics().generation == 1
        # Redis reads and sends no more than it takes to tell.
        keys = (f"{prefix}:{{r/tea}}:m", f"{prefix}:{{r/tea}}:s")
        call = (b"EVALSHA", HISTORY.digest, 2, *keys, "x", 1, 500, 2**20, 600)
        for expected, count in (((epoch, tag), 2), ((epoch, "forged"), 1), (("other", tag), 0)):
            assert len((await engine.commands.call(*call, *expected))[3]) == 3 * count


async def test_clients_that_have_gone_read_no_histories(redis: RedisServer) -> None:
    engine = RedisEngine(redis.url, prefix="gone")
    async with engine.run():
        engine.subscribe("tea", Member())
        position = await say(engine, "1:1")
        await until(lambda: engine.position("tea") == position)
        before = await calls(redis)
        async with trio.open_nursery() as nursery:
            for _ in range(500):
                nursery.start_soon(engine.history, "tea", position, None)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert (await engine.history("tea", position, None)).complete
        assert await calls(redis) - before < 50


async def calls(redis: RedisServer) -> int:
    """Return how many scripts the server has run."""
    statistics = await redis.command("INFO", "commandstats")
    return int(statistics.split(b"cmdstat_evalsha:calls=")[1].split(b",")[0])


async def test_a_history_to_which_a_stranger_added_does_not_stop_its_room(redis: RedisServer) -> None:
    """Every further message was refused: its number was not above the stranger's."""
    engine, member = RedisEngine(redis.url, prefix="added"), Member()
    async with engine.run():
        engine.subscribe("tea", member)
        position = await say(engine, "1:1")
        await redis.command("XADD", "added:{r/tea}:s", "50-0", "t", "\udcff", "d", "tforged")
        await redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: engine.statistics().generation == 2 and engine.statistics().up)
        assert (await engine.history("tea", position, None)).complete
        assert [await say(engine, f"1:{number}") for number in (2, 3)][1].split(".")[1] == "3"
        await until(lambda: len(member.messages) == 3)
        assert not member.gaps


@pytest.mark.parametrize("offset", [2**53 - 1, 2**63 - 1, 10**40])
async def test_an_offset_with_which_nobody_can_count_begins_another_history(
    offset: int, redis: RedisServer
) -> None:
    """Each message had the number of the one before, and was reported as a loss."""
    prefix = f"far-{offset:.0e}"
    engine, member = RedisEngine(redis.url, prefix=prefix), Member()
    async with engine.run():
        engine.subscribe("tea", member)
        await say(engine, "1:1")
        await redis.command("HSET", f"{prefix}:{{r/tea}}:m", "s", f"e {offset} t 1 1")
        positions = [await say(engine, f"1:{number}") for number in (2, 3, 4)]
        assert [position.split(".")[1] for position in positions] == ["1", "2", "3"]
        await until(lambda: [position for _, position in member.messages][-1:] == positions[-1:])
        assert len(member.gaps) == 1
        # The same for the versions of who is present.
        engine.enter("tea", f"{engine.node}/1", "here")
        await until(lambda: bool(engine.present("tea")))
        await redis.command("HSET", f"{prefix}:{{r/tea}}:w", "v", f"e {offset} 1")
        engine.enter("tea", f"{engine.node}/1", "there")
        await until(lambda: list(engine.present("tea").values()) == ["there"])
        assert int((await redis.command("HGET", f"{prefix}:{{r/tea}}:w", "v")).split()[-2]) < 10


async def test_a_connection_that_is_cut_again_and_again_is_made_more_and_more_rarely(
    redis: RedisServer,
) -> None:
    proxy = Proxy(redis.port)
    async with proxy.running(), RedisEngine(proxy.url, prefix="rarely").run():
        with trio.move_on_after(3):
            while True:
                proxy.cut()
                await trio.sleep(0.02)
        assert proxy.accepted < 20


def run(engine: RedisEngine, queue: multiprocessing.Queue[str]) -> None:
    async def main() -> None:
        async with engine.run():
            pass

    try:
        trio.run(main)
    except ConfigurationError as error:
        queue.put(str(error))


def test_an_engine_of_another_process_is_refused(redis: RedisServer) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=run, args=(RedisEngine(redis.url), queue))
    process.start()
    assert "was made before a fork" in queue.get(timeout=60)
    process.join()
