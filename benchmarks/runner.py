"""One run: rows, and in each row the contenders in turn, round by round (A B C A B C …)."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import ssl
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from benchmarks import native
from benchmarks.connections import wait_for_server
from benchmarks.contenders import CEILINGS, OURS, Contender, versions
from benchmarks.frames import Failed
from benchmarks.process import CLIENT_CORE, SERVER_CORE, Server, StartFailed, pin_client
from benchmarks.rows import Row

__all__ = ["CLIENT_BOUND", "Plan", "Progress", "run", "summary"]

CLIENT_BOUND = 0.9  # share of the client's core above which the client is what was measured
WARM_UP_SECONDS = 0.2  # before each turn, not measured; a contender's first turn has its own


@attrs.frozen
class Plan:
    """What to run. `seconds` and `rounds` are None for each row's own; `minutes` bounds the whole run."""

    rows: list[Row]
    contenders: list[Contender]
    rounds: int | None = None
    seconds: float | None = None
    minutes: float | None = None
    command: str = ""

    def rounds_of(self, row: Row) -> int:
        return self.rounds or row.rounds

    def estimate(self, row: Row) -> float:
        """Return about how many seconds a row takes."""
        able = sum(row.mode not in c.lacks for c in self.contenders)
        turns = 1 if row.together else self.rounds_of(row) * able
        return turns * ((self.seconds or row.seconds) + WARM_UP_SECONDS + 0.2)

    def shortened(self, row: Row, later: list[Row], spent: float, estimated: float) -> Row:
        """Return the row with as many of its rounds as the time that is left allows, at least one."""
        if self.minutes is None:
            return row
        pace = max(1.0, spent / estimated) if estimated else 1.0
        needed = pace * sum(self.estimate(other) for other in (row, *later))
        share = min(1.0, (self.minutes * 60 - spent) / needed)
        return attrs.evolve(row, rounds=max(1, int(self.rounds_of(row) * share + 0.5)))


class Progress:
    """One line on stderr that changes on a terminal, and one line per row elsewhere."""

    def __init__(self, turns: int) -> None:
        self.turns, self.done = turns, 0
        self.began = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def turn(self, row: Row, round_number: int, contender: str) -> None:
        self.done += 1
        if self.terminal:
            spent = time.monotonic() - self.began
            left = spent / self.done * (self.turns - self.done)
            text = (
                f"[{self.done}/{self.turns}, {left:.0f} s left] {row.workload} {row.label}, "
                f"round {round_number + 1}: {contender}"
            )
            print(f"\r\033[K{text[:110]}", end="", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        print(("\r\033[K" if self.terminal else "") + text, file=sys.stderr, flush=True)


def run(
    plan: Plan,
    *,
    certificate: Path,
    client_context: ssl.SSLContext | None,
    show: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Take every turn; return the whole result as JSON-ready data. `show` gets each row as it is ready."""
    installed = versions(plan.contenders)
    out: dict[str, str] = {c.name: "not installed" for c in plan.contenders if c.name not in installed}
    contenders = [c for c in plan.contenders if c.name in installed]
    pin_client()
    plan = attrs.evolve(
        plan, contenders=contenders, rows=[attrs.evolve(r, rounds=plan.rounds_of(r)) for r in plan.rows]
    )
    turns = sum(plan.rounds_of(r) * sum(r.mode not in c.lacks for c in contenders) for r in plan.rows)
    progress = Progress(turns)
    for name, reason in out.items():
        progress.say(f"left out: {name} ({reason})")
    began = time.monotonic()
    rows = []
    fleet = _Fleet({"BENCH_CERTIFICATE": str(certificate)}, client_context, progress)
    try:
        estimated = 0.0
        for number, full in enumerate(plan.rows):
            row = plan.shortened(full, plan.rows[number + 1 :], time.monotonic() - began, estimated)
            if row.rounds < plan.rounds_of(full):
                progress.say(f"{row.key}: only {row.rounds} rounds, to end within {plan.minutes:g} minutes")
            estimated += plan.estimate(full) * row.rounds / plan.rounds_of(full)
            fleet.enter(row)
            taken = _take_together if row.together else _take_row
            ready = attrs.evolve(row, context=client_context) if row.mode == "tls" else row
            rows.append(taken(ready, plan, contenders, fleet, progress))
            show(rows[-1])
    finally:
        fleet.end()
    return {
        "format": 1,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": plan.command,
        "seconds": time.monotonic() - began,
        "machine": machine(),
        "client": "C" if native.available() else "Python",
        "versions": {c.name: installed[c.name] for c in contenders},
        "notes": {c.name: c.note for c in contenders if c.note},
        "left_out": out | fleet.failed_to_start,
        "rows": rows,
    }


class _Fleet:
    """The servers of the workload at hand: started on first use, paused between turns, ended with it."""

    def __init__(
        self, environment: dict[str, str], context: ssl.SSLContext | None, progress: Progress
    ) -> None:
        self.environment, self.context, self.progress = environment, context, progress
        self.servers: dict[str, Server] = {}
        self.at: tuple[str, str] | None = None
        self.failed_to_start: dict[str, str] = {}

    def enter(self, row: Row) -> None:
        if (row.workload, row.mode) != self.at or row.fresh:
            self.end()
        self.at = (row.workload, row.mode)

    def server(self, contender: Contender, row: Row) -> tuple[Server, bool]:
        """Return a running server and whether it has just been started."""
        running = self.servers.get(contender.name)
        if running is not None and running.alive() and not row.fresh:
            running.resume()
            return running, False
        if running is not None:
            running.stop()
        server = Server(contender, row.mode, self.environment)
        self.servers[contender.name] = server
        try:
            wait_for_server(server.port, self.context if row.mode == "tls" else None)
        except Failed as error:
            tail = server.log_tail()
            self.discard(contender)
            raise StartFailed(f"{contender.name} took no connection: {error} {tail}") from error
        return server, True

    def discard(self, contender: Contender) -> None:
        server = self.servers.pop(contender.name, None)
        if server is not None:
            server.stop()

    def end(self) -> None:
        for server in self.servers.values():
            server.stop()
        self.servers.clear()


def _take_row(
    row: Row, plan: Plan, contenders: list[Contender], fleet: _Fleet, progress: Progress
) -> dict[str, Any]:
    samples: dict[str, list[dict[str, Any] | None]] = {}
    errors: dict[str, str] = {}
    failures: dict[str, int] = {}
    seconds = plan.seconds or row.seconds
    for round_number in range(row.rounds):
        for contender in contenders:
            name = contender.name
            if row.mode in contender.lacks:
                errors[name] = "cannot do this"
                continue
            progress.turn(row, round_number, name)
            taken = None
            if name not in fleet.failed_to_start and failures.get(name, 0) < 2:
                try:
                    server, fresh = fleet.server(contender, row)
                    taken = row.take(
                        row, server, contender.first_warm_up if fresh else WARM_UP_SECONDS, seconds
                    )
                    server.pause()
                except StartFailed as error:
                    fleet.failed_to_start[name] = str(error)
                    progress.say(f"left out: {name} ({error})")
                except (Failed, OSError) as error:
                    text = f"{error}" if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
                    progress.say(f"FAILED: {name} in {row.key}: {text}")
                    errors[name] = text
                    failures[name] = failures.get(name, 0) + 1
                    fleet.discard(contender)
                if row.fresh:
                    fleet.discard(contender)
            samples.setdefault(name, []).append(taken)
    return _row_result(row, seconds, samples, errors)


def _take_together(
    row: Row, plan: Plan, contenders: list[Contender], fleet: _Fleet, progress: Progress
) -> dict[str, Any]:
    errors = {c.name: "cannot do this" for c in contenders if row.mode in c.lacks}
    servers = {}
    for contender in contenders:
        if contender.name not in errors and contender.name not in fleet.failed_to_start:
            progress.turn(row, 0, contender.name)
            try:
                servers[contender.name], _ = fleet.server(contender, row)
            except StartFailed as error:
                fleet.failed_to_start[contender.name] = str(error)
    seconds = plan.seconds or row.seconds
    taken = row.take(row, servers, seconds)
    errors |= {name: result for name, result in taken.items() if isinstance(result, str)}
    samples = {name: [result] for name, result in taken.items() if not isinstance(result, str)}
    return _row_result(row, seconds, samples, errors)


def _row_result(row: Row, seconds: float, samples: dict[str, Any], errors: dict[str, str]) -> dict[str, Any]:
    return {
        "workload": row.workload,
        "key": row.key,
        "label": row.label,
        "metric": row.metric,
        "unit": row.unit,
        "better": row.better,
        "parameters": row.parameters,
        "seconds": seconds,
        "samples": {name: taken for name, taken in samples.items() if any(taken)},
        "errors": errors,
    }


def summary(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row's contenders, best first: medians, min–max, ratio to wsframework round by round.

    A ratio above 1 means that wsframework is better: more per second, or less memory. `cpu_ratio` compares
    the server's CPU time per message instead, which other programs on the machine disturb less.
    """
    ours = row["samples"].get(OURS)
    lines = []
    for name, samples in row["samples"].items():
        good = [s for s in samples if s]
        values = [s[row["metric"]] for s in good]
        line: dict[str, Any] = {
            "name": name,
            "median": statistics.median(values),
            "min": min(values),
            "max": max(values),
            "rounds": len(values),
        }
        for extra in ("p50", "p99", "client_cpu", "server_cpu", "others_cpu", "server_us", *EXTRAS):
            numbers = [s[extra] for s in good if s.get(extra) is not None]
            if numbers:
                line[extra] = statistics.median(numbers)
        line["client_bound"] = line.get("client_cpu", 0.0) > CLIENT_BOUND
        if ours and name != OURS:
            by_cpu = [
                b["server_us"] / a["server_us"]
                for a, b in zip(ours, samples, strict=False)
                if a and b and a.get("server_us") and b.get("server_us")
            ]
            if by_cpu:
                line["cpu_ratio"] = statistics.median(by_cpu)
            ratios = [
                (a[row["metric"]] / b[row["metric"]])
                if row["better"] == "higher"
                else (b[row["metric"]] / a[row["metric"]])
                for a, b in zip(ours, samples, strict=False)
                if a and b and a[row["metric"]] and b[row["metric"]]
            ]
            if ratios:
                line |= {
                    "ratio": statistics.median(ratios),
                    "ratio_min": min(ratios),
                    "ratio_max": max(ratios),
                }
        lines.append(line)
    lines.sort(key=lambda line: line["median"], reverse=row["better"] == "higher")
    return [line for line in lines if line["name"] in CEILINGS] + [
        line for line in lines if line["name"] not in CEILINGS
    ]


EXTRAS: tuple[str, ...] = ("megabytes_per_second", "open_seconds", "pings", "reply_bytes", "cpu_percent")


def machine() -> dict[str, Any]:
    """Return what one must know of the machine to read the numbers."""
    processor = ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    return {
        "processor": processor or platform.processor(),
        "cores": os.cpu_count(),
        "server_core": SERVER_CORE,
        "client_core": CLIENT_CORE,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
