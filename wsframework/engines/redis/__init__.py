"""Rooms across processes and machines on Redis or Valkey. It needs the extra `redis`."""

from wsframework.engines.redis.counters import RedisStatistics
from wsframework.engines.redis.engine import RedisEngine

__all__ = ["RedisEngine", "RedisStatistics"]
