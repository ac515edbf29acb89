"""Messages in Redis: one order for all workers, as much as is kept, and an honest word when some are lost."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.chat.people import Person
from tests.chat.redis.talking import talking
from tests.engines.redis.redis_server import Proxy, RedisServer
from tests.waiting import until
from wsframework import ConfigurationError
from wsframework.chat import Chat, HistoryError, Message, Retention
from wsframework.chat.history import MISSED_MESSAGES, PAGE_CHARS, PAGE_MESSAGES
from wsframework.chat.messages import Draft
from wsframework.chat.redis import transcript as transcripts
from wsframework.chat.redis.store import Store
from wsframework.chat.redis.transcript import SharedTranscript
from wsframework.engines.redis import RedisEngine
from wsframework.testing import cancel_everywhere


class Log:
    """One process's transcript, without a chat around it."""

    def __init__(self, url: str, prefix: str, retention: Retention) -> None:
        self.engine = RedisEngine(url, prefix=prefix, outage=2.0)
        self.published: list[Message] = []
        self.resets = 0
        store = Store(self.engine)
        self.forgotten: list[str] = []
        self.transcript = SharedTranscript(
            store, retention, self._publish, reset=self._reset, forgotten=self.forgotten.append
        )

        def heard(kind: bytes, value: bytes) -> None:
            if kind == b"said":
                self.transcript.said(value)
            else:
                self.transcript.follow()

        store.listen(self.transcript.follow, heard)

    def _publish(self, room: str, messages: list[Message]) -> None:
        assert {message.room for message in messages} == {room}
        self.published += messages

    def _reset(self) -> None:
        self.resets += 1

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.published]

    async def say(self, *said: str, room: str = "lobby", **members: Any) -> list[int]:
        return [(await self.transcript.append(Draft(room, "Ada", text, **members))).id for text in said]

    async def newest(self, room: str = "lobby") -> list[str]:
        page = await self.transcript.newest(room, upto=self.transcript.last_id)
        return [message.text for message in page.messages]


@asynccontextmanager
async def logs(*urls: str, prefix: str, retention: Retention | None = None) -> AsyncIterator[list[Log]]:
    """Run a transcript for each URL, as many processes would."""
    made = [Log(url, prefix, retention or Retention()) for url in urls]
    async with _running(made), trio.open_nursery() as nursery:
        for log in made:
            await nursery.start(log.transcript.run)
        try:
            with trio.fail_after(20):
                yield made
        finally:
            for log in made:
                log.transcript.stop()


@asynccontextmanager
async def _running(made: list[Log]) -> AsyncIterator[None]:
    if not made:
        yield
        return
    async with made[0].engine.run(), _running(made[1:]):
        yield


async def forgotten(redis: RedisServer, prefix: str, id: int) -> bool:
    return await redis.command("HEXISTS", f"{prefix}:{{chat}}:messages", str(id)) == b":0\r\n"


# Order


async def test_all_processes_publish_all_messages_in_one_order(redis: RedisServer) -> None:
    async with logs(redis.url, redis.url, prefix="order") as (one, two):
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(one.say, f"a{number}")
                nursery.start_soon(two.say, f"b{number}")
        await until(lambda: len(one.published) == len(two.published) == 100)
        assert one.published == two.published
        assert [message.id for message in one.published] == list(range(1, 101))


async def test_a_message_is_published_before_it_is_acknowledged(redis: RedisServer) -> None:
    async with logs(redis.url, prefix="before") as (log,):
        for text in ("one", "two"):
            (id,) = await log.say(text)
            assert log.published[-1].id == id == log.transcript.last_id


async def test_a_key_makes_one_message_of_many_in_all_processes(redis: RedisServer) -> None:
    async with logs(redis.url, redis.url, prefix="keys") as (one, two):
        ids = [(await log.say("once", key="k", sender="ada"))[0] for log in (one, two, one)]
        assert ids == [1, 1, 1]
        assert await two.say("hers", key="k", sender="eve") == [2]
        assert await two.say("elsewhere", key="k", sender="ada", room="tea") == [3]
        await until(lambda: one.texts == two.texts == ["once", "hers", "elsewhere"])


async def test_a_message_without_a_key_is_stored_once_though_its_answer_is_lost(redis: RedisServer) -> None:
    async with Proxy(redis.port).running() as proxy, logs(proxy.url, prefix="nokey") as (log,):
        proxy.delay = 0.05
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(log.say, str(number))
            for _ in range(5):
                await trio.sleep(0.08)
                proxy.cut()
            proxy.delay = 0
        await until(lambda: len(log.texts) >= 20)
        assert sorted(log.texts, key=int) == [str(number) for number in range(20)]


async def test_a_process_that_was_cut_off_publishes_what_it_missed_in_order(redis: RedisServer) -> None:
    async with Proxy(redis.port).running() as proxy, logs(redis.url, proxy.url, prefix="cut") as (one, two):
        proxy.swallow = True
        proxy.cut()
        await one.say(*map(str, range(700)))  # more than are read at once
        proxy.swallow = False
        await two.say("after")
        await until(lambda: one.published == two.published)
        assert two.texts == [*map(str, range(700)), "after"]
        assert two.resets == 0


async def test_a_client_that_comes_from_a_process_that_is_ahead_is_waited_for(redis: RedisServer) -> None:
    async with Proxy(redis.port).running() as proxy, logs(redis.url, proxy.url, prefix="ahead") as (one, two):
        proxy.delay = 0.2
        (id,) = await one.say("first")
        assert two.transcript.last_id == 0
        await two.transcript.reach(id)
        assert two.transcript.last_id == id
        await two.transcript.reach(2**53 - 1)  # no such message: it is not waited for


async def test_who_is_not_known_by_the_name_says_nothing(redis: RedisServer) -> None:
    async with logs(redis.url, prefix="unknown") as (log,):
        with pytest.raises(HistoryError, match="is not known"):
            await log.say("it is me", holder="node 1")
        assert (log.texts, log.forgotten) == ([], ["node 1"])


async def test_a_cancelled_message_is_stored_or_not_and_the_next_one_is(redis: RedisServer) -> None:
    async with logs(redis.url, prefix="cancelled") as (log,):
        assert (await cancel_everywhere(functools.partial(log.say, "maybe"))).points
        await log.say("after")
        assert log.texts[-1] == "after"
        assert [message.id for message in log.published] == list(range(1, len(log.published) + 1))


# Losses


async def test_a_log_that_redis_has_lost_is_another_one(redis: RedisServer) -> None:
    async with logs(redis.url, redis.url, prefix="lost") as (one, two):
        await one.say("gone")
        await until(lambda: two.texts == ["gone"])
        before = one.transcript.log
        for name in ("log", "messages", "room:lobby", "keys", "floors"):
            await redis.command("DEL", f"lost:{{chat}}:{name}")
        assert await one.say("new") == [1]
        await until(lambda: one.resets == two.resets == 1)
        assert before != one.transcript.log == two.transcript.log
        await one.say("more")
        await until(lambda: two.texts[-1] == "more")


async def test_ids_that_were_given_again_after_a_failover_make_another_log(redis: RedisServer) -> None:
    async with Proxy(redis.port).running() as proxy, logs(redis.url, proxy.url, prefix="fork") as (one, two):
        await one.say("kept", "lost")
        await until(lambda: two.texts == ["kept", "lost"])
        before = one.transcript.log
        # A replica without the second message has become the master.
        await redis.command("HSET", "fork:{chat}:log", "id", "1", "tag", "x", "count", "1")
        await redis.command("HDEL", "fork:{chat}:messages", "2")
        await redis.command("XDEL", "fork:{chat}:room:lobby", "2-0")
        proxy.cut()
        await until(lambda: two.resets == 1)
        assert two.transcript.log != before
        await until(lambda: one.transcript.log == two.transcript.log)
        assert one.resets == 1
        # And no id is given twice.
        assert await one.say("new") == [3]
        await until(lambda: two.texts[-1] == "new")
        assert await two.newest() == ["kept", "new"]


async def test_clients_come_back_when_their_log_is_lost_and_load_it_anew(redis: RedisServer) -> None:
    async with talking(redis.url, lease=0.6) as workers:
        ada = await Person.come(workers.first, "Ada")
        joined = await ada.ask("join", room="lobby")
        await ada.ask("say", room="lobby", text="gone")
        await redis.command("FLUSHALL")
        await ada.peer.read_to_end()
        assert ada.peer.closed is not None
        assert ada.peer.closed.code == 1013
        # The other worker may not know it yet; then it learns it now, and says nothing that is not true.
        token, again = ada.token, None
        while again is None:
            with contextlib.suppress(AssertionError):  # the connection ended
                back = await Person.come(workers.second, "Ada", token=token)
                token = back.token
                again = await back.ask("join", room="lobby", after=1, log=joined["log"])
        assert (again["complete"], again["messages"]) == (False, [])


# How much is kept


async def test_the_oldest_messages_are_forgotten_when_they_are_too_many(redis: RedisServer) -> None:
    retention = Retention(messages=5)
    async with logs(redis.url, prefix="many", retention=retention) as (log,):
        await log.say("a", "b", "c")
        await log.say("d", "e", "f", room="tea")
        assert [await log.newest(), await log.newest("tea")] == [["b", "c"], ["d", "e", "f"]]
        assert not (await log.transcript.after("lobby", 0, upto=6)).complete
        kept = await log.transcript.after("lobby", 1, upto=6)
        assert (kept.complete, [message.text for message in kept.messages]) == (True, ["b", "c"])
        assert (await log.transcript.after("tea", 0, upto=6)).complete


async def test_a_room_keeps_its_newest_messages(redis: RedisServer) -> None:
    async with logs(redis.url, prefix="room", retention=Retention(messages_per_room=2)) as (log,):
        await log.say("a", "b", "c", "d")
        await log.say("other", room="tea")
        assert [await log.newest(), await log.newest("tea")] == [["c", "d"], ["other"]]
        assert not (await log.transcript.after("lobby", 1, upto=5)).complete
        assert (await log.transcript.after("lobby", 2, upto=5)).complete


async def test_keys_are_forgotten_with_their_messages_and_nothing_else_is_left(redis: RedisServer) -> None:
    async with logs(redis.url, prefix="rest", retention=Retention(messages=1)) as (log,):
        for number in range(20):
            await log.say("x", key=f"k{number}", sender="ada", room=f"room{number}")
        assert await log.say("x", key="k0", sender="ada", room="room0") == [21]
        for name in ("messages", "keys"):
            assert await redis.command("HLEN", f"rest:{{chat}}:{name}") == b":1\r\n"
        rooms = await redis.command("KEYS", "rest:{chat}:room:*")
        assert rooms.startswith(b"*1\r\n")


async def test_messages_are_bounded_in_bytes(redis: RedisServer) -> None:
    retention = Retention(bytes=64 * 1024)
    async with logs(redis.url, prefix="bytes", retention=retention) as (log,):
        for number in range(100):
            await log.say(f"{number:04000}")
        kept = await log.newest()
        assert 8 <= len(kept) <= 16
        assert kept[-1] == f"{99:04000}"


async def test_old_messages_are_forgotten_and_the_time_by_which_a_clock_jumped_does_not_count(
    redis: RedisServer,
) -> None:
    log_key, day = "old:{chat}:log", 86_400_000

    async def pass_days(days: float) -> None:
        reply = await redis.command("HGET", log_key, "wall")
        wall = int(reply.split(b"\r\n")[1])
        await redis.command("HSET", log_key, "wall", str(wall - int(days * day)))

    async with logs(redis.url, prefix="old", retention=Retention(days=10)) as (log,):
        await log.say("old")
        for days in (400, -400, 6):  # the first two are jumps
            await pass_days(days)
            await log.say(f"{days}")
        assert (await log.newest())[0] == "old"
        await pass_days(5)
        await log.say("new")
        assert await log.newest() == ["6", "new"]


async def test_messages_are_forgotten_while_nobody_says_anything(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcripts, "_PRUNE_SECONDS", 0.05)
    async with logs(redis.url, prefix="quiet", retention=Retention(days=0.1 / 86400)) as (log,):
        await log.say("soon gone")
        with trio.fail_after(10):
            while not await forgotten(redis, "quiet", 1):  # noqa: ASYNC110 - it is elsewhere
                await trio.sleep(0.02)


async def test_floors_of_many_rooms_are_merged(redis: RedisServer) -> None:
    async with logs(redis.url, prefix="floors", retention=Retention(messages=1)) as (log,):
        many = [part for number in range(10_000) for part in (str(number + 1), f"r{number}")]
        await log.engine.commands.call("ZADD", "floors:{chat}:floors", *many)
        await log.engine.commands.call("HSET", "floors:{chat}:log", "id", 20_000)
        log.transcript.follow()
        await until(lambda: log.transcript.last_id == 20_000 or log.resets)
        await log.say("a", "b")
        assert await redis.command("ZCARD", "floors:{chat}:floors") == b":10000\r\n"
        assert not (await log.transcript.after("r0", 0, upto=log.transcript.last_id)).complete
        assert (await log.transcript.after("r0", 1, upto=log.transcript.last_id)).complete


# Pages


async def test_pages_end_where_those_of_a_database_do(redis: RedisServer) -> None:
    async with logs(redis.url, prefix="pages") as (log,):
        long = "\U0001f98a" * 4000
        await log.say(*[long] * 20)
        page = await log.transcript.newest("lobby", upto=20)
        assert (len(page.messages), page.more) == (PAGE_CHARS // 4000, True)
        missed = await log.transcript.after("lobby", 0, upto=20)
        assert (len(missed.messages), missed.complete, missed.more) == (PAGE_CHARS // 4000, True, True)
        await log.say(*map(str, range(PAGE_MESSAGES + 1)))
        page = await log.transcript.newest("lobby", upto=log.transcript.last_id)
        assert (len(page.messages), page.more) == (PAGE_MESSAGES, True)
        assert [message.text for message in page.messages] == [str(n) for n in range(1, PAGE_MESSAGES + 1)]
        assert await log.transcript.newest("nowhere", upto=9) == await log.transcript.newest("lobby", upto=-1)
        await log.say(*["x"] * (MISSED_MESSAGES + 1), room="tea")
        assert not (await log.transcript.after("tea", 0, upto=log.transcript.last_id)).complete


# Mistakes


def test_messages_are_in_redis_or_in_a_file_and_not_in_both() -> None:
    with pytest.raises(ConfigurationError, match="in one of them"):
        Chat(history="chat.db", engine=RedisEngine())


async def test_a_redis_without_memory_refuses_messages_and_logs_it_rarely(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path / "redis")
    async with server.running(), logs(server.url, prefix="full") as (log,):
        await log.say("before")
        await server.command("CONFIG", "SET", "maxmemory", "1")
        for _ in range(3):
            with pytest.raises(HistoryError, match="OOM"):
                await log.say("refused")
        assert caplog.text.count("requests are refused") == 1
        await server.command("CONFIG", "SET", "maxmemory", "0")
        assert await log.say("after") == [2]
        assert log.texts == ["before", "after"]
