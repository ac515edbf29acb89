"""How many processes, machines and Redis servers a deployment needs: `python -m benchmarks.sizing --help`.

The model has unit costs, which `python -m benchmarks.redis_rooms --json FILE` measures, and one thought: the
members of a room are spread over processes at random, so a room of m members is at p(1 - (1 - 1/p)^m) of p
processes. Each of those takes each message from Redis, so a small room costs nearly as many receipts as it
has members, and a large one as many as there are processes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

import attrs

from benchmarks.charts import MARKUP, OURS_COLOUR, PEER_COLOUR
from benchmarks.redis_rooms.units import Units

__all__ = ["Costs", "Need", "Workload", "main", "size"]


UNITS = {"publish": 111.0, "receive": 6.5, "deliver": 2.4, "redis_publish": 30.0, "redis_tell": 0.0}


@attrs.frozen
class Costs:
    """What everything costs. The defaults are the figures of docs/howto/sizing.md.

    Attributes:
        units: of a message, under load.
        connect_us: CPU time of a connection from its handshake to its end.
        connection_bytes: memory of an idle connection that is in one room.
        room_redis_bytes: memory of a room in Redis, besides its history.
        message_redis_bytes: memory of a message in Redis, besides its text.
    """

    units: Units = attrs.field(factory=lambda: Units(**UNITS))
    connect_us: float = 150.0
    connection_bytes: int = 12_000
    room_redis_bytes: int = 5_000
    message_redis_bytes: int = 150


@attrs.frozen
class Workload:
    """What there is to serve.

    Attributes:
        connections: open at once, each in one room.
        rooms: how many.
        room_per_second: messages a second in each room.
        message_bytes: the length of one.
        stay_seconds: how long a connection lasts.
        history: messages that are kept for each room.
    """

    connections: int
    rooms: int
    room_per_second: float = 0.1
    message_bytes: int = 200
    stay_seconds: float = 600.0
    history: int = 100


@attrs.frozen
class Need:
    """What a workload needs, with every core and every Redis at most at its share.

    Attributes:
        processes: workers, each on a core of its own.
        redis_servers: partitions of the rooms. Above one, this takes a Redis Cluster or several engines.
        publishes: messages a second.
        deliveries: messages a second that are written to members.
        receipts: messages a second that processes take from Redis.
        memory_bytes: of all workers.
        redis_memory_bytes: of all Redis servers.
        redis_bytes_out: a second, from Redis to the workers.
        bytes_out: a second, to the clients.
        limit: what decides the number of processes.
    """

    processes: int
    redis_servers: int
    publishes: float
    deliveries: float
    receipts: float
    memory_bytes: float
    redis_memory_bytes: float
    redis_bytes_out: float
    bytes_out: float
    limit: str


FRAME_BYTES = 4
TOLD_BYTES = 120
"""What surrounds a message between Redis and a process: the channel, the position, the tag."""


def processes_of(room: float, processes: int) -> float:
    """Return at how many processes the members of a room are to be expected."""
    return float(processes * (1 - (1 - 1 / processes) ** room))


def size(workload: Workload, costs: Costs, busy: float = 0.6, process_bytes: float = 4e9) -> Need:
    """Return the smallest number of processes that is enough.

    Args:
        workload: what there is to serve.
        costs: of everything.
        busy: the share of a core that a worker or a Redis may use on average.
        process_bytes: the memory that a worker may use.
    """
    members = workload.connections / workload.rooms
    publishes = workload.rooms * workload.room_per_second
    deliveries = publishes * members
    connects = workload.connections / workload.stay_seconds
    units = costs.units
    memory = workload.connections * costs.connection_bytes
    by_memory = max(1, -int(-memory // process_bytes))
    processes = 1
    while True:
        at = processes_of(members, processes)
        cpu = publishes * units.servers_us(at, members) + connects * costs.connect_us
        if cpu / 1e6 <= busy * processes:
            break
        processes = max(processes + 1, int(processes * 1.02))
    limit = "CPU" if processes >= by_memory else "memory"
    processes = max(processes, by_memory)
    at = processes_of(members, processes)
    redis_cpu = publishes * units.redis_us(at) / 1e6
    size_of_room = costs.room_redis_bytes + workload.history * (
        costs.message_redis_bytes + workload.message_bytes
    )
    return Need(
        processes=processes,
        redis_servers=max(1, -int(-redis_cpu // busy)),
        publishes=publishes,
        deliveries=deliveries,
        receipts=publishes * at,
        memory_bytes=memory,
        redis_memory_bytes=float(workload.rooms * size_of_room),
        redis_bytes_out=publishes * at * (workload.message_bytes + TOLD_BYTES),
        bytes_out=deliveries * (workload.message_bytes + FRAME_BYTES),
        limit=limit,
    )


def table(workloads: list[Workload], costs: Costs) -> str:
    """Return the needs as a Markdown table."""
    lines = [
        "| connections | rooms | messages/s | deliveries/s | workers | limit | their memory | Redis servers "
        "| Redis memory | Redis → workers | → clients |",
        "| ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for workload in workloads:
        need = size(workload, costs)
        lines.append(
            f"| {workload.connections:,} | {workload.rooms:,} | {need.publishes:,.0f} "
            f"| {need.deliveries:,.0f} | {need.processes:,} | {need.limit} "
            f"| {need.memory_bytes / 1e9:,.1f} GB | {need.redis_servers:,} "
            f"| {need.redis_memory_bytes / 1e9:,.2f} GB | {need.redis_bytes_out / 1.25e5:,.0f} Mbit/s "
            f"| {need.bytes_out / 1.25e5:,.0f} Mbit/s |"
        )
    return "\n".join(lines)


def draw(folder: Path, costs: Costs) -> Path:
    """Draw how workers and Redis servers grow with the connections, for small rooms and for large ones.

    Raises:
        ImportError: matplotlib is not installed.
    """
    importlib.import_module("matplotlib").use("Agg")
    plt = importlib.import_module("matplotlib.pyplot")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sizing.svg"
    counts = [int(10 ** (3 + step / 10)) for step in range(31)]
    with plt.rc_context(MARKUP):
        figure, axes = plt.subplots(figsize=(7, 4))
        for members, style in ((10, "-"), (1000, "--")):
            needs = [size(Workload(count, max(1, count // members)), costs) for count in counts]
            for label, colour, lines in (
                ("workers", OURS_COLOUR, [need.processes for need in needs]),
                ("Redis servers", PEER_COLOUR, [need.redis_servers for need in needs]),
            ):
                axes.plot(counts, lines, style, color=colour, label=f"{label}, rooms of {members:,}")
        axes.set(xscale="log", yscale="log", xlabel="connections", ylabel="processes")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    return path


def read_costs(path: Path) -> Costs:
    """Return the costs with the units that a run of `benchmarks.redis_rooms` has measured."""
    return Costs(units=Units(**json.loads(path.read_text())["units"]["load"]["units"]))


WORKLOADS = [
    Workload(10_000, 1_000),
    Workload(100_000, 10_000),
    Workload(100_000, 10_000, room_per_second=1.0),
    Workload(1_000_000, 100_000),
    Workload(1_000_000, 100_000, room_per_second=1.0),
    Workload(1_000_000, 1_000, room_per_second=1.0),
    Workload(1_000_000, 10, room_per_second=1.0),
]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sizing", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--costs", metavar="FILE", type=Path, help="of `python -m benchmarks.redis_rooms --json`"
    )
    parser.add_argument("--connections", type=int, help="open at once; default: a table of several sizes")
    parser.add_argument("--rooms", type=int, default=1_000)
    parser.add_argument("--per-second", type=float, default=0.1, help="messages a second in each room")
    parser.add_argument("--bytes", type=int, default=200, help="of a message")
    parser.add_argument("--chart", metavar="DIR", type=Path, help="draw sizing.svg into this folder")
    arguments = parser.parse_args()
    costs = read_costs(arguments.costs) if arguments.costs else Costs()
    if arguments.connections:
        one = Workload(arguments.connections, arguments.rooms, arguments.per_second, arguments.bytes)
        print(table([one], costs))
    else:
        print(table(WORKLOADS, costs))
    if arguments.chart:
        print(f"drawn: {draw(arguments.chart, costs)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
