"""What a turn needs: a Redis, and two processes of a contender that share rooms through it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

from benchmarks.contenders import HERE, Contender, python
from benchmarks.process import Server, pin_server
from benchmarks.redis_rooms.client import DIALECTS, Dialect

__all__ = ["CONTENDERS", "Redis", "SharedContender", "servers", "why_missing"]


@attrs.frozen
class SharedContender:
    """A way to share rooms: its server in `benchmarks/servers`, that server's mode, what is promised."""

    name: str
    server: str
    mode: str
    promise: str
    dialect_name: str = "plain"
    imports: str = ""
    package: str = ""

    @property
    def dialect(self) -> Dialect:
        return DIALECTS[self.dialect_name]


_FLEETING = "what is published now reaches who listens now"

CONTENDERS = (
    SharedContender(
        "wsframework", "redis_wsframework", "queued", "stored, one order, gaps told", imports="wsframework"
    ),
    SharedContender(
        "wsframework publish", "redis_wsframework", "stored", "the same, and each publish waits for Redis",
        imports="wsframework",
    ),
    SharedContender(
        "socket.io redis", "redis_socketio.js", "pubsub", _FLEETING, "socket.io",
        package="@socket.io/redis-adapter",
    ),
    SharedContender(
        "socket.io streams", "redis_socketio.js", "streams", "stored in one stream of all rooms", "socket.io",
        package="@socket.io/redis-streams-adapter",
    ),
    SharedContender(
        "channels core", "redis_channels", "core", "queues of processes, which drop what is too much",
        imports="channels_redis",
    ),
    SharedContender(
        "channels pubsub", "redis_channels", "pubsub", _FLEETING, imports="channels_redis"
    ),
)  # fmt: skip


def why_missing(contender: SharedContender) -> str | None:
    """Return why a contender cannot take part, or None."""
    if contender.package:
        there = (HERE / "node_modules" / contender.package / "package.json").exists()
        return None if there and shutil.which("node") else f"{contender.package} or Node.js is not installed"
    found = subprocess.run(
        [python(), "-c", f"import {contender.imports}"], capture_output=True, cwd=HERE.parent
    )
    return None if found.returncode == 0 else f"{contender.imports} is not installed"


class Redis:
    """A server of our own, without persistence, on the core of the servers."""

    def __init__(self) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise FileNotFoundError("there is no redis-server; install it with your system's packages")
        self._folder = tempfile.TemporaryDirectory()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        command = [
            program,
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--save",
            "",
            "--dir",
            self._folder.name,
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=pin_server)
        self.url = f"redis://127.0.0.1:{self.port}"
        deadline = time.monotonic() + 20
        while not self._answers():
            if time.monotonic() > deadline:
                raise TimeoutError("redis-server does not answer")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return self.command("PING").startswith(b"+PONG")
        except OSError:
            return False

    def command(self, *words: str) -> bytes:
        """Send a command, and return the first part of its reply."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock:
            sock.sendall(
                b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w.encode()) for w in words)
            )
            return sock.recv(65536)

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its threads."""
        tasks = Path(f"/proc/{self._process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def resident_bytes(self) -> int:
        """Return its memory."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * 4096

    def stop(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()


@contextlib.contextmanager
def servers(contender: SharedContender, redis: Redis, count: int) -> Iterator[list[Server]]:
    """Start this many processes of a contender on an empty Redis."""
    redis.command("FLUSHALL")
    environment = {"BENCH_REDIS": redis.url, "BENCH_PREFIX": "bench"}
    started: list[Server] = []
    try:
        for _ in range(count):
            started.append(Server(Contender(contender.name, contender.server), contender.mode, environment))
        yield started
    finally:
        for server in started:
            server.stop()
