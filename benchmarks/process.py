"""One contender's server as a process: started pinned, paused while others are measured, watched, killed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.contenders import ROOT, Contender

__all__ = ["CLIENT_CORE", "SERVER_CORE", "Server", "StartFailed", "pin_client", "pin_server"]

START_SECONDS = 30.0


def _cores() -> tuple[int | None, int | None]:
    available = sorted(os.sched_getaffinity(0))
    return (available[0], available[1]) if len(available) > 1 else (None, None)


SERVER_CORE, CLIENT_CORE = _cores()


def pin_client() -> None:
    """Keep this process (the load client) off the servers' core."""
    if CLIENT_CORE is not None:
        os.sched_setaffinity(0, {CLIENT_CORE})


class StartFailed(Exception):
    """The server did not come up; the text says what it wrote."""


class Server:
    """A running server. Its processes form a session of their own, so that all are found and ended."""

    def __init__(self, contender: Contender, mode: str, environment: dict[str, str]) -> None:
        self.contender = contender
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in stop()
        env = os.environ | environment | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            contender.command(mode),
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            preexec_fn=pin_server,
        )
        self.pid = self._process.pid
        try:
            self.port = self._wait_ready()
        except BaseException:
            self.stop()
            raise

    def _wait_ready(self) -> int:
        assert self._process.stdout is not None
        stdout, deadline, text = self._process.stdout.fileno(), time.monotonic() + START_SECONDS, b""
        while time.monotonic() < deadline:
            if select.select([stdout], [], [], 0.1)[0]:
                data = os.read(stdout, 4096)
                text += data
                for line in text.splitlines():
                    if line.startswith(b"READY "):
                        return int(line.split()[1])
                if not data:
                    break
        raise StartFailed(f"{self.contender.name} did not start: {self.log_tail() or text.decode()[-500:]}")

    def log_tail(self) -> str:
        """Return the last lines the server wrote to stderr."""
        self._log.seek(0)
        return "\n".join(self._log.read().strip().splitlines()[-4:])

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def pause(self) -> None:
        """Stop the server's clock: no timer of it runs while another is measured."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._log.close()

    def alive(self) -> bool:
        return self._process.poll() is None

    def pids(self) -> list[int]:
        """Return the processes of the server's session."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[3]) == self.pid:
                    found.append(int(entry))
        return found

    def cpu_seconds(self, pids: list[int]) -> float:
        """Return the CPU time of all threads of `pids`, from the scheduler's own counters."""
        total = 0
        for pid in pids:
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
            except OSError:
                continue
        return total / 1e9

    def resident_bytes(self) -> int:
        """Return the resident memory of all the server's processes."""
        page = os.sysconf("SC_PAGE_SIZE")
        total = 0
        for pid in self.pids():
            try:
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
            except OSError:
                continue
        return total


def pin_server() -> None:
    if SERVER_CORE is not None:
        os.sched_setaffinity(0, {SERVER_CORE})


def core_busy_seconds() -> float:
    """Return how long the two cores of the measurement have been busy, by anybody."""
    if SERVER_CORE is None or CLIENT_CORE is None:
        return 0.0
    tick = os.sysconf("SC_CLK_TCK")
    busy = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *numbers = line.split()
        if name in (f"cpu{SERVER_CORE}", f"cpu{CLIENT_CORE}"):
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, numbers[:8])
            busy += user + nice + system + irq + softirq + steal
    return busy / tick
