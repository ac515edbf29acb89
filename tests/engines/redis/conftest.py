"""One Redis server for the tests that do not hurt it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from tests.engines.redis.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Give a server without persistence."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    trio.run(server.start)
    yield server
    server.kill()
