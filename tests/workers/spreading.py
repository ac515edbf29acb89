"""Servers in several processes that accept from one listener, and clients that stay connected."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterable

from wsframework.server.crowd import Phase
from wsframework.workers.page import Page

SERVER = """
import functools, socket, sys
from wsframework import App, Connection, Keepalive, Limits, Timeouts
from wsframework.server import run_server
from wsframework.workers.page import Page

fd, slot, listener, limit = map(int, sys.argv[1:])
# The clients answer no pings.
app = App(
    limits=Limits(connections=limit),
    timeouts=Timeouts(drain=2.0),
    keepalive=Keepalive(interval=None),
    allowed_hosts="*",
)

@app.websocket("/")
async def stay(ws: Connection) -> None:
    async for message in ws:
        await ws.send(message)

crowd = Page.attach(fd, slot)
start = functools.partial(app.serve, sockets=[socket.socket(fileno=listener)], crowd=crowd)
run_server(start, lambda server: print("ready", flush=True))
"""

CLIENTS = """
import resource, selectors, socket, sys, time
from collections import Counter

port, wanted, at_once = map(int, sys.argv[1:])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
REQUEST = (
    b"GET / HTTP/1.1\\r\\nHost: localhost\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\\r\\nSec-WebSocket-Version: 13\\r\\n\\r\\n"
)
selector, statuses, open_ones, longest = selectors.DefaultSelector(), Counter(), [], 0.0
begun = dict()

def begin():
    client = socket.socket()
    begun[client] = time.monotonic()
    client.connect(("127.0.0.1", port))  # the kernel answers, whoever accepts
    client.send(REQUEST)
    selector.register(client, selectors.EVENT_READ)

def take(client):
    global longest
    try:
        answer = client.recv(4096).split(b" ")[1:2]
    except OSError:
        answer = [b"reset"]
    longest = max(longest, time.monotonic() - begun.pop(client))
    status = answer[0].decode() if answer else "closed"
    statuses[status] += 1
    if status == "101":
        open_ones.append(client)
    else:
        client.close()

started = 0
while started < wanted or begun:
    while started < wanted and len(begun) < at_once:
        begin()
        started += 1
    for key, _ in selector.select(30) or sys.exit("a client has waited for 30 s"):
        selector.unregister(key.fileobj)
        take(key.fileobj)
print(longest, *(f"{status}:{number}" for status, number in sorted(statuses.items())), flush=True)
sys.stdin.read()  # stay until the test is over
"""


class Clients:
    """Clients in one process: they shake hands, some at a time, and then stay connected.

    Args:
        port: where to.
        connections: how many.
        at_once: how many handshakes are in flight.
    """

    def __init__(self, port: int, connections: int, at_once: int = 8) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLIENTS, str(port), str(connections), str(at_once)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answers(self) -> tuple[float, dict[str, int]]:
        """Wait for all handshakes; return how long the slowest took, and the number of each answer."""
        assert self._process.stdout is not None
        longest, *counts = self._process.stdout.readline().split()
        pairs = (count.split(":") for count in counts)
        return float(longest), {status: int(number) for status, number in pairs}

    def end(self) -> None:
        """Close all connections."""
        self._process.communicate()


class Servers:
    """Servers that share a listener and a page.

    Args:
        number: how many.
        limit: `Limits.connections`.

    Attributes:
        page: what they tell.
        port: where they listen.
    """

    def __init__(self, number: int, limit: int = 50_000) -> None:
        self.page = Page.create(number + 2)
        self._limit = limit
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port: int = self._listener.getsockname()[1]
        self.processes: list[subprocess.Popen[str]] = []
        self._clients: list[Clients] = []
        for _ in range(number):
            self.start()
        self.wait_ready()

    def start(self) -> subprocess.Popen[str]:
        """Start one more."""
        fds = [self.page.fd, self._listener.fileno()]
        arguments = map(str, (fds[0], len(self.processes), fds[1], self._limit))
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, *arguments], pass_fds=fds, stdout=subprocess.PIPE, text=True
        )
        self.processes.append(process)
        return process

    def wait_ready(self) -> None:
        """Wait until all of them serve."""
        for process in self.processes:
            if self.phase(process) < Phase.SERVING:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"

    def connect(self, connections: int, at_once: int = 8) -> Clients:
        """Start clients; they leave at the end of the test at the latest."""
        clients = Clients(self.port, connections, at_once)
        self._clients.append(clients)
        return clients

    def phase(self, process: subprocess.Popen[str]) -> Phase:
        """What a server is doing."""
        return self.page.read(self.processes.index(process)).phase

    def connections(self) -> list[int]:
        """How many connections each server has open."""
        return [self.page.read(slot).connections for slot in range(len(self.processes))]

    def wait_connections(self, wanted: int) -> list[int]:
        """Wait until so many are open in all servers together; return how many each has."""
        deadline = time.monotonic() + 10
        while sum(self.connections()) != wanted:
            assert time.monotonic() < deadline, self.connections()
            time.sleep(0.01)
        return self.connections()

    def wait_beating(self, process: subprocess.Popen[str]) -> None:
        """Wait until a server runs."""
        slot, now = self.processes.index(process), time.monotonic()
        while self.page.read(slot).heartbeat < now:
            time.sleep(0.01)

    def wait_some(self) -> None:
        """Wait until there are some."""
        while sum(self.connections()) < 100:
            time.sleep(0.001)

    def close(self) -> None:
        """End all processes."""
        for clients in self._clients:
            clients.end()
        for process in self.processes:
            process.kill()
            process.communicate()
        self._listener.close()
        self.page.close()


def spread(connections: Iterable[int]) -> float:
    """Return by which factor the largest number exceeds the mean."""
    numbers = list(connections)
    return max(numbers) * len(numbers) / sum(numbers)
