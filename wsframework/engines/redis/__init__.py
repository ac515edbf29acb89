"""Rooms and sessions across processes and machines on Redis or Valkey. It needs the extra `redis`."""

from wsframework.engines.redis.codec import RedisError
from wsframework.engines.redis.commands import Commands
from wsframework.engines.redis.counters import RedisStatistics
from wsframework.engines.redis.engine import RedisEngine
from wsframework.engines.redis.names import Script
from wsframework.engines.redis.publisher import Publisher
from wsframework.engines.redis.sessions import RedisSessionStore

__all__ = [
    "Commands",
    "Publisher",
    "RedisEngine",
    "RedisError",
    "RedisSessionStore",
    "RedisStatistics",
    "Script",
]
