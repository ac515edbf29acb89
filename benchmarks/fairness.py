"""What one flooding client does to the others: `python -m benchmarks.fairness [--seconds N] [--json]`.

One server, 63 connections that each echo one small message at a time, and a ticker: a Trio task of the
program's own that sleeps 10 ms at a time. Measured twice, without and with a 64th client in a process of its
own that sends 64-byte messages as fast as the server takes them. Reported: the 63 connections' p50 and p99,
and how late the ticker came at worst. The server has one core, all clients together the other.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import select
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

CONNECTIONS = 63
PAYLOAD = b"x" * 64
FRAME = b"\x81\xc0\0\0\0\0" + PAYLOAD  # a masking key of zeros leaves the payload as it is
REPLY_BYTES = 2 + len(PAYLOAD)

SERVER = """
import trio
from wsframework import App, Connection, Response

app = App()
late = [0.0]

@app.websocket("/")
async def echo(ws: Connection) -> None:
    async for message in ws:
        await ws.send(message)

@app.http("/late")
async def worst(request) -> Response:
    worst, late[0] = late[0], 0.0
    return Response(str(worst))

@app.lifespan
async def ticking():
    async def tick() -> None:
        while True:
            due = trio.current_time() + 0.010
            await trio.sleep_until(due)
            late[0] = max(late[0], trio.current_time() - due)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        yield
        nursery.cancel_scope.cancel()

app.run(port=0, on_listening=lambda server: print(server.port, flush=True))
"""


def connect(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += client.recv(4096)
    return client


def flood(port: int) -> None:
    """Send as fast as the server takes it, and read what comes back."""
    client = connect(port)
    client.setblocking(False)
    burst = FRAME * 500
    rest = burst
    while True:
        readable, writable, _ = select.select([client], [client], [])
        if readable and not client.recv(1 << 20):
            return
        if writable:
            rest = rest[client.send(rest) :] or burst


def chat(clients: list[socket.socket], seconds: float) -> list[float]:
    """Echo one message at a time on every connection; return the latencies in seconds."""
    poll = select.epoll()
    sent = {}
    by_fd = {client.fileno(): client for client in clients}
    for fd, client in by_fd.items():
        poll.register(fd, select.EPOLLIN)
        client.sendall(FRAME)
        sent[fd] = time.perf_counter()
    latencies = []
    stop = time.perf_counter() + seconds
    while (now := time.perf_counter()) < stop:
        for fd, _ in poll.poll(1):
            client = by_fd[fd]
            got = len(client.recv(4096))
            assert got == REPLY_BYTES, got
            now = time.perf_counter()
            latencies.append(now - sent[fd])
            sent[fd] = now
            client.sendall(FRAME)
    for client in clients:
        assert len(client.recv(4096)) == REPLY_BYTES
    poll.close()
    return latencies


def worst_tick(port: int) -> float:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /late HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answer = b""
        while data := client.recv(4096):
            answer += data
    return float(answer.rpartition(b"\r\n\r\n")[2])


def measure(port: int, clients: list[socket.socket], seconds: float) -> dict[str, float]:
    worst_tick(port)
    latencies = chat(clients, seconds)
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "p50_ms": round(cuts[49] * 1000, 3),
        "p99_ms": round(cuts[98] * 1000, 3),
        "messages_per_second": round(len(latencies) / seconds),
        "worst_tick_ms": round(worst_tick(port) * 1000, 3),
    }


def run(seconds: float) -> dict[str, dict[str, float]]:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    clients: list[socket.socket] = []
    flooder = None
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            if len(cores) > 1:
                os.sched_setaffinity(server.pid, {cores[0]})
                os.sched_setaffinity(0, set(cores[1:]))  # the flooding process inherits it
            clients += [connect(port) for _ in range(CONNECTIONS)]
            chat(clients, min(0.3, seconds))
            alone = measure(port, clients, seconds)
            flooder = multiprocessing.get_context("spawn").Process(target=flood, args=(port,), daemon=True)
            flooder.start()
            time.sleep(0.5)
            return {"alone": alone, "beside a flood": measure(port, clients, seconds)}
        finally:
            if flooder is not None:
                flooder.terminate()
                flooder.join()
                flooder.close()
            for client in clients:
                client.close()
            server.terminate()
            if len(cores) > 1:
                os.sched_setaffinity(0, set(cores))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fairness", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each of the two measurements")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    arguments = parser.parse_args()
    found = run(arguments.seconds)
    for case, numbers in found.items():
        print(f"{case:16}", "  ".join(f"{name} {value:,}" for name, value in numbers.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
