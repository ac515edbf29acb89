"""What is measured: the rows of every workload, and how one turn of one contender at one row is taken."""

from __future__ import annotations

import contextlib
import re
import resource
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from benchmarks import load, native
from benchmarks.churn import churn
from benchmarks.connections import Connection, open_connections
from benchmarks.contenders import ROOT
from benchmarks.deflate import OFFER, deflate_echo, messages
from benchmarks.frames import BINARY, TEXT, Failed, frame, payload, request
from benchmarks.mixed import Day, mixed
from benchmarks.posting import post
from benchmarks.process import Server, core_busy_seconds
from benchmarks.servers import KEEPALIVE_SECONDS

__all__ = ["ROWS", "WORKLOADS", "Row", "select_rows"]

KIB, MIB = 1024, 1024 * 1024
LARGE = 16 * KIB  # from here on frames may not fit a socket buffer: partial sends, sampled checks
SIZES = {"64B": 64, "1KiB": KIB, "16KiB": 16 * KIB, "1MiB": MIB}

Metrics = dict[str, Any]
Take = Callable[["Row", Server, float, float], Metrics]


@attrs.frozen
class Row:
    """One line of the result: a workload with its parameters.

    `metric` names the number that ranks the contenders; `unit` and `better` say how to read it. `seconds` and
    `rounds` are what `make bench` spends by default.
    """

    workload: str
    key: str
    label: str
    mode: str
    metric: str
    unit: str
    take: Any  # Take, or for a row that is taken together: take_keepalive's shape
    parameters: dict[str, Any] = attrs.field(factory=dict)
    better: str = "higher"
    seconds: float = 0.4
    rounds: int = 3
    fresh: bool = False  # a new server process for every turn
    together: bool = False  # all contenders in one turn, at the same time
    context: ssl.SSLContext | None = attrs.field(default=None, eq=False, repr=False)


class Watch:
    """The server's CPU time and everybody's, from the start of the measured part."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.pids = server.pids()
        self.start()

    def start(self) -> None:
        self.at = time.perf_counter()
        self.cpu = self.server.cpu_seconds(self.pids)
        self.busy = core_busy_seconds()
        self.own = time.process_time()

    def stop(self) -> None:
        elapsed = time.perf_counter() - self.at
        cpu = self.server.cpu_seconds(self.pids) - self.cpu
        own = time.process_time() - self.own
        others = core_busy_seconds() - self.busy - cpu - own
        self.taken: Metrics = {"server_cpu": cpu / elapsed, "others_cpu": max(0.0, others / elapsed)}


def _measured(result: load.Measured, watch: Metrics) -> Metrics:
    return {
        "rate": result.rate,
        "p50": result.percentile(0.50),
        "p99": result.percentile(0.99),
        "messages": result.messages,
        "seconds": result.seconds,
        "client_cpu": result.client_cpu,
        # Time of the server's core per message: less shaken by other programs than messages per second.
        "server_us": watch["server_cpu"] / result.rate * 1e6 if result.rate else None,
        **watch,
    }


@contextlib.contextmanager
def _open(server: Server, count: int, **options: Any) -> Iterator[list[Connection]]:
    connections = open_connections(server.port, count, **options)
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


def take_echo(row: Row, server: Server, warm_up: float, seconds: float) -> Metrics:
    count, in_flight, size = (row.parameters[k] for k in ("connections", "in_flight", "size"))
    opcode = BINARY if size >= LARGE else TEXT
    distinct = max(in_flight, 2 if size >= LARGE else 4)
    with _open(server, count) as connections:
        for number, connection in enumerate(connections):
            if number and size >= LARGE:  # a stream for each connection would not fit a cache
                connection.carries_as(connections[0])
                continue
            payloads = [payload(size, f"{number}/{k}") for k in range(distinct)]
            requests = [frame(opcode, p, masked=True) for p in payloads]
            connection.carries(requests, [frame(opcode, p, masked=False) for p in payloads])
        watch = Watch(server)
        large = load.echo_large if size >= LARGE else load.echo
        loop = native.echo if native.available() else large
        result = loop(connections, in_flight, warm_up, seconds, watch)
    return _measured(result, watch.taken) | {"megabytes_per_second": 2 * result.rate * size / 1e6}


def take_fanout(row: Row, server: Server, warm_up: float, seconds: float) -> Metrics:
    count, publishers, in_flight = (row.parameters[k] for k in ("members", "publishers", "in_flight"))
    payloads = [
        payload(64, f"message {k}") for k in range(publishers if publishers > 1 else max(4, in_flight))
    ]
    requests = [frame(TEXT, p, masked=True) for p in payloads]
    replies = [frame(TEXT, p, masked=False) for p in payloads]
    with _open(server, count) as members:
        for number, member in enumerate(members):
            if number == 0 or 0 < number < publishers:  # with several publishers, each sends its own message
                member.carries(
                    requests[number:][:1] if publishers > 1 else requests, replies, native.READ_BYTES
                )
            else:
                member.carries_as(members[0])
        watch = Watch(server)
        loop = native.fanout if native.available() else load.fanout
        result = loop(members, publishers, in_flight, warm_up, seconds, watch)
    return _measured(result, watch.taken)


def take_churn(row: Row, server: Server, warm_up: float, seconds: float) -> Metrics:
    watch = Watch(server)
    result = churn(server.port, row.parameters["concurrency"], warm_up, seconds, watch)
    return _measured(result, watch.taken)


def take_post(row: Row, server: Server, warm_up: float, seconds: float) -> Metrics:
    watch = Watch(server)
    result = post(server.port, row.parameters["connections"], warm_up, seconds, watch)
    return _measured(result, watch.taken)


def take_tls(row: Row, server: Server, warm_up: float, seconds: float) -> Metrics:
    """Echo over TLS. The client is Python with OpenSSL: see its CPU share."""
    count, in_flight, size = (row.parameters[k] for k in ("connections", "in_flight", "size"))
    if row.context is None:
        raise Failed("no certificate: trustme is not installed")
    with _open(server, count, context=row.context) as connections:
        for number, connection in enumerate(connections):
            payloads = [payload(size, f"{number}/{k}") for k in range(max(4, in_flight))]
            requests = [frame(TEXT, p, masked=True) for p in payloads]
            connection.carries(requests, [frame(TEXT, p, masked=False) for p in payloads])
        watch = Watch(server)
        result = load.echo(connections, in_flight, warm_up, seconds, watch)
    return _measured(result, watch.taken)


def take_deflate(row: Row, server: Server, warm_up: float, seconds: float) -> Metrics:
    count, size = row.parameters["connections"], row.parameters["size"]
    with _open(server, count, request=request(OFFER)) as connections:
        if b"permessage-deflate" not in connections[0].head:
            raise Failed("the server did not agree to permessage-deflate")
        watch = Watch(server)
        result, reply_bytes = deflate_echo(connections, messages(16, size), warm_up, seconds, watch)
    return _measured(result, watch.taken) | {"reply_bytes": reply_bytes}


def take_mixed(row: Row, server: Server, warm_up: float, seconds: float) -> Metrics:
    watch = Watch(server)
    result, more = mixed(server.port, Day(**row.parameters), warm_up, seconds, watch)
    metrics = _measured(result, watch.taken)
    return metrics | more | {"p99_ms": metrics["p99"] * 1e3}


def take_keepalive(row: Row, servers: dict[str, Server], seconds: float) -> dict[str, Metrics | str]:
    """Let all servers keep their idle connections alive at the same time; return CPU by server.

    CPU time is each server's own, so they can share the minute (and the core) that this takes.
    """
    count = _affordable(row.parameters["connections"])
    taken: dict[str, Metrics | str] = {}
    holders = {}
    try:
        for name, server in servers.items():
            holders[name] = Holder(server, count)
            try:
                holders[name].wait_open()
            except Failed as error:
                taken[name] = str(error)
                holders.pop(name).kill()
        time.sleep(1.0)
        pids = {name: servers[name].pids() for name in holders}
        before = {name: servers[name].cpu_seconds(pids[name]) for name in holders}
        began = time.perf_counter()
        time.sleep(seconds)
        elapsed = time.perf_counter() - began
        for name, holder in holders.items():
            cpu = servers[name].cpu_seconds(pids[name]) - before[name]
            try:
                pings = holder.end()
                taken[name] = {"cpu_percent": 100 * cpu / elapsed, "pings": pings, "connections": count}
                if not pings and seconds > 2 * KEEPALIVE_SECONDS:
                    taken[name] = "sent no ping"
            except Failed as error:
                taken[name] = str(error)
    finally:
        for holder in holders.values():
            holder.kill()
    return taken


class Holder:
    """Idle connections in a process of their own."""

    def __init__(self, server: Server, count: int) -> None:
        command = [sys.executable, "-m", "benchmarks.holder", str(server.port), str(count)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def wait_open(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if line != "OPEN":
            raise Failed(f"the idle connections: {line or 'their process ended'}")

    def end(self) -> int:
        """Close the connections; return how many pings came."""
        try:
            output, _ = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired as error:
            raise Failed("the idle connections' process hangs") from error
        finally:
            self.kill()
        if not output.startswith("PINGS "):
            raise Failed(f"the idle connections: {output.strip() or 'their process ended'}")
        return int(output.split()[1])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def take_idle(row: Row, server: Server, warm_up: float, seconds: float) -> Metrics:
    count = _affordable(row.parameters["connections"])
    with _open(server, 50):  # what a first connection loads is not an idle connection's memory
        pass
    time.sleep(0.3)
    before = server.resident_bytes()
    started = time.perf_counter()
    holder = Holder(server, count)
    try:
        holder.wait_open()
        opened = time.perf_counter() - started
        time.sleep(seconds)
        resident = server.resident_bytes()
        holder.end()
    finally:
        holder.kill()
    return {
        "kilobytes": (resident - before) / count / 1000,
        "connections": count,
        "before_megabytes": before / 1e6,
        "open_seconds": opened,
    }


def _affordable(count: int) -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return count if hard == resource.RLIM_INFINITY else min(count, hard - 200)


def _echo(workload: str, count: int, in_flight: int, size: str, mode: str = "echo", **options: Any) -> Row:
    return Row(
        workload=workload,
        key=f"{workload}:{count}x{in_flight}:{size}",
        label=f"{count:,} × {in_flight}, {size.replace('B', ' B') if size == '64B' else size}",
        mode=mode,
        metric="rate",
        unit="msg/s",
        take=take_echo,
        parameters={"connections": count, "in_flight": in_flight, "size": SIZES[size]},
        **options,
    )


def _fanout(members: int, publishers: int, in_flight: int, **options: Any) -> Row:
    many = f"{publishers} publishers" if publishers > 1 else "1 publisher"
    return Row(
        workload="fanout",
        key=f"fanout:{members}:{publishers}x{in_flight // publishers}",
        label=f"{members:,} members, {many} × {in_flight // publishers}",
        mode="fanout",
        metric="rate",
        unit="deliveries/s",
        take=take_fanout,
        parameters={"members": members, "publishers": publishers, "in_flight": in_flight},
        **options,
    )


ROWS: tuple[Row, ...] = (
    _echo("echo", 64, 1, "64B", seconds=0.8, rounds=5),
    _echo("echo", 64, 16, "64B", seconds=0.8, rounds=5),
    _echo("sizes", 64, 1, "1KiB"),
    _echo("sizes", 64, 16, "1KiB"),
    _echo("sizes", 64, 1, "16KiB"),
    _echo("sizes", 64, 16, "16KiB"),
    _echo("sizes", 8, 1, "1MiB"),
    _echo("connections", 1, 1, "64B"),
    _echo("connections", 1, 16, "64B"),
    _echo("connections", 1000, 1, "64B"),
    _echo("connections", 1000, 16, "64B"),
    _fanout(100, 1, 1),
    _fanout(100, 1, 16),
    _fanout(1000, 1, 1, seconds=0.6),
    _fanout(1000, 1, 16, seconds=0.8),
    _fanout(100, 10, 10),
    _fanout(1000, 10, 10, seconds=0.6),
    Row(
        workload="churn", key="churn:32", label="32 at once", mode="echo", metric="rate",
        unit="connections/s", take=take_churn, parameters={"concurrency": 32},
        seconds=0.8,
    ),
    *(
        Row(
            workload="deflate", key=f"deflate:64x1:{size}", label=f"64 × 1, {size} of text", mode="deflate",
            metric="rate", unit="msg/s", take=take_deflate,
            parameters={"connections": 64, "in_flight": 1, "size": SIZES[size]},
        )
        for size in ("1KiB", "16KiB")
    ),
    attrs.evolve(_echo("tls", 64, 1, "64B"), mode="tls", take=take_tls),
    attrs.evolve(_echo("tls", 64, 16, "64B"), mode="tls", take=take_tls),
    *(
        Row(
            workload="post", key=f"{mode}:64", label=f"64 at a time{note}", mode=mode, metric="rate",
            unit="requests/s", take=take_post, parameters={"connections": 64},
        )
        for mode, note in (("post", ""), ("post-fast", ", uvicorn with httptools"))
    ),
    Row(
        workload="mixed", key="mixed", label="p99 of 80 chatters among 500 connections", mode="echo",
        metric="p99_ms", unit="ms, p99", take=take_mixed, parameters={}, better="lower",
        seconds=3.0, rounds=1,
    ),
    Row(
        workload="idle", key="idle:5000", label="memory, 5,000 open", mode="echo", metric="kilobytes",
        unit="kB/connection", take=take_idle, parameters={"connections": 5000}, better="lower",
        seconds=2.0, rounds=1, fresh=True,
    ),
    Row(
        workload="idle", key="keepalive:5000", label="CPU for keepalive, 5,000 open, 20 s", mode="keepalive",
        metric="cpu_percent", unit="% of a core", take=take_keepalive, parameters={"connections": 5000},
        better="lower", seconds=60.0, rounds=1, together=True,
    ),
)  # fmt: skip

WORKLOADS: dict[str, str] = {
    "echo": "echo, 64 connections, 64 B",
    "sizes": "echo, larger messages",
    "connections": "echo, one connection and a thousand",
    "fanout": "one room, 64 B messages",
    "churn": "connect, handshake, close",
    "deflate": "echo with permessage-deflate",
    "tls": "echo over TLS, 64 B",
    "post": "a small JSON POST over plain HTTP, kept alive",
    "mixed": "a mixed day",
    "idle": "idle connections",
}


def select_rows(names: list[str]) -> list[Row]:
    """Return the rows for names: a workload, a row's key, or a free echo such as `echo:200x4:1KiB`."""
    if not names:
        return list(ROWS)
    chosen: list[Row] = []
    for name in names:
        found = [row for row in ROWS if name in (row.workload, row.key)]
        free = re.fullmatch(r"echo:(\d+)x(\d+):(\w+)", name)
        if not found and free and free[3] in SIZES:
            found = [_echo("echo", int(free[1]), int(free[2]), free[3])]
        if not found:
            known = ", ".join([*WORKLOADS, *(row.key for row in ROWS)])
            raise ValueError(f"no workload or row {name!r}; there are: {known}")
        chosen += [row for row in found if row not in chosen]
    return chosen
