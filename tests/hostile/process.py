"""The server in a process of its own, so that what belongs to a process can be measured: CPU, memory, files.

CPU time does not depend on what else the machine does, so costs are measured in it. Where a wait is what
counts, `bar_seconds` gives it in units of what the machine manages while nobody attacks.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.hostile.raw import Client, ask

__all__ = ["BRIEF", "ROOT", "Target", "bar_seconds", "eventually", "flooding", "linux_only", "serving"]

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 30.0
"""How long a process may take to start or to say something on a busy machine."""

BRIEF = {"close": 0.5}
"""Timeouts for a target that stops while clients are open that do not answer its Close."""

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


class Target:
    """A running `target.py`.

    Attributes:
        port: where it listens.
        tls: whether it speaks TLS.
    """

    def __init__(self, process: subprocess.Popen[str], log: Path, *, tls: bool) -> None:
        self.process = process
        self.tls = tls
        self._log = log
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"it did not start: {log.read_text()[-3000:]}"
        self.port = int(line)
        self._clients: list[Client] = []

    def connect(self, path: str = "/echo", fields: tuple[str, ...] = (), **more: Any) -> Client:
        """Open a WebSocket; its socket is closed with the target at the latest."""
        client = Client(self.port, path, fields, tls=self.tls, **more)
        self._clients.append(client)
        return client

    def close_clients(self) -> None:
        """Close the sockets of all clients that `connect` has opened."""
        for client in self._clients:
            client.sock.close()
        self._clients.clear()

    def figures(self) -> dict[str, int]:
        """What the process says of itself."""
        answer = ask(
            self.port, b"GET /figures HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", tls=self.tls
        )
        found: dict[str, int] = json.loads(answer.partition(b"\r\n\r\n")[2])
        return found

    def records(self, event: str = "") -> list[dict[str, Any]]:
        """What it has logged, from WARNING up, of an event or of all."""
        found = []
        for line in self._log.read_text(errors="replace").splitlines():
            if line.startswith("{"):
                entry = json.loads(line)
                if not event or entry.get("event") == event:
                    found.append(entry)
        return found

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def log_bytes(self) -> int:
        return self._log.stat().st_size

    @property
    def rss_bytes(self) -> int:
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_seconds(self) -> float:
        """What all its threads have used."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        ticks = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        with open(f"/proc/{self.process.pid}/schedstat") as file:
            return max(ticks, int(file.read().split()[0]) / 1e9)

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def busy_share(self, seconds: float = 0.5) -> float:
        """How much of a core it uses now."""
        before, began = self.cpu_seconds, time.monotonic()
        time.sleep(seconds)
        return (self.cpu_seconds - before) / (time.monotonic() - began)

    def still_serves(self) -> None:
        """A newcomer is served."""
        with self.connect() as newcomer:
            newcomer.echo(b"a newcomer")

    def stop(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = PATIENCE_SECONDS) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


@contextmanager
def serving(*, tls: bool = False, descriptors: int | None = None, **settings: Any) -> Iterator[Target]:
    """Run a target until the end of the block, whatever happens.

    Args:
        tls: whether to speak TLS.
        descriptors: how many it may have open.
        settings: `limits`, `timeouts`, `keepalive`, `lifespan`: see `target.py`.
    """
    with tempfile.TemporaryDirectory() as folder:
        if tls:
            certificate = trustme.CA().issue_cert("127.0.0.1")
            pem = Path(folder) / "server.pem"
            pem.write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
            settings["tls"] = str(pem)
        log = Path(folder) / "log"
        environment = {**os.environ, "HOSTILE_SETTINGS": json.dumps(settings), "PYTHONPATH": str(ROOT)}

        def lower_limit() -> None:
            if descriptors is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.hostile.target"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                preexec_fn=lower_limit if descriptors is not None else None,
            )
        target = None
        try:
            target = Target(process, log, tls=tls)
            yield target
        finally:
            if target is not None:
                target.close_clients()
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(1.0)
                except subprocess.TimeoutExpired:
                    process.kill()
            process.wait(PATIENCE_SECONDS)
            assert process.stdout is not None
            process.stdout.close()


@contextmanager
def flooding(target: Target, kind: str, clients: int, seconds: float) -> Iterator[None]:
    """Have a process flood the target: see `flooder.py`."""
    command = [sys.executable, "-m", "tests.hostile.flooder", str(target.port), kind, str(clients)]
    command += [str(seconds), *(["tls"] if target.tls else [])]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"flooding\n"
            yield
        finally:
            process.kill()


def bar_seconds(target: Target, least: float = 0.06) -> float:
    """How long an innocent's echo may take: `least`, or more where the machine is busy with other things.

    The unit is an echo beside one process that uses a core, as whoever floods does.
    """
    with (
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy,
        target.connect(seconds=PATIENCE_SECONDS) as innocent,
    ):
        waits = [innocent.echo() for _ in range(100)]
        busy.kill()
    return max(least, 20 * statistics.median(waits))


def eventually(condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until a condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
