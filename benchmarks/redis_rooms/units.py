"""The unit costs of rooms over Redis, from the differences of runs, and a check of what they foretell."""

from __future__ import annotations

import time

import attrs

from benchmarks.redis_rooms.client import join, pump
from benchmarks.redis_rooms.fleet import CONTENDERS, Redis, servers
from benchmarks.redis_rooms.turns import FILLING, Meter

__all__ = ["LEISURE", "LOAD", "Pace", "Spread", "Units", "check", "measure", "spread"]


@attrs.frozen
class Pace:
    """How much is going on: messages a second, in how many rooms in turn, with how many members each."""

    rate: float
    rooms: int
    members: int


LEISURE = Pace(200.0, 1, 400)
LOAD = Pace(6000.0, 300, 8)


@attrs.frozen
class Spread:
    """CPU time of a published message whose room has its members at some processes, in microseconds."""

    servers_us: float
    redis_us: float


@attrs.frozen
class Units:
    """What each part of a message costs, in microseconds of CPU, at one rate.

    At leisure each message is on its own: processes wake up for it. Under load they handle several at once.

    Attributes:
        publish: to take the message from its client and send it to Redis.
        receive: to take it from Redis, at each process that has members of the room.
        deliver: to write it to one member.
        redis_publish: to store it and tell it, in Redis.
        redis_tell: to tell it to one process, in Redis.
    """

    publish: float
    receive: float
    deliver: float
    redis_publish: float
    redis_tell: float

    def servers_us(self, processes: float, members: float) -> float:
        """Return the CPU time of all servers for a message to members at this many processes."""
        return self.publish + processes * self.receive + members * self.deliver

    def redis_us(self, processes: float) -> float:
        """Return the CPU time of Redis for it."""
        return self.redis_publish + processes * self.redis_tell


def spread(redis: Redis, processes: int, seconds: float, pace: Pace) -> Spread:
    """Publish at a steady rate to members that are spread over processes; idle work is measured before."""
    contender = CONTENDERS[0]
    rooms = [f"room{number}" for number in range(pace.rooms)]
    with servers(contender, redis, processes + 1) as started:
        dialect = contender.dialect
        publisher = join(started[0].port, dialect, [None])[0]
        peers = [publisher]
        for server in started[1:]:
            peers += join(server.port, dialect, rooms * (pace.members // processes))
        heard, said, total = 0, 0, int(pace.rate * seconds)

        def count(_: str) -> None:
            nonlocal heard
            heard += 1

        for peer in peers[1:]:
            peer.on_text = count
        began = 0.0

        def tick() -> float:
            nonlocal said
            now = time.perf_counter()
            while said < total and began + said / pace.rate <= now:
                publisher.send(dialect.say(rooms[said % len(rooms)], FILLING))
                said += 1
            return 1 / pace.rate if said < total else 0.1

        publisher.send(dialect.say(rooms[0], FILLING))
        pump(peers, lambda: heard == pace.members)
        meter = Meter(redis, *started)
        time.sleep(seconds / 2)
        idle = [used / meter.elapsed for used in meter.read()]
        heard, began = 0, time.perf_counter()
        meter.reset()
        pump(peers, lambda: heard == total * pace.members, tick)
        elapsed = meter.elapsed
        used = [used - elapsed * each for used, each in zip(meter.read(), idle, strict=True)]
        for peer in peers:
            peer.close()
    *ours, redis_used = used
    return Spread(1e6 * sum(ours) / total, 1e6 * redis_used / total)


def measure(redis: Redis, seconds: float, pace: Pace) -> Units:
    """Measure each unit, with the publisher at a process without members."""
    one = spread(redis, 1, seconds, attrs.evolve(pace, members=1))
    crowd = spread(redis, 1, seconds, attrs.evolve(pace, members=1 + pace.members))
    three = spread(redis, 3, seconds, attrs.evolve(pace, members=3))
    deliver = (crowd.servers_us - one.servers_us) / pace.members
    receive = (three.servers_us - one.servers_us) / 2 - deliver
    tell = max(0.0, (three.redis_us - one.redis_us) / 2)
    return Units(
        publish=one.servers_us - receive - deliver,
        receive=receive,
        deliver=deliver,
        redis_publish=one.redis_us - tell,
        redis_tell=tell,
    )


def check(redis: Redis, units: Units, seconds: float, pace: Pace) -> list[dict[str, float]]:
    """Compare what the units foretell with what 1, 2 and 4 processes need."""
    found = []
    for processes in (1, 2, 4):
        taken = spread(redis, processes, seconds, pace)
        found.append(
            {
                "processes": processes,
                "members": pace.members,
                "servers_us": taken.servers_us,
                "servers_us_foretold": units.servers_us(processes, pace.members),
                "redis_us": taken.redis_us,
                "redis_us_foretold": units.redis_us(processes),
            }
        )
    return found
