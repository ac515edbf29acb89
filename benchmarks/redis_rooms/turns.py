"""The two turns that every contender takes: what a message costs, and how long it takes at a steady rate."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import attrs

from benchmarks.frames import Failed
from benchmarks.process import Server
from benchmarks.redis_rooms.client import Peer, join, pump
from benchmarks.redis_rooms.fleet import Redis, SharedContender, servers

__all__ = ["Cost", "Latency", "Meter", "take"]

ROOM = "tea"
FILLING = "x" * 48
IN_FLIGHT = 32


@attrs.frozen
class Cost:
    """CPU time in microseconds for each message that was published."""

    publisher_us: float
    subscriber_us: float
    redis_us: float
    messages_per_second: float


@attrs.frozen
class Latency:
    """Milliseconds from the publisher's send to a member's receive, at a steady rate."""

    p50_ms: float
    p99_ms: float


class Meter:
    """The CPU time of servers and of Redis since the meter was made, or was reset."""

    def __init__(self, redis: Redis, *groups: Server) -> None:
        self._redis, self._servers = redis, groups
        self._pids = [server.pids() for server in groups]
        self.reset()

    def reset(self) -> None:
        self._at = time.perf_counter()
        self._before = self._now()

    def _now(self) -> list[float]:
        each = zip(self._servers, self._pids, strict=True)
        return [*(server.cpu_seconds(pids) for server, pids in each), self._redis.cpu_seconds()]

    def read(self) -> list[float]:
        """Return the seconds of each server, and of Redis."""
        return [now - then for now, then in zip(self._now(), self._before, strict=True)]

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self._at


def take(
    contender: SharedContender, redis: Redis, members: int, seconds: float, rate: float
) -> tuple[Cost, Latency | None]:
    """Take one turn with new processes: one publishes, the other has the members."""
    with servers(contender, redis, 2) as (publishing, subscribed):
        dialect = contender.dialect
        peers = join(publishing.port, dialect, [None]) + join(subscribed.port, dialect, [ROOM] * members)
        time.sleep(0.3)  # some adapters tell the other process of the members
        try:
            cost = _cost(contender, redis, publishing, subscribed, peers, seconds)
            try:
                return cost, _latency(contender, peers, seconds, rate)
            except Failed:  # it cannot keep up with the rate
                return cost, None
        finally:
            for peer in peers:
                peer.close()


def _cost(
    contender: SharedContender,
    redis: Redis,
    publishing: Server,
    subscribed: Server,
    peers: list[Peer],
    seconds: float,
) -> Cost:
    """Keep messages in flight: one more leaves whenever the last member has got one."""
    publisher, last = peers[0], peers[-1]
    heard = 0

    def say(_: str = "") -> None:
        publisher.send(contender.dialect.say(ROOM, FILLING))

    def again(text: str) -> None:
        nonlocal heard
        heard += 1
        say()

    last.on_text = again
    for _ in range(IN_FLIGHT):
        say()
    pump(peers, _after(min(1.0, seconds)))
    meter, heard = Meter(redis, publishing, subscribed), 0
    pump(peers, _after(seconds))
    used, elapsed, counted = meter.read(), meter.elapsed, heard
    owed = IN_FLIGHT

    def settle(text: str) -> None:
        nonlocal owed
        owed -= 1

    last.on_text = settle
    pump(peers, lambda: owed <= 0)
    publisher_us, subscriber_us, redis_us = (1e6 * part / counted for part in used)
    return Cost(publisher_us, subscriber_us, redis_us, counted / elapsed)


def _latency(contender: SharedContender, peers: list[Peer], seconds: float, rate: float) -> Latency:
    """Send on a schedule, whatever comes back, and time each message."""
    publisher, last = peers[0], peers[-1]
    total = int(rate * seconds)
    sent: list[float] = []
    taken: list[float] = []

    def heard(text: str) -> None:
        taken.append(time.perf_counter() - sent[int(text.split()[0])])

    last.on_text = heard
    began = time.perf_counter()

    def tick() -> float:
        now = time.perf_counter()
        while len(sent) < total and began + len(sent) / rate <= now:
            publisher.send(contender.dialect.say(ROOM, f"{len(sent)} {FILLING}"))
            sent.append(time.perf_counter())
        return max(0.0, began + len(sent) / rate - now) if len(sent) < total else 0.1

    pump(peers, lambda: len(taken) >= total, tick)
    cuts = statistics.quantiles(taken, n=100)
    return Latency(1e3 * statistics.median(taken), 1e3 * cuts[98])


def _after(seconds: float) -> Callable[[], bool]:
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= end
