"""A chat whose Redis or whose connection to it fails: acknowledged or refused, and never silently lost."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.chat.people import Person, texts
from tests.chat.redis.talking import Talker, check, talking, until_people
from tests.chat.serving import Peer, connect
from tests.engines.redis.redis_server import Proxy, RedisServer
from tests.waiting import until

pytestmark = pytest.mark.slow

DURABLE = (("appendonly", "yes"), ("appendfsync", "always"))


async def survive(hurt: Any, redis: RedisServer, *proxies: Proxy, seconds: float = 2.0) -> list[Talker]:
    """Talk while something is hurt, and check that what was acknowledged is there, once, for everybody."""
    urls = [proxy.url for proxy in proxies] or [redis.url]
    async with talking(*urls, lease=2.0, outage=1.0, timeout=1.0) as workers:

        async def come() -> Peer:
            server = random.choice((workers.first, workers.second))
            return await connect(server, "/ws/chat", subprotocol="superchat")

        talkers = [Talker(f"t{number}", come) for number in range(4)]
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            for talker in talkers:
                nursery.start_soon(talker.run, stop)
            await trio.sleep(seconds / 4)
            await hurt()
            await trio.sleep(seconds / 2)
            counts = {talker: len(talker.acknowledged) for talker in talkers}
            await until(lambda: all(len(talker.acknowledged) > count + 2 for talker, count in counts.items()))
            stop.set()
        await check(talkers, await Person.come(workers.first, "late", "lobby"))
        return talkers


async def test_cut_connections_cost_no_message(redis: RedisServer) -> None:
    async with Proxy(redis.port).running() as one, Proxy(redis.port).running() as two:

        async def hurt() -> None:
            for _ in range(8):
                random.choice((one, two)).cut()
                await trio.sleep(0.1)

        talkers = await survive(hurt, redis, one, two)
        assert [talker.anew for talker in talkers] == [0] * 4


async def test_a_redis_that_is_killed_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    async with RedisServer(tmp_path / "redis", *DURABLE).running() as redis:

        async def hurt() -> None:
            redis.kill()
            await trio.sleep(2.5)  # longer than the outage: messages are refused, and said again
            await redis.start()

        talkers = await survive(hurt, redis)
        assert [talker.anew for talker in talkers] == [0] * 4


async def test_a_redis_that_hangs_costs_no_message(tmp_path: Path) -> None:
    async with RedisServer(tmp_path / "redis", *DURABLE).running() as redis:

        async def hurt() -> None:
            redis.freeze()
            await trio.sleep(1.5)
            redis.thaw()

        await survive(hurt, redis)


async def test_a_worker_that_is_cut_off_for_longer_than_its_lease_loses_nothing(
    redis: RedisServer,
) -> None:
    async with Proxy(redis.port).running() as one, Proxy(redis.port).running() as two:

        async def hurt() -> None:
            one.swallow = True
            await trio.sleep(3.0)
            one.swallow = False

        await survive(hurt, redis, one, two)


async def test_while_redis_is_away_messages_are_refused_and_the_chat_comes_back_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        RedisServer(tmp_path / "redis", *DURABLE).running() as redis,
        talking(redis.url, outage=0.3) as workers,
    ):
        ada = await Person.come(workers.first, "Ada", "lobby")
        bob = await Person.come(workers.second, "Bob", "lobby")
        await ada.ask("say", room="lobby", text="before")
        assert "lose messages" not in caplog.text
        redis.kill()
        for request in (
            {"type": "say", "text": "during", "key": "k"},
            {"type": "history", "before": 9},
            {"type": "people"},
        ):
            assert (await ada.ask(room="lobby", **request))["code"] == "storage"
        assert (await ada.ask("rooms"))["code"] == "storage"
        assert (await ada.ask("name", name="Grace"))["code"] == "storage"
        assert (await ada.ask("typing", room="lobby", on=True))["type"] == "ok"
        # Whoever comes now is told to try again later.
        late = Person(await connect(workers.first, "/ws/chat", subprotocol="superchat"))
        await late.send({"type": "hello", "id": 1, "version": 1, "name": "Late"})
        await late.peer.read_to_end()
        assert late.peer.closed is not None
        assert late.peer.closed.code == 1013
        await redis.start()
        with trio.fail_after(10):
            said = {"room": "lobby", "text": "during", "key": "k"}
            while (await ada.ask("say", **said))["type"] != "said":  # noqa: ASYNC110 - it is elsewhere
                await trio.sleep(0.05)
        assert await bob.hear(2) == [("Ada", "before"), ("Ada", "during")]
        await until_people(bob, "lobby", "Ada", "Bob")
        newcomer = await Person.come(workers.second, "Late")
        assert texts(await newcomer.ask("join", room="lobby")) == ["before", "during"]


@pytest.mark.parametrize("lags", [False, True])
async def test_a_failover_is_told_to_clients_if_and_only_if_it_lost_messages(
    tmp_path: Path, lags: bool
) -> None:
    async with (
        RedisServer(tmp_path / "master").running() as master,
        RedisServer(tmp_path / "replica").running() as replica,
        Proxy(master.port).running() as proxy,
    ):
        await replica.command("REPLICAOF", "127.0.0.1", str(master.port))
        async with talking(proxy.url, outage=3.0) as workers:
            ada = await Person.come(workers.first, "Ada")
            bob = await Person.come(workers.second, "Bob", "lobby")
            log = (await ada.ask("join", room="lobby"))["log"]
            await ada.ask("say", room="lobby", text="kept")
            await until_replicated(master, replica, workers.key("log"))
            if lags:
                await replica.command("REPLICAOF", "NO", "ONE")
            last = await ada.ask("say", room="lobby", text="newest")
            assert last["type"] == "said"
            if not lags:
                await until_replicated(master, replica, workers.key("log"))
                await replica.command("REPLICAOF", "NO", "ONE")
            proxy.target = replica.port
            master.kill()
            if not lags:
                assert (await ada.ask("say", room="lobby", text="after"))["type"] == "said"
                assert await bob.hear(3) == [("Ada", "kept"), ("Ada", "newest"), ("Ada", "after")]
                await until_people(bob, "lobby", "Ada", "Bob")
                return
            for person in (ada, bob):
                await person.peer.read_to_end()
                assert person.peer.closed is not None
                assert person.peer.closed.code == 1013
            back = await Person.come(workers.second, "Ada", token=ada.token)
            joined = await back.ask("join", room="lobby", after=last["message"], log=log)
            assert (joined["complete"], texts(joined)) == (False, ["kept"])
            # No id is given to two messages.
            said = await back.ask("say", room="lobby", text="after")
            assert said["message"] > last["message"]


async def until_replicated(master: RedisServer, replica: RedisServer, log: str) -> None:
    """Wait until a replica has the newest message."""
    newest = await master.command("HGET", log, "id")
    with trio.fail_after(20):
        while await replica.command("HGET", log, "id") != newest:  # noqa: ASYNC110 - it is elsewhere
            await trio.sleep(0.02)
