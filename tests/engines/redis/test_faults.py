"""What a Redis, or the way to it, can do to rooms: each fault happens while three nodes talk.

A few seconds each in CI. `make chaos` runs them longer and with other seeds, which it prints.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from tests.engines.redis.judge import Conversation
from tests.engines.redis.redis_server import RedisServer
from tests.engines.redis.stage import SECONDS, SEED, Stage
from wsframework import History
from wsframework.engines.redis import RedisEngine
from wsframework.rooms import RoomMessage

BRIEFLY = min(SECONDS / 2, 2.0)
"""How long Redis may be away, in seconds, so that messages wait no longer than the stage's `outage`."""

FEW = History(messages=5, seconds=60.0)


async def nothing(_: Stage) -> None:
    pass


async def kill_clients(stage: Stage) -> None:
    for _ in range(6):
        await trio.sleep(SECONDS / 8)
        await stage.server.command("CLIENT", "KILL", "TYPE", stage.talk.random.choice(["normal", "pubsub"]))


async def cut_one(stage: Stage) -> None:
    for _ in range(6):
        await trio.sleep(SECONDS / 8)
        stage.proxies[0].cut()


async def swallow_one(stage: Stage) -> None:
    await trio.sleep(SECONDS / 5)
    stage.proxies[0].swallow = True
    await trio.sleep(BRIEFLY)
    stage.proxies[0].swallow = False


async def delay_all(stage: Stage) -> None:
    for proxy in stage.proxies:
        proxy.delay = 0.1
    await trio.sleep(SECONDS)
    for proxy in stage.proxies:
        proxy.delay = 0.0


async def kill_and_restart(stage: Stage) -> None:
    await trio.sleep(SECONDS / 4)
    stage.server.kill()
    await trio.sleep(0.3)
    await stage.server.start()


async def freeze(stage: Stage) -> None:
    await trio.sleep(SECONDS / 5)
    stage.server.freeze()
    await trio.sleep(1.5)
    stage.server.thaw()


async def run_out_of_memory(stage: Stage) -> None:
    await trio.sleep(SECONDS / 4)
    await stage.server.command("CONFIG", "SET", "maxmemory", "1")
    await trio.sleep(SECONDS / 4)
    await stage.server.command("CONFIG", "SET", "maxmemory", "0")


async def lose_the_replicas(stage: Stage) -> None:
    """Redis answers NOREPLICAS."""
    await trio.sleep(SECONDS / 4)
    await stage.server.command("CONFIG", "SET", "min-replicas-to-write", "1")
    await trio.sleep(SECONDS / 4)
    await stage.server.command("CONFIG", "SET", "min-replicas-to-write", "0")


async def flush_all(stage: Stage) -> None:
    await trio.sleep(SECONDS / 2)
    await stage.server.command("FLUSHALL")


async def flush_scripts(stage: Stage) -> None:
    for _ in range(3):
        await trio.sleep(SECONDS / 5)
        await stage.server.command("SCRIPT", "FLUSH")


async def run_a_slow_script(stage: Stage) -> None:
    """Redis answers BUSY meanwhile."""
    await stage.server.command("CONFIG", "SET", "lua-time-limit", "100")
    await trio.sleep(SECONDS / 4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.server.command, "EVAL", "while true do end", "0")
        await trio.sleep(BRIEFLY)
        await stage.server.command("SCRIPT", "KILL")


@pytest.mark.parametrize(
    "fault",
    [nothing, kill_clients, cut_one, swallow_one, delay_all, freeze, flush_scripts, run_a_slow_script],
    ids=lambda fault: fault.__name__,
)
async def test_a_fault_that_loses_nothing_is_mended_without_a_gap(
    fault: Callable[[Stage], Awaitable[None]], tmp_path: Path
) -> None:
    async with Stage.set(tmp_path) as stage:
        await stage.suffer(fault)
        assert not stage.talk.gaps
        assert not stage.talk.refused
        assert not stage.talk.unknown


@pytest.mark.parametrize("fsync", ["always", "everysec"])
async def test_a_server_that_is_killed_and_has_written_everything_loses_nothing(
    fsync: str, tmp_path: Path
) -> None:
    """With everysec too: the kernel has what the process wrote, unless the machine loses power."""
    async with Stage.set(tmp_path, ("appendonly", "yes"), ("appendfsync", fsync)) as stage:
        await stage.suffer(kill_and_restart)
        assert not stage.talk.gaps


async def test_a_server_that_lost_the_end_of_its_file_is_a_gap_where_messages_are_lost(
    tmp_path: Path,
) -> None:
    async with Stage.set(tmp_path, ("appendonly", "yes"), ("appendfsync", "everysec")) as stage:

        async def lose_the_end(stage: Stage) -> None:
            await trio.sleep(SECONDS / 4)
            stage.server.kill()
            (file,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
            os.truncate(file, file.stat().st_size - 5_000)
            await stage.server.start()

        await stage.suffer(lose_the_end)
        assert stage.talk.gaps
        assert set(stage.talk.gaps) <= {"regressed", "forked"}


async def test_a_server_that_comes_back_empty_is_a_gap_everywhere(tmp_path: Path) -> None:
    async with Stage.set(tmp_path) as stage:
        await stage.suffer(kill_and_restart)
        assert set(stage.talk.gaps) == {"epoch"}
        assert all(member.gaps == ["epoch"] for member in stage.talk.members.values())


async def test_a_flushed_server_is_a_gap_everywhere(tmp_path: Path) -> None:
    async with Stage.set(tmp_path) as stage:
        await stage.suffer(flush_all)
        assert set(stage.talk.gaps) == {"epoch"}


@pytest.mark.parametrize("fault", [run_out_of_memory, lose_the_replicas], ids=lambda fault: fault.__name__)
async def test_a_server_without_memory_or_replicas_refuses_messages_and_loses_none(
    fault: Callable[[Stage], Awaitable[None]], tmp_path: Path
) -> None:
    async with Stage.set(tmp_path) as stage:
        await stage.suffer(fault)
        assert stage.talk.refused
        assert not stage.talk.unknown
        assert not stage.talk.gaps


async def test_a_node_that_was_away_for_longer_than_the_history_is_told(tmp_path: Path) -> None:
    async with Stage.set(tmp_path, history=FEW) as stage:

        async def away(stage: Stage) -> None:
            stage.proxies[0].swallow = True
            # More than is kept.
            for number in range(400):
                stage.engines[1].broadcast("tea", RoomMessage.of(f"9:{number + 1}"), (), FEW)
                await trio.lowlevel.checkpoint()
            await trio.sleep(1.5)
            stage.proxies[0].swallow = False

        await stage.suffer(away)
        assert stage.talk.members[0, "tea"].gaps == ["trimmed"]
        assert not stage.talk.members[1, "tea"].gaps


async def test_a_node_that_redis_cuts_because_it_reads_too_slowly_misses_nothing(tmp_path: Path) -> None:
    keep = History(messages=10_000, seconds=60.0, bytes=2**28)
    limit = ("client-output-buffer-limit", "pubsub 1mb 0 0")
    async with Stage.set(tmp_path, limit, history=keep) as stage:

        async def talk_much(stage: Stage) -> None:
            stage.proxies[0].swallow = True
            for number in range(400):
                text = f"9:{number + 1} {'x' * 50_000}"
                await stage.engines[1].publish("tea", RoomMessage.of(text), (), keep, None)
            stage.proxies[0].swallow = False

        await stage.suffer(talk_much)
        assert not stage.talk.gaps
        assert stage.engines[0].statistics().replayed > 0


async def test_a_full_disk_refuses_messages_and_loses_none(tmp_path: Path) -> None:
    """Redis refuses writes with MISCONF after a snapshot that failed."""
    async with Stage.set(tmp_path) as stage:

        async def fill_the_disk(stage: Stage) -> None:
            await trio.sleep(SECONDS / 4)
            await stage.server.command("CONFIG", "SET", "save", "3600 1")
            (tmp_path / "dump.rdb").mkdir()
            await stage.server.command("BGSAVE")
            await trio.sleep(SECONDS / 4)
            await stage.server.command("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")

        await stage.suffer(fill_the_disk)
        assert stage.talk.refused
        assert not stage.talk.unknown
        assert not stage.talk.gaps


async def test_a_server_that_is_away_for_longer_than_the_outage_refuses_what_it_did_not_get(
    tmp_path: Path,
) -> None:
    server = RedisServer(tmp_path)
    async with server.running():
        engine = RedisEngine(server.url, outage=0.5, timeout=0.3)
        async with engine.run():
            talk = Conversation([engine], SEED)
            talk.subscribe()
            await talk.settled()
            server.kill()
            await talk.talk(1.0)
            assert not talk.acknowledged
            assert engine.statistics().queued == 0
            await server.start()
            await talk.settled()
            await talk.talk(0.3)
            await talk.settled()
            talk.judge()
            assert talk.acknowledged
