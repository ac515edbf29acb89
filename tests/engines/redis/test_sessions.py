"""Sessions in Redis: the contract, alone and as three nodes, and what only Redis can do to them."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.docs.snippets import DOCS, files
from tests.engines.redis.redis_server import Proxy, RedisServer
from tests.waiting import until
from wsframework import ConfigurationError, SessionClaim, Sessions, SessionStore, SessionUnavailable
from wsframework.engines.redis import RedisEngine, RedisSessionStore
from wsframework.testing import SessionStoreContract, cancel_everywhere, connection_pair


@asynccontextmanager
async def running(url: str, outage: float = 5.0, prefix: str = "ws") -> AsyncIterator[RedisSessionStore]:
    engine = RedisEngine(url, timeout=5.0, outage=outage, prefix=prefix)
    store = RedisSessionStore(engine)
    async with engine.run(), store.run():
        yield store


class _OnRedis(SessionStoreContract):
    nodes = 1

    @pytest.fixture(autouse=True)
    def _server(self, redis: RedisServer) -> None:
        self.url = redis.url

    @asynccontextmanager
    async def stores(self) -> AsyncIterator[Sequence[SessionStore]]:
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(running(self.url)) for _ in range(self.nodes)]


class TestOneNode(_OnRedis):
    """One process."""


class TestThreeNodes(_OnRedis):
    """Three processes, as far as Redis can tell."""

    nodes = 3


class Told(SessionClaim):
    """A claim that notes whether it was told that it was taken."""

    def __init__(
        self, id: str | None = None, secret: str = "one", body: bytes = b"0", window: float = 60.0
    ) -> None:
        id = id or secrets.token_urlsafe(16)
        super().__init__(id, "Ada", secret, window=window, overlap=30.0, body=body)
        self.told = 0
        self.on_taken = self._note

    def _note(self) -> None:
        self.told += 1

    @property
    def key(self) -> str:
        return f"ws:{{s/{self.id}}}"


async def until_answer(server: RedisServer, answer: bytes, *words: str) -> None:
    with trio.fail_after(10):
        while await server.command(*words) != answer:  # noqa: ASYNC110
            await trio.sleep(0.01)


# What is stored


async def test_redis_gets_no_token_and_no_name_of_a_user(redis: RedisServer) -> None:
    async with (
        running(redis.url) as store,
        connection_pair() as (ws, _),
        Sessions(store=store).open(ws, None, user="ada@example.org") as session,
    ):
        stored = await redis.command("GET", f"ws:{{s/{session.id}}}")
        assert session.token.split(".")[1].encode() not in stored
        assert b"ada" not in stored
        assert b'"rooms":[]' in stored


async def test_a_record_lives_half_as_long_again_while_it_is_held_and_then_its_window(
    redis: RedisServer,
) -> None:
    async with running(redis.url) as store:
        claim = Told(window=99)
        await store.create(claim)
        await store.save(claim, b"1")
        assert await redis.command("TTL", claim.key) == b":149\r\n"
        store.release(claim)
        await until_answer(redis, b":99\r\n", "TTL", claim.key)
        again = Told(claim.id, "two", window=33)
        assert await store.resume(again, "one")
        assert await redis.command("TTL", claim.key) == b":50\r\n"
        store.release(claim)  # has no effect now
        await store.end(again)
        assert await redis.command("EXISTS", claim.key) == b":0\r\n"


async def test_many_sessions_that_are_held_stay(redis: RedisServer) -> None:
    """More than one call touches."""
    async with running(redis.url) as store:
        claims = [Told(window=1) for _ in range(250)]
        for claim in claims:
            await store.create(claim)
        await trio.sleep(2.5)
        for claim in claims:
            await store.save(claim, b"1")


async def test_a_cancelled_create_leaves_no_record(redis: RedisServer) -> None:
    async with running(redis.url) as store:
        claims: list[Told] = []

        async def create() -> None:
            claims.append(Told())
            await store.create(claims[-1])
            made.append(claims[-1])

        made: list[Told] = []
        assert (await cancel_everywhere(create)).cancelled
        for claim in claims:
            assert await redis.command("EXISTS", claim.key) == b":%d\r\n" % (claim in made)


async def test_the_rights_of_the_page_on_redis_suffice(redis: RedisServer) -> None:
    rights = files(DOCS / "howto" / "redis.md")["rooms.acl"].replace("ws:*", "acl:*").split()
    await redis.command("ACL", "SETUSER", *rights[1:])
    url = redis.url.replace("//", "//rooms:secret@")
    async with running(url, prefix="acl") as one, running(url, prefix="acl") as two:
        first, second = Told(), Told()
        await one.create(first)
        second.id = first.id
        assert await two.resume(second, "one")
        await two.save(second, b"1")
        await two.confirm(second)
        await until(lambda: first.told == 1)
        await two.end(second)


# What may happen to Redis, or to the way to it


async def test_connections_that_are_cut_lose_nothing_that_was_saved_and_take_nothing(
    redis: RedisServer,
) -> None:
    proxy = Proxy(redis.port)
    async with proxy.running(), running(proxy.url) as store:
        claim = Told()
        await store.create(claim)

        async def cut(after: float) -> None:
            await trio.sleep(after)
            proxy.cut()

        for number in range(100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cut, 0.0001 * number)
                await store.save(claim, b"%d" % number)
                await store.confirm(claim)
        again = Told(claim.id, "two")
        assert await store.resume(again, "one")
        assert again.body == b"99"
        assert again.generation == 2
        await until(lambda: claim.told == 1)


async def test_a_step_that_is_done_again_has_no_further_effect(redis: RedisServer) -> None:
    """A server that hung may still do what was sent over a connection that was given up."""
    async with running(redis.url) as store:
        claim, first, second = Told(), Told(), Told()
        first.id = second.id = claim.id
        first.secret, second.secret = "two", "three"
        await store.create(claim)
        await store.create(claim)
        assert await store.resume(first, "one")
        assert await store.resume(first, "one")
        assert first.generation == 2
        assert await store.resume(second, "one")
        # The copy of a resume whose session was taken since takes nothing.
        assert not await store.resume(first, "one")
        for body in (b"new", b"newer"):
            await store.save(second, body)
        await store._store(store._claims[second.tag], 1, b"new")
        third = Told(claim.id, "four")
        assert await store.resume(third, "three")
        assert (third.body, third.generation, second.told, first.told) == (b"newer", 4, 1, 1)


async def test_who_could_not_hear_that_its_session_was_taken_hears_it_later(redis: RedisServer) -> None:
    proxy = Proxy(redis.port)
    async with proxy.running(), running(proxy.url) as cut_off, running(redis.url) as other:
        old, new = Told(), Told()
        new.id = old.id
        await cut_off.create(old)
        port, proxy.target = proxy.target, 1
        proxy.cut()
        await trio.sleep(0.1)
        assert await other.resume(new, "one")
        assert old.told == 0
        proxy.target = port
        await until(lambda: old.told == 1)
        await cut_off.save(old, b"late")
        await other.save(new, b"mine")
        assert new.told == 0


async def test_a_server_that_is_away_is_waited_for(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, ("appendonly", "yes"), ("appendfsync", "always"))
    async with server.running(), running(server.url) as store:
        claim = Told()
        await store.create(claim)
        server.kill()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.save, claim, b"1")
            await trio.sleep(0.3)
            await server.start()
        assert await store.resume(Told(claim.id, "two"), "one")


async def test_a_server_that_stays_away_is_an_error_and_was_not_reached(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    async with server.running(), running(server.url, outage=0.3) as store:
        claim = Told()
        await store.create(claim)
        server.kill()
        await trio.sleep(0.2)
        for step in (store.create(Told()), store.resume(Told(claim.id), "one"), store.save(claim, b"1")):
            with pytest.raises(SessionUnavailable, match=r"did not do it within 0\.3 s: ") as caught:
                await step
            assert not caught.value.unknown
        store.release(claim)


async def test_a_server_that_hangs_may_have_done_it(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    async with server.running(), running(server.url, outage=0.3) as store:
        claim = Told()
        await store.create(claim)
        server.freeze()
        with pytest.raises(SessionUnavailable) as caught:
            await store.save(claim, b"1")
        assert caught.value.unknown
        server.thaw()
        await trio.sleep(1)
        await store.save(claim, b"2")
        again = Told(claim.id, "two")
        assert await store.resume(again, "one")
        assert again.body == b"2"


async def test_what_was_on_its_way_when_the_server_went_may_have_been_done(redis: RedisServer) -> None:
    proxy = Proxy(redis.port)
    async with proxy.running(), running(proxy.url, outage=0.3) as store:
        claim = Told()
        await store.create(claim)
        proxy.swallow = True

        async def go() -> None:
            await trio.sleep(0.1)
            proxy.target = 1
            proxy.cut()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(go)
            with pytest.raises(SessionUnavailable) as caught:
                await store.save(claim, b"1")
        assert caught.value.unknown


async def test_a_server_without_memory_refuses_and_changes_nothing(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    async with server.running(), running(server.url) as store:
        claim = Told()
        await store.create(claim)
        await server.command("CONFIG", "SET", "maxmemory", "1")
        for step in (store.create(Told()), store.resume(Told(claim.id, "x"), "one"), store.save(claim, b"1")):
            with pytest.raises(SessionUnavailable, match=r"Redis refuses it: .*OOM") as caught:
                await step
            assert not caught.value.unknown
        await server.command("CONFIG", "SET", "maxmemory", "0")
        again = Told(claim.id, "two")
        assert await store.resume(again, "one")
        assert (again.body, again.generation) == (b"0", 2)


async def test_a_flushed_server_has_lost_the_sessions_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path)
    async with server.running(), running(server.url) as store:
        claims = [Told(window=1) for _ in range(3)]
        for claim in claims:
            await store.create(claim)
        await server.command("FLUSHALL")
        with pytest.raises(SessionUnavailable, match=r"Redis has lost the session .*, or it was ended"):
            await store.save(claims[0], b"1")

        def lost() -> int:
            return sum(map(int, re.findall(r"redis.sessions_lost sessions=(\d)", caplog.text)))

        await until(lambda: lost() >= 2)  # the one that was saved may be the third
        for claim in claims:
            assert not await store.resume(Told(claim.id), "one")
            with pytest.raises(SessionUnavailable, match="has lost"):
                await store.save(claim, b"1")
            store.release(claim)
        assert sum(claim.told for claim in claims) == 0
        assert await server.command("DBSIZE") in (b":0\r\n", b":1\r\n")  # the nodes


async def test_what_a_failover_has_lost_is_stored_again(redis: RedisServer) -> None:
    """A replica that was behind has an older state of the session, perhaps of before it was taken."""
    async with running(redis.url) as store:
        old, holder, taken = Told(), Told(), Told()
        holder.id = taken.id = old.id
        holder.secret = taken.secret = "two"

        async def lose(now: str, expected: str) -> None:
            await redis.command("SET", old.key, now)
            await redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            with trio.fail_after(10):
                while not re.match(expected, await state()):  # noqa: ASYNC110
                    await trio.sleep(0.01)

        async def state() -> str:
            return (await redis.command("GET", old.key)).decode().partition("\r\n")[2].removesuffix("\r\n")

        await store.create(old)
        created = await state()
        assert await store.resume(holder, "one")
        resumed = await state()
        # It is lost that the session was taken, then its newest save, then both.
        await lose(created, r"2 0 .*\n0$")
        await store.save(holder, b"1")
        await lose(resumed, r"2 1 .*\n1$")
        await lose(created, r"2 1 .*\n1$")
        # And again, noticed by a write.
        await redis.command("SET", old.key, created)
        await store.confirm(holder)
        assert holder.told == 0
        assert await store.resume(taken, "two")
        assert (taken.body, taken.generation) == (b"1", 3)


async def test_a_key_that_holds_something_else_hurts_its_session_only(redis: RedisServer) -> None:
    async with running(redis.url) as store:
        claim, other = Told(window=1), Told(window=1)
        await store.create(claim)
        await store.create(other)
        await redis.command("SET", claim.key, "something else")
        with pytest.raises(SessionUnavailable, match="the key holds no session"):
            await store.save(claim, b"1")
        assert not await store.resume(Told(other.id), "x")
        await redis.command("DEL", claim.key)
        await redis.command("HSET", claim.key, "something", "else")
        with pytest.raises(SessionUnavailable, match="WRONGTYPE"):
            await store.resume(Told(claim.id), "one")
        await trio.sleep(2.5)
        await store.save(other, b"1")


# Mistakes


async def test_a_store_that_does_not_run_says_so(redis: RedisServer) -> None:
    engine = RedisEngine(redis.url)
    store = RedisSessionStore(engine)
    async with engine.run():
        for step in (store.create(Told()), store.resume(Told(), "one")):
            with pytest.raises(
                ConfigurationError, match=r"write app.install\(sessions\) before the app serves"
            ):
                await step
    async with store.run():
        with pytest.raises(ConfigurationError, match=r"write app.install\(engine\)"):
            await store.create(Told())
        with pytest.raises(RuntimeError, match="runs already"):
            async with store.run():
                pass
