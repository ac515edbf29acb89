"""Rooms on Redis as a program uses them: in one process, in two, and when one of them is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.docs.snippets import DOCS, files
from tests.engines.redis.judge import Member
from tests.engines.redis.redis_server import Proxy, RedisServer
from tests.waiting import until
from wsframework import App, ConfigurationError, Connection, History, RoomMessage, Rooms, RoomUnavailable
from wsframework.engines.redis import RedisEngine
from wsframework.engines.redis.names import Names, Script
from wsframework.testing import Client, cancel_everywhere, serve


def program(url: str) -> tuple[App, Rooms, RedisEngine]:
    """Return a program that echoes a room, as one process of many would be."""
    app = App()
    engine = RedisEngine(url, lease=1.0)
    app.install(engine)
    rooms = Rooms(engine=engine, stamp=lambda message, position: json.dumps([message, position]))

    @app.websocket("/rooms/{room}")
    async def chat(ws: Connection, room: str) -> None:
        after = ws.request.query.get("after")
        async with rooms[room].join(ws, {"name": ws.request.query.get("name")}, after=after) as member:
            await ws.send(json.dumps({"missed": member.missed}))
            async for message in ws:
                if message == "who":
                    await ws.send(json.dumps(rooms[room].present()))
                elif message == "publish":
                    await ws.send(json.dumps({"at": await rooms[room].publish("published")}))
                else:
                    rooms[room].broadcast(message, exclude=ws)

    return app, rooms, engine


async def until_present(ws: Client, count: int) -> list[dict[str, str]]:
    with trio.fail_after(30):
        while True:
            await ws.send("who")
            found: list[dict[str, str]] = json.loads(await ws.receive())
            if len(found) == count:
                return found
            await trio.sleep(0.02)


async def test_members_of_two_processes_meet_and_one_that_comes_back_misses_nothing(
    redis: RedisServer,
) -> None:
    one, two = program(redis.url)[0], program(redis.url)[0]
    async with serve(one) as first, serve(two) as second, first.connect("/rooms/a%7D:m?name=Ada") as ada:
        async with second.connect("/rooms/a%7D:m?name=Bob") as bob:
            assert json.loads(await ada.receive()) == {"missed": None}
            assert json.loads(await bob.receive()) == {"missed": None}
            assert await until_present(ada, 2) == [{"name": "Ada"}, {"name": "Bob"}]
            await ada.send("hello")
            hello, position = json.loads(await bob.receive())
            assert hello == "hello"
        assert await until_present(ada, 1) == [{"name": "Ada"}]
        await ada.send("publish")
        replies = [json.loads(await ada.receive()) for _ in range(2)]
        (at,) = [reply["at"] for reply in replies if isinstance(reply, dict)]
        # On the other process, with the position that Bob had.
        async with first.connect(f"/rooms/a%7D:m?name=Bob&after={position}") as bob:
            assert json.loads(await bob.receive()) == ["published", at]
            assert json.loads(await bob.receive()) == {"missed": False}
        async with second.connect("/rooms/a%7D:m?after=x.1.y") as bob:
            assert json.loads(await bob.receive()) == {"missed": True}


async def test_a_room_on_an_engine_that_does_not_run_says_so_at_the_first_join(redis: RedisServer) -> None:
    app = App()
    rooms = Rooms(engine=RedisEngine(redis.url))
    errors: list[str] = []

    @app.websocket("/")
    async def chat(ws: Connection) -> None:
        try:
            async with rooms["tea"].join(ws):
                pass
        except ConfigurationError as error:
            errors.append(str(error))

    async with serve(app) as server, server.connect("/") as ws:
        await ws.wait_closed()
    (error,) = errors
    assert "write app.install(engine)" in error


async def test_a_server_that_is_not_there_at_the_start_is_one_sentence() -> None:
    engine = RedisEngine("redis://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match=r"127.0.0.1:1/0 cannot be reached: .*Connection refused"):
        async with engine.run():
            pass
    # It may be tried again.
    with pytest.raises(ConfigurationError):
        async with engine.run():
            pass


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["outage", "timeout", "lease", "queue_messages", "queue_bytes"])
def test_a_number_that_makes_no_sense_is_named(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"RedisEngine\({name}={value}\): it must be more than 0"):
        RedisEngine(**{name: value})  # type: ignore[arg-type]


async def test_an_uncaught_outage_closes_with_1013_and_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path)
    app = App()
    engine = RedisEngine(server.url, outage=0.2, timeout=0.2)
    app.install(engine)
    rooms = Rooms(engine=engine)

    @app.websocket("/")
    async def chat(ws: Connection) -> None:
        async for message in ws:
            await rooms["tea"].publish(message)

    async with server.running(), serve(app) as serving:
        server.kill()
        async with serving.connect("/") as ws:
            await ws.send("x")
            assert (await ws.wait_closed()).code == 1013
    assert "Traceback" not in caplog.text


async def test_a_queue_that_is_full_refuses_and_every_call_returns(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    engine = RedisEngine(server.url, outage=0.3, timeout=0.3, queue_messages=10)
    async with server.running(), engine.run():
        server.kill()
        await until(lambda: not engine.statistics().up)
        for _ in range(10):
            assert engine.broadcast("tea", RoomMessage.of("x"), (), None) == 0
        with pytest.raises(RoomUnavailable, match="the queue takes no more") as caught:
            engine.broadcast("tea", RoomMessage.of("x"), (), None)
        assert not caught.value.unknown
        await until(lambda: engine.statistics().lost >= 10)
        assert engine.statistics().queued_bytes == 0


async def seconds_left(redis: RedisServer, key: str) -> int:
    return int((await redis.command("TTL", key)).strip(b":\r\n"))


async def test_a_room_that_keeps_messages_longer_than_its_engine_does_is_not_forgotten_earlier(
    redis: RedisServer,
) -> None:
    """Each node that read its history had it forgotten after 12 minutes, and its messages with it."""
    engine, day = RedisEngine(redis.url, prefix="day"), History(seconds=86_400.0)
    async with engine.run():
        position = await engine.publish("tea", RoomMessage.of("1:1"), (), day, None)
        engine.subscribe("tea", Member())
        await until(lambda: engine.position("tea") == position)
        assert (await engine.history("tea", position, day)).complete
        feed = engine._rooms.feed("tea")
        assert feed is not None
        feed.touched_at = -1000.0
        await until(lambda: feed.touched_at >= 0)
        await engine.count("tea")
        assert await seconds_left(redis, "day:{r/tea}:m") > 86_400


async def test_an_idle_room_keeps_its_place_and_a_rare_message_is_no_gap(redis: RedisServer) -> None:
    """Its keys expire when they are not used, and members would be told of a loss that never was."""
    member = Member()
    engine = RedisEngine(redis.url, prefix="idle", history=History(seconds=1.0))
    async with engine.run():
        engine.subscribe("tea", member)
        await until(lambda: engine.position("tea") is not None)
        assert await seconds_left(redis, "idle:{r/tea}:m") > 600
        await engine.publish("tea", RoomMessage.of("1:1"), (), None, None)
        # The node extends it when a third of that is over.
        assert await seconds_left(redis, "idle:{r/tea}:m") > 600
        assert [text for text, _ in member.messages] == ["1:1"]
        assert member.gaps == []


async def test_a_stranger_who_writes_to_the_channel_is_logged_and_skipped(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    member = Member()
    engine = RedisEngine(redis.url, prefix="strange")
    async with engine.run():
        engine.subscribe("tea", member)
        await engine.publish("tea", RoomMessage.of("1:1"), (), None, None)
        for text in ("", "m", "m \n", "m e 1 1\nx", "p e 0 1\nx", "\x00", "m e 99 1\ntag 2:tx"):
            await redis.command("PUBLISH", "strange:{r/tea}", text)
        await redis.command("DEL", "strange:{r/tea}:w")
        await redis.command("HSET", "strange:{r/tea}:w", "x", "no json")
        await engine.publish("tea", RoomMessage.of("1:2"), (), None, None)
        await until(lambda: len(member.messages) >= 2)
        assert [text for text, _ in member.messages] == ["1:1", "1:2"]
        assert engine.statistics().generation == 1
        assert engine.statistics().malformed >= 5
    # The others are counted: a stranger can write as many as there is time for.
    assert caplog.text.count("room.malformed") == 1


@pytest.mark.parametrize("key", ["m", "s", "w"])
async def test_a_key_that_holds_something_else_hurts_its_own_room_only(
    key: str, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    spoiled, other = Member(), Member()
    engine = RedisEngine(redis.url, prefix=f"spoiled-{key}", outage=2.0)
    async with engine.run():
        for room, member in (("tea", spoiled), ("milk", other)):
            engine.subscribe(room, member)
            engine.enter(room, f"{engine.node}/1", room)
        position = await engine.publish("tea", RoomMessage.of("1:1"), (), None, None)
        await redis.command("DEL", f"spoiled-{key}:{{r/tea}}:{key}")
        await redis.command("SET", f"spoiled-{key}:{{r/tea}}:{key}", "something else")
        await redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: engine.statistics().generation == 2 and engine.statistics().up)
        engine.enter("tea", f"{engine.node}/2", "late")
        with trio.fail_after(20):
            await engine.history("tea", position, None)
        await engine.publish("milk", RoomMessage.of("1:1"), (), None, None)
        await until(lambda: bool(other.messages))
        assert list(engine.present("milk").values()) == ["milk"]
        assert engine.statistics().generation == 2
        assert other.gaps == []
    assert "WRONGTYPE" in caplog.text


async def test_the_rights_that_the_documentation_names_suffice_and_fewer_do_not(redis: RedisServer) -> None:
    rights = files(DOCS / "howto" / "redis.md")["rooms.acl"].replace("ws:*", "acl:*").split()
    assert (await redis.command("ACL", "SETUSER", *rights[1:])) == b"+OK\r\n"
    url = f"redis://rooms:secret@127.0.0.1:{redis.port}"
    engine = RedisEngine(url, prefix="acl", lease=0.3)
    member = Member()
    async with engine.run():
        engine.subscribe("tea", member)
        engine.enter("tea", f"{engine.node}/1", None)
        position = await engine.publish("tea", RoomMessage.of("1:1"), (), None, "key")
        await until(lambda: bool(engine.present("tea")))
        assert (await engine.history("tea", position, None)).complete
        await trio.sleep(0.5)  # the lease is extended
        assert engine.statistics().generation == 1
    other = RedisEngine(url, prefix="other")
    with pytest.raises(ConfigurationError, match=r"the user's rights do not suffice: .*NOPERM"):
        async with other.run():
            pass


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "noeviction"])
async def test_a_server_that_may_evict_rooms_is_logged(
    policy: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path, ("maxmemory", "100mb"), ("maxmemory-policy", policy))
    async with server.running(), RedisEngine(server.url).run():
        await trio.lowlevel.checkpoint()
    assert (f"policy={policy}" in caplog.text) == (policy != "noeviction")


async def test_statistics_tell_how_long_messages_wait_and_take(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    async with server.running():
        proxy = Proxy(server.port)
        async with proxy.running():
            engine = RedisEngine(proxy.url, outage=20.0)
            async with engine.run():
                await until(lambda: engine.statistics().up)
                before = engine.statistics()
                assert (before.queued_seconds, before.lag_seconds) == (0.0, None)
                assert await trio.to_thread.run_sync(engine.statistics) == before
                proxy.delay = 0.2
                await engine.publish("tea", RoomMessage.of("x"), (), None, None)
                lag = engine.statistics().lag_seconds
                assert lag is not None
                assert lag >= 0.2
                proxy.swallow = True
                engine.broadcast("tea", RoomMessage.of("x"), (), None)
                await trio.sleep(0.3)
                assert 0.3 <= engine.statistics().queued_seconds < 20
                proxy.swallow = False
                proxy.delay = 0.0
                await until(lambda: engine.statistics().queued == 0)
                for _ in range(60):
                    await engine.publish("tea", RoomMessage.of("x"), (), None, None)
                assert (engine.statistics().lag_seconds or 1) < lag


@asynccontextmanager
async def process_with_a_member(url: str) -> AsyncIterator[subprocess.Popen[str]]:
    """Run another process that has a member in the room "tea"."""
    code = f"""
        import trio
        from wsframework.engines.redis import RedisEngine

        class Member:
            def deliver(self, *_): return 1
            def lost(self, reason): pass
            def presence_changed(self, entered, left): pass
            def presence_read(self): pass

        async def main():
            engine = RedisEngine({url!r}, lease=1.0)
            async with engine.run():
                engine.subscribe("tea", Member())
                engine.enter("tea", engine.node + "/1", "another")
                print("ready", flush=True)
                await trio.sleep(60)

        trio.run(main)
    """
    process = subprocess.Popen(  # noqa: ASYNC220 - it is killed below
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert await trio.to_thread.run_sync(process.stdout.readline) == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


async def test_the_members_of_a_killed_process_are_gone_after_its_lease_and_no_others(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    async with server.running():
        engine = RedisEngine(server.url, lease=1.0)
        async with engine.run(), process_with_a_member(server.url) as process:
            engine.subscribe("tea", Member())
            engine.enter("tea", f"{engine.node}/1", "here")
            await until(lambda: sorted(engine.present("tea").values()) == ["another", "here"])
            process.kill()
            await until(lambda: list(engine.present("tea").values()) == ["here"])
            with trio.fail_after(20):
                while (await server.command("ZCARD", "ws:nodes")) != b":1\r\n":  # noqa: ASYNC110
                    await trio.sleep(0.02)


async def test_a_node_that_was_cut_off_for_longer_than_its_lease_is_present_again(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    async with server.running():
        proxy = Proxy(server.port)
        async with proxy.running():
            watching = RedisEngine(server.url, lease=0.6, timeout=0.3)
            away = RedisEngine(proxy.url, lease=0.6, timeout=0.3)
            async with watching.run(), away.run():
                watching.subscribe("tea", Member())
                away.subscribe("tea", Member())
                away.enter("tea", f"{away.node}/1", "away")
                with trio.fail_after(30):
                    await until(lambda: bool(watching.present("tea")))
                    proxy.swallow = True
                    await until(lambda: not watching.present("tea"))
                    away.enter("tea", f"{away.node}/1", "changed meanwhile")
                    away.enter("tea", f"{away.node}/2", "new")
                    proxy.swallow = False
                    await until(
                        lambda: list(watching.present("tea").values()) == ["changed meanwhile", "new"]
                    )


async def test_presence_says_nothing_twice_when_a_leave_met_a_lost_connection(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    async with server.running():
        engine = RedisEngine(server.url, lease=120.0)
        async with engine.run():
            engine.subscribe("tea", Member())
            for number in range(20):
                engine.enter("tea", f"{engine.node}/{number}", number)
            with trio.fail_after(30):
                await until(lambda: len(engine.present("tea")) >= 20)
                for number in range(19):
                    engine.leave("tea", f"{engine.node}/{number}")
                    if number == 9:
                        await server.command("CLIENT", "KILL", "TYPE", "pubsub")
                await until(lambda: list(engine.present("tea").values()) == [19])


async def test_members_are_counted_at_once_and_over_a_connection_that_is_made_anew(
    redis: RedisServer,
) -> None:
    """It was refused while there was no connection for a moment, as when the engine begins."""
    proxy = Proxy(redis.port)
    async with proxy.running():
        engine = RedisEngine(proxy.url, prefix="count")
        async with engine.run():
            assert await engine.count("tea") == 0
            engine.enter("tea", f"{engine.node}/1", None)
            await engine.publish("tea", RoomMessage.of("x"), (), None, None)
            proxy.cut()
            await until(lambda: not engine.statistics().up)
            assert await engine.count("tea") == 1
            await redis.command("SET", "count:{r/milk}:w", "no hash")
            with pytest.raises(RoomUnavailable, match="cannot count: WRONGTYPE"):
                await engine.count("milk")


async def test_whatever_is_cancelled_leaves_nothing_behind(redis: RedisServer) -> None:
    engine = RedisEngine(redis.url, prefix="cancel")
    async with engine.run():
        engine.subscribe("tea", Member())
        position = await engine.publish("tea", RoomMessage.of("1:1"), (), None, None)

        async def publish() -> None:
            await engine.publish("tea", RoomMessage.of("x"), (), None, None)

        async def history() -> None:
            await engine.history("tea", position, None)

        async def count() -> None:
            await engine.count("tea")

        assert (await cancel_everywhere(publish)).points
        assert (await cancel_everywhere(history)).points
        assert (await cancel_everywhere(count)).points
        assert engine.statistics().queued == 0
        await publish()
        await history()


async def test_an_engine_runs_once_at_a_time_and_can_run_again(redis: RedisServer) -> None:
    engine = RedisEngine(redis.url)
    for _ in range(2):
        async with engine.run():
            with pytest.raises(RuntimeError, match="runs already"):
                async with engine.run():
                    pass
            await engine.publish("tea", RoomMessage.of("x"), (), None, None)
        assert "down" in repr(engine)


async def test_what_is_queued_when_the_program_ends_is_stored(redis: RedisServer) -> None:
    engine = RedisEngine(redis.url, prefix="end")
    with trio.CancelScope() as scope:
        async with engine.run():
            for number in range(500):
                engine.broadcast("tea", RoomMessage.of(f"{number}"), (), None)
            scope.cancel()
    state = await redis.command("HGET", "end:{r/tea}:m", "s")
    assert b" 500 " in state


async def test_a_call_over_a_connection_that_was_given_up_changes_no_presence(
    redis: RedisServer,
) -> None:
    names, script = Names("ws"), Script.load("presence").text.decode()
    room = names.room("tea")
    keys = [key.decode() for key in (names.members(room), names.connection_of(b"n"), names.rooms_of(b"n"))]

    async def tell(connection: int, stays: str, *changes: str) -> None:
        await redis.command("EVAL", script, "3", *keys, room.decode(), "n", str(connection), stays, *changes)

    await tell(1, "+", "E", "n/1", "1")
    await tell(2, "+", "E", "n/1", "2")
    await tell(1, "-", "E", "n/1", "1")  # it was on its way all the time
    assert b"1 2" in await redis.command("HGET", keys[0], "n/1")
    assert room in await redis.command("SMEMBERS", keys[2])
    await tell(2, "-", "L", "n/1", "")
    await tell(1, "+", "E", "n/1", "1")
    assert b"n/1" not in await redis.command("HKEYS", keys[0])
    assert room not in await redis.command("SMEMBERS", keys[2])
    await tell(3, "+", "E", "n/2", "1")
    assert b"n/2" in await redis.command("HKEYS", keys[0])
