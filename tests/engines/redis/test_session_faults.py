"""What a Redis, or the way to it, can do to sessions: each fault happens while clients resume and save.

The invariants, for each client:

    S1  its session can be resumed at every node, with the token that it has
    S2  it finds what it has saved last; or a later change of which it was not told whether it was stored
    S3  the connection that has the session is not told that it was taken
    S4  every connection that had it is told in the end
"""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.engines.redis.redis_server import Proxy, RedisServer
from tests.engines.redis.stage import SECONDS, SEED
from tests.engines.redis.test_faults import (
    cut_one,
    delay_all,
    flush_scripts,
    freeze,
    kill_and_restart,
    kill_clients,
    nothing,
    run_out_of_memory,
    swallow_one,
)
from tests.waiting import until
from wsframework import ConfigurationError, SessionClaim, SessionStore, SessionUnavailable
from wsframework.engines.redis import RedisEngine, RedisSessionStore

CLIENTS = 10

_numbers = itertools.count()


@attrs.define
class SessionStage:
    """A server, three nodes with a proxy each, and a source of chance: what the faults need."""

    server: RedisServer
    proxies: list[Proxy]
    stores: list[RedisSessionStore]
    random: random.Random

    @property
    def talk(self) -> Any:
        return self


class Visitor:
    """A client that connects to one node after the other."""

    def __init__(self, stage: SessionStage) -> None:
        self._stage = stage
        self._id = secrets.token_urlsafe(16)
        self._secret = ""
        self._possible: set[bytes] = set()
        self._former: list[SessionClaim] = []
        self.visits = 0

    async def visit(self, until_time: float) -> None:
        """Come and go until a time, and then once more."""
        while trio.current_time() < until_time:
            await self._connect(self._stage.random.choice(self._stage.stores))
        with trio.fail_after(30):
            visits = self.visits
            while self.visits == visits:
                await self._connect(self._stage.random.choice(self._stage.stores))

    async def _connect(self, store: SessionStore) -> None:
        secret = f"secret-{next(_numbers)}"
        claim = SessionClaim(self._id, "Ada", secret, window=60.0, overlap=60.0, body=b"new")
        try:
            if self._secret:
                assert await store.resume(claim, self._secret), f"S1 seed {SEED}"
                assert claim.body in self._possible, f"S2 seed {SEED}: {claim.body!r}, {self._possible}"
            else:
                await store.create(claim)
            self._possible, self._secret = {claim.body}, secret
            for _ in range(self._stage.random.randrange(4)):
                await self._save(store, claim)
            await store.confirm(claim)
        except SessionUnavailable:
            await trio.sleep(0.05)
        assert not claim.taken, f"S3 seed {SEED}"
        if claim.generation:
            self.visits += 1
            self._leave(store, claim)

    async def _save(self, store: SessionStore, claim: SessionClaim) -> None:
        body = b"%d" % next(_numbers)
        try:
            await store.save(claim, body)
        except SessionUnavailable as error:
            if error.unknown:
                self._possible.add(body)
        else:
            self._possible = {body}

    def _leave(self, store: SessionStore, claim: SessionClaim) -> None:
        if self._stage.random.random() < 0.5:
            store.release(claim)
        else:
            self._former.append(claim)  # the client is gone without a word

    async def judge(self) -> None:
        """The newest claim may still have the session; all before it were told."""
        newest = max((claim.generation for claim in self._former), default=0)
        await until(lambda: all(claim.taken for claim in self._former if claim.generation < newest))


@asynccontextmanager
async def run_patiently(engine: RedisEngine) -> AsyncIterator[None]:
    """Run an engine whose timeout is short for a machine that is busy."""
    async with AsyncExitStack() as stack:
        for left in reversed(range(10)):
            try:
                await stack.enter_async_context(engine.run())
            except ConfigurationError:
                if not left:
                    raise
            else:
                break
        yield


async def suffer(
    folder: Path, fault: Callable[[Any], Awaitable[None]], *options: tuple[str, str]
) -> list[Visitor]:
    server = RedisServer(folder, *options)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(server.running())
        proxies, stores = [], []
        for _ in range(3):
            proxy = Proxy(server.port)
            await stack.enter_async_context(proxy.running())
            engine = RedisEngine(proxy.url, timeout=1.0, outage=5.0)
            store = RedisSessionStore(engine)
            await stack.enter_async_context(run_patiently(engine))
            await stack.enter_async_context(store.run())
            proxies.append(proxy)
            stores.append(store)
        stage = SessionStage(server, proxies, stores, random.Random(SEED))
        visitors = [Visitor(stage) for _ in range(CLIENTS)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fault, stage)
            for visitor in visitors:
                nursery.start_soon(visitor.visit, trio.current_time() + SECONDS)
        for visitor in visitors:
            await visitor.judge()
    return visitors


@pytest.mark.parametrize(
    "fault",
    [
        nothing,
        kill_clients,
        cut_one,
        swallow_one,
        delay_all,
        freeze,
        flush_scripts,
        run_out_of_memory,
    ],
    ids=lambda fault: fault.__name__,
)
async def test_a_fault_loses_no_session(fault: Callable[[Any], Awaitable[None]], tmp_path: Path) -> None:
    visitors = await suffer(tmp_path, fault)
    assert all(visitor.visits > 1 for visitor in visitors)


async def test_a_server_that_is_killed_and_has_written_everything_loses_no_session(tmp_path: Path) -> None:
    await suffer(tmp_path, kill_and_restart, ("appendonly", "yes"), ("appendfsync", "always"))
