"""RedisEngine keeps the contract of engines, alone and as three nodes of one Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.engines.redis.redis_server import RedisServer
from wsframework import Engine
from wsframework.engines.redis import RedisEngine
from wsframework.testing import EngineContract


class _OnRedis(EngineContract):
    nodes = 1

    @pytest.fixture(autouse=True)
    def _server(self, redis: RedisServer) -> None:
        self.url = redis.url

    @asynccontextmanager
    async def engines(self) -> AsyncIterator[Sequence[Engine]]:
        engines = [RedisEngine(self.url) for _ in range(self.nodes)]
        async with AsyncExitStack() as stack:
            for engine in engines:
                await stack.enter_async_context(engine.run())
            yield engines


class TestOneNode(_OnRedis):
    """One process."""


class TestThreeNodes(_OnRedis):
    """Three processes, as far as Redis can tell."""

    nodes = 3
