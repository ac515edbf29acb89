"""Measure rooms over Redis: `python -m benchmarks.redis_rooms --help`."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import attrs

from benchmarks.__main__ import raise_file_limit
from benchmarks.frames import Failed
from benchmarks.process import StartFailed, pin_client
from benchmarks.redis_rooms import alone, units
from benchmarks.redis_rooms.fleet import CONTENDERS, Redis, SharedContender, why_missing
from benchmarks.redis_rooms.turns import Cost, Latency, take

__all__ = ["main"]

COLUMNS = (
    ("publisher µs", "publisher_us", 1),
    ("subscriber µs", "subscriber_us", 1),
    ("Redis µs", "redis_us", 1),
    ("msg/s", "messages_per_second", 0),
    ("p50 ms", "p50_ms", 2),
    ("p99 ms", "p99_ms", 2),
)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.redis_rooms",
        description="What a message costs that goes from one process to members at another, through Redis.",
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender (default: 5)")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="measured seconds of each part (default: 2)"
    )
    parser.add_argument(
        "--rate", type=float, default=500, help="messages a second for the latency (default: 500)"
    )
    parser.add_argument("--members", default="1,100", help="members of the room (default: 1,100)")
    parser.add_argument("--only", metavar="A,B", help="these contenders")
    parser.add_argument("--scale", type=float, default=1.0, help="of 10,000 members, rooms and 5,000 resumes")
    parser.add_argument(
        "--without-peers", action="store_true", help="only the parts that are wsframework's alone"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything that was measured")
    return parser


def main() -> int:
    arguments = parser().parse_args()
    raise_file_limit()
    pin_client()
    try:
        redis = Redis()
    except (FileNotFoundError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    result: dict[str, Any] = {}
    try:
        if not arguments.without_peers:
            try:
                contenders = chosen(arguments.only)
            except ValueError as error:
                parser().error(str(error))
            for members in map(int, arguments.members.split(",")):
                result[f"members:{members}"] = compare(contenders, redis, members, arguments)
        if not arguments.only:
            result["units"] = measure_units(redis, arguments.seconds)
            result["alone"] = measure_alone(redis, arguments.scale)
    finally:
        redis.stop()
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def chosen(names: str | None) -> list[SharedContender]:
    """Return the contenders of these names that can take part, and say which cannot."""
    wanted = [c.name for c in CONTENDERS] if names is None else [name.strip() for name in names.split(",")]
    known = {c.name: c for c in CONTENDERS}
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"no contender {unknown[0]!r}; there are: {', '.join(known)}")
    able = []
    for name in wanted:
        if reason := why_missing(known[name]):
            print(f"left out: {name} ({reason})", file=sys.stderr)
        else:
            able.append(known[name])
    return able


def compare(
    contenders: list[SharedContender], redis: Redis, members: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Let the contenders take turns; print the medians, and return all samples."""
    samples: dict[str, list[dict[str, float]]] = {c.name: [] for c in contenders}
    errors: dict[str, str] = {}
    for number in range(arguments.rounds):
        for contender in contenders:
            say(f"{members} members, round {number + 1}: {contender.name}")
            try:
                cost, latency = take(contender, redis, members, arguments.seconds, arguments.rate)
            except (Failed, StartFailed, OSError) as error:
                errors[contender.name] = str(error)
                continue
            samples[contender.name].append(figures(cost, latency))
    say("")
    print(f"\none room, {members} members at another process; per published message\n")
    print(f"{'':20}" + "".join(f"{title:>15}" for title, _, _ in COLUMNS))
    for name, taken in samples.items():
        cells = [f"{median(taken, key):>15,.{digits}f}" for _, key, digits in COLUMNS] if taken else []
        print(f"{name:20}" + "".join(cells) + (f"   {errors[name]}" if name in errors else ""), flush=True)
    return {"samples": samples, "errors": errors}


def figures(cost: Cost, latency: Latency | None) -> dict[str, float]:
    found: dict[str, float] = attrs.asdict(cost)
    return found | (attrs.asdict(latency) if latency else {})


def median(taken: list[dict[str, float]], key: str) -> float:
    return statistics.median([sample.get(key, float("nan")) for sample in taken])


def measure_units(redis: Redis, seconds: float) -> dict[str, Any]:
    """Measure and print the unit costs, and how well they foretell what several processes need."""
    found: dict[str, Any] = {}
    for name, pace in {"leisure": units.LEISURE, "load": units.LOAD}.items():
        say(f"unit costs: {name}")
        taken = units.measure(redis, seconds, pace)
        checked = units.check(redis, taken, seconds, pace)
        found[name] = {"units": attrs.asdict(taken), "check": checked}
        say("")
        costs = ", ".join(f"{unit} {value:.1f}" for unit, value in attrs.asdict(taken).items())
        print(f"\n{name}, {pace.rate:,.0f} messages a second in {pace.rooms} rooms, µs: {costs}")
        for row in checked:
            print(
                f"{row['processes']:.0f} processes, {pace.members} members a room: "
                f"{row['servers_us']:,.0f} µs a message, foretold {row['servers_us_foretold']:,.0f}; "
                f"Redis {row['redis_us']:.0f}, foretold {row['redis_us_foretold']:.0f}",
                flush=True,
            )
    return found


def measure_alone(redis: Redis, scale: float) -> dict[str, alone.Figures]:
    """Measure and print what wsframework does by itself."""
    parts = {
        "crowd": lambda: alone.crowd(redis, int(10_000 * scale), 20),
        "many rooms": lambda: alone.many_rooms(redis, int(10_000 * scale), 5.0),
        "storm": lambda: alone.storm(redis, int(5_000 * scale)),
    }
    found = {}
    for name, part in parts.items():
        say(name)
        try:
            found[name] = part()
        except (Failed, StartFailed, OSError) as error:
            print(f"{name}: {error}")
            continue
        say("")
        print(
            f"\n{name}: " + ", ".join(f"{key} {value:,.4g}" for key, value in found[name].items()), flush=True
        )
    return found


def say(text: str) -> None:
    """Show what is being done, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
