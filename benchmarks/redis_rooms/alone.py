"""What rooms over Redis carry on this machine: a crowd, many rooms, and a storm of clients that resume."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable

import attrs

from benchmarks.frames import Failed
from benchmarks.process import Server
from benchmarks.redis_rooms.client import Peer, join, open_peers, pump
from benchmarks.redis_rooms.fleet import CONTENDERS, Redis, servers
from benchmarks.redis_rooms.turns import FILLING, Meter

__all__ = ["Figures", "crowd", "many_rooms", "storm"]

PROCESSES = 4
MISSED = 20

Figures = dict[str, float]

OURS = CONTENDERS[0]
STAMPED = attrs.evolve(OURS, mode="stamped")


def crowd(redis: Redis, members: int, messages: int, processes: int = PROCESSES) -> Figures:
    """Fill one room with members at several processes; a message is published when all have the last one."""
    with servers(OURS, redis, processes) as started:
        dialect = OURS.dialect
        there = [
            peer
            for server in started
            for peer in join(server.port, dialect, ["crowd"] * (members // processes))
        ]
        (publisher,) = join(started[0].port, dialect, [None])
        heard = 0

        def count(_: str) -> None:
            nonlocal heard
            heard += 1

        for peer in there:
            peer.on_text = count
        peers = [*there, publisher]
        times = []
        meter = Meter(redis, *started)
        for number in range(messages + 1):
            if number == 1:
                meter.reset()  # the first one was for warming up
            began, wanted = time.perf_counter(), (number + 1) * len(there)
            publisher.send(dialect.say("crowd", FILLING))
            pump(peers, lambda wanted=wanted: heard >= wanted)  # type: ignore[misc]
            times.append(time.perf_counter() - began)
        *used, redis_used = meter.read()
        _close(peers)
    return {
        "members": len(there),
        "processes": processes,
        "to_the_last_ms": 1e3 * statistics.median(times[1:]),
        "cpu_us_a_delivery": 1e6 * sum(used) / messages / len(there),
        "redis_us_a_publish": 1e6 * redis_used / messages,
    }


def many_rooms(redis: Redis, rooms: int, seconds: float, processes: int = 2) -> Figures:
    """Give each room one member, and one message a second that is published at another process."""
    with servers(OURS, redis, processes) as started:
        dialect = OURS.dialect
        names = [f"room{number}" for number in range(rooms)]
        there: list[Peer] = []
        for index, server in enumerate(started):
            there += join(server.port, dialect, names[index::processes])
        by_room = {peer.room: peer for peer in there}
        publishers = [join(server.port, dialect, [None])[0] for server in started]
        heard = 0
        late: list[float] = []
        sent: dict[str | None, float] = {}

        def listen(peer: Peer) -> Callable[[str], None]:
            def hear(_: str) -> None:
                nonlocal heard
                heard += 1
                late.append(time.perf_counter() - sent[peer.room])

            return hear

        for peer in by_room.values():
            peer.on_text = listen(peer)
        total, said = int(rooms * seconds), 0
        began = time.perf_counter()

        def tick() -> float:
            nonlocal said
            now = time.perf_counter()
            while said < total and began + said / rooms <= now:
                number = said % rooms
                # The room's member is at the process number % processes.
                sent[names[number]] = time.perf_counter()
                publishers[(number + 1) % processes].send(dialect.say(names[number], FILLING))
                said += 1
            return 0.001 if said < total else 0.1

        meter = Meter(redis, *started)
        pump([*there, *publishers], lambda: heard >= total, tick)
        elapsed = meter.elapsed
        *used, redis_used = meter.read()
        memory = redis.resident_bytes()
        _close([*there, *publishers])
    return {
        "rooms": rooms,
        "messages_a_second": total / elapsed,
        "cpu_us_a_message": 1e6 * sum(used) / total,
        "redis_us_a_message": 1e6 * redis_used / total,
        "redis_kb_a_room": memory / rooms / 1e3,
        "p50_ms": 1e3 * statistics.median(late),
        "p99_ms": 1e3 * statistics.quantiles(late, n=100)[98],
    }


def storm(redis: Redis, clients: int, rooms: int = 100, processes: int = 2) -> Figures:
    """Everybody comes back at once, and gets what was said meanwhile: all of it, once, in order.

    Raises:
        Failed: somebody got something else.
    """
    with servers(STAMPED, redis, processes) as started:
        dialect = STAMPED.dialect
        names = [f"room{number}" for number in range(rooms)]
        positions = _say(started[0], names, 1)
        _say(started[0], names, MISSED)
        got: Counter[Peer] = Counter()
        complete = 0
        meter = Meter(redis, *started)
        peers: list[Peer] = []
        for number, name in enumerate(names):
            server = started[number % processes]
            count = clients // rooms
            peers += open_peers(server.port, dialect, [name] * count, f"?after={positions[name]}")
        opened = meter.elapsed

        def hear(peer: Peer, text: str) -> None:
            nonlocal complete
            if text == "joined":
                return
            if text.split()[1] != f"{got[peer]}":
                raise Failed(f"message {got[peer]} of {peer.room} was to come, not {text!r}")
            got[peer] += 1
            complete += got[peer] == MISSED

        for peer in peers:
            peer.on_text = lambda text, peer=peer: hear(peer, text)  # type: ignore[misc]
            peer.take()
        pump(peers, lambda: complete >= len(peers))
        elapsed = meter.elapsed
        *used, redis_used = meter.read()
        _close(peers)
    return {
        "clients": len(peers),
        "missed": MISSED,
        "opened_seconds": opened,
        "all_complete_seconds": elapsed,
        "cpu_us_a_client": 1e6 * sum(used) / len(peers),
        "redis_us_a_client": 1e6 * redis_used / len(peers),
    }


def _say(server: Server, rooms: list[str], count: int) -> dict[str, str]:
    """Say this many messages in each room; return the position of each room's last one."""
    dialect = STAMPED.dialect
    (publisher,) = join(server.port, dialect, [None])
    there = join(server.port, dialect, rooms)
    positions: dict[str, str] = {}
    heard = 0

    def hear(room: str | None, text: str) -> None:
        nonlocal heard
        heard += 1
        positions[str(room)] = text.split()[0]

    for peer in there:
        peer.on_text = lambda text, room=peer.room: hear(room, text)  # type: ignore[misc]
    for number in range(count):
        for room in rooms:
            publisher.send(dialect.say(room, f"{number} {FILLING}"))
        wanted = (number + 1) * len(rooms)
        pump([*there, publisher], lambda wanted=wanted: heard >= wanted)  # type: ignore[misc]
    _close([*there, publisher])
    return positions


def _close(peers: list[Peer]) -> None:
    for peer in peers:
        peer.close()
