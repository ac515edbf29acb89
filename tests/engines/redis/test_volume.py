"""Much of everything: rooms, members, bytes, and a server without memory. `make chaos` takes more of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.engines.redis.judge import ROOMS, Member
from tests.engines.redis.redis_server import Proxy, RedisServer
from tests.engines.redis.stage import SECONDS, Stage
from tests.waiting import until
from wsframework import History, RoomMessage, RoomUnavailable
from wsframework.engines.redis import Publisher, RedisEngine
from wsframework.rooms import Position

MUCH = "CHAOS_SECONDS" in os.environ

LIMIT = ("client-output-buffer-limit", "pubsub 2mb 0 0")
"""A part of what Redis grants a subscriber, so that a part of the volume shows the same."""


def reached(engine: RedisEngine, rooms: Sequence[str], positions: Sequence[Position]) -> bool:
    return [engine.position(room) for room in rooms] == list(positions)


async def test_ten_thousand_rooms_go_on_after_a_lost_connection(tmp_path: Path) -> None:
    rooms = [f"room {number}" for number in range(10_000 if MUCH else 3_000)]
    server = RedisServer(tmp_path, LIMIT)
    async with server.running():
        here, there = RedisEngine(server.url), RedisEngine(server.url)
        async with here.run(), there.run():
            members = {room: Member() for room in rooms}
            for room, member in members.items():
                here.subscribe(room, member)
                here.enter(room, f"{here.node}/1", room)
            await until(lambda: all(here.position(room) is not None for room in rooms))
            for cut in range(2):
                await server.command("CLIENT", "KILL", "TYPE", "pubsub")
                newest: list[Position] = [
                    await there.publish(room, RoomMessage.of(f"1:{cut}"), (), None, None)
                    for room in rooms[::10]
                ]
                await until(partial(reached, here, rooms[::10], newest))
            for number, room in enumerate(rooms):
                texts = [text for text, _ in members[room].messages]
                assert texts == ([] if number % 10 else ["1:0", "1:1"])
                assert not members[room].gaps
            await until(lambda: all(list(here.present(room).values()) == [room] for room in rooms))
            assert here.statistics().generation == 3


async def test_long_messages_and_data_of_many_rooms_are_read_one_by_one(tmp_path: Path) -> None:
    """They were asked for at once, which was too much for Redis, and so was the next attempt."""
    server = RedisServer(tmp_path, LIMIT)
    rooms = [f"room {number}" for number in range(12)]
    async with server.running():
        proxy = Proxy(server.port)
        async with proxy.running():
            here, there = RedisEngine(proxy.url, timeout=2.0), RedisEngine(server.url)
            async with here.run(), there.run():
                members = {room: Member() for room in rooms}
                for room, member in members.items():
                    here.subscribe(room, member)
                await until(lambda: all(here.position(room) is not None for room in rooms))
                proxy.swallow = True
                proxy.cut()
                newest: list[Position] = []
                for room in rooms:
                    text = RoomMessage.of("1:1" + "x" * 600_000)
                    newest.append(await there.publish(room, text, (), History(), None))
                for number in range(40):
                    there.enter(rooms[0], f"{there.node}/{number}", "x" * 60_000)
                proxy.swallow = False
                with trio.fail_after(30):
                    await until(partial(reached, here, rooms, newest))
                    await until(lambda: len(here.present(rooms[0])) == 40)
                assert all(len(member.messages) == 1 for member in members.values())
                assert not any(member.gaps for member in members.values())


async def test_a_message_that_redis_would_cut_its_readers_for_is_refused(redis: RedisServer) -> None:
    """Each process with a member of the room was cut off again and again until the history was forgotten."""
    engine = RedisEngine(redis.url, prefix="long", queue_bytes=2**26)
    publisher = Publisher(redis.url, prefix="long", timeout=30)
    async with engine.run():
        engine.subscribe("tea", Member())
        longest = await engine.publish("tea", RoomMessage.of(bytes(2**24)), (), None, None)
        with pytest.raises(
            RoomUnavailable, match="TOOLONG a message of 16777217 bytes; 16 MiB are"
        ) as caught:
            await engine.publish("tea", RoomMessage.of(bytes(2**24 + 1)), (), None, None)
        assert not caught.value.unknown
        with publisher, pytest.raises(RoomUnavailable, match="TOOLONG") as caught:
            await trio.to_thread.run_sync(publisher.publish, "tea", bytes(40_000_000))
        assert not caught.value.unknown
        await until(lambda: engine.position("tea") == longest)
        assert engine.statistics().generation == 1


async def test_much_presence_is_read_in_parts_that_redis_does_not_cut(tmp_path: Path) -> None:
    """Redis cut the connection, and the next one, and so on."""
    server = RedisServer(tmp_path, LIMIT)
    rooms = {"one": 10_000, **{f"many {number}": 100 for number in range(100)}}
    async with server.running():
        here, there = RedisEngine(server.url), RedisEngine(server.url)
        async with here.run():
            for room, count in rooms.items():
                for number in range(count):
                    here.enter(room, f"{here.node}/{room} {number}", ["x" * 500, number])
            async with there.run():
                for room in rooms:
                    there.subscribe(room, Member())
                await until(lambda: all(len(there.present(room)) == count for room, count in rooms.items()))
                assert [data[1] for data in there.present("one").values()] == list(range(10_000))
                await server.command("CLIENT", "KILL", "TYPE", "pubsub")
                await until(lambda: there.statistics().generation == 2 and there.statistics().up)
                here.leave("one", f"{here.node}/one 5")
                await until(lambda: len(there.present("one")) == 9_999)
                assert there.statistics().generation == 2


async def test_a_long_history_is_replayed_in_pages(tmp_path: Path) -> None:
    """To a member that comes back, and to a node."""
    keep = History(messages=100_000, seconds=600.0, bytes=2**30)
    count, body = (2_000 if MUCH else 400), "x" * 50_000
    server = RedisServer(tmp_path, LIMIT)
    async with server.running():
        here, there = RedisEngine(server.url), RedisEngine(server.url)
        member = Member()
        async with here.run(), there.run():
            here.subscribe("tea", member)
            position = await there.publish("tea", RoomMessage.of("0"), (), keep, None)
            await until(lambda: here.position("tea") == position)
            for number in range(1, count):
                newest = await there.publish("tea", RoomMessage.of(f"{number} {body}"), (), keep, None)
                if number == 10:
                    await server.command("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: here.position("tea") == newest)
            assert [int(text.split(" ")[0]) for text, _ in member.messages] == list(range(count))
            assert not member.gaps
            found: list[int] = []
            while True:
                replay = await here.history("tea", position, keep)
                assert replay.complete
                assert sum(len(message.payload) for _, message in replay.messages) <= 400_000
                found += [int(str(message.data).split(" ")[0]) for _, message in replay.messages]
                position = replay.position
                if not replay.more:
                    break
            assert found == list(range(1, count))


async def test_a_server_that_evicts_keys_is_a_gap_and_presence_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = ("maxmemory-policy", "allkeys-random")
    async with Stage.set(tmp_path, policy) as stage:

        async def fill_the_memory(stage: Stage) -> None:
            await trio.sleep(SECONDS / 4)
            await stage.server.command("CONFIG", "SET", "maxmemory", "6mb")
            for number in range(1500):
                await stage.server.command("SET", f"junk:{number}", "x" * 10_000)
            await stage.server.command("CONFIG", "SET", "maxmemory", "0")

        await stage.suffer(fill_the_memory)
        assert stage.talk.gaps
        assert set(stage.talk.gaps) <= {"epoch", "trimmed"}
        # Evictions also of what nobody has changed since.
        for room in ROOMS:
            await stage.server.command("DEL", f"ws:{{r/{room}}}:w")
        await stage.server.command("DEL", f"ws:node:{stage.engines[0].node}")
        late = RedisEngine(stage.server.url, lease=2.0)
        async with late.run():
            for room in ROOMS:
                late.subscribe(room, Member())
                late.enter(room, f"{late.node}/1", "late")
            await until(lambda: all(len(late.present(room)) == 4 for room in ROOMS))
            node = stage.engines[0].node
            with trio.fail_after(30):
                while await stage.server.command("SCARD", f"ws:node:{node}") != b":3\r\n":  # noqa: ASYNC110
                    await trio.sleep(0.05)
