"""A stand-in for systemd: it starts a program with sockets, and hears how it goes."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.cli.process import PATIENCE_SECONDS, Program, running

_START = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="chat.socket")
os.execv(sys.executable, [sys.executable, "-m", "wsframework", *sys.argv[2:]])
"""


@attrs.frozen
class Unit:
    """A program that systemd has started."""

    program: Program
    _notified: socket.socket

    def wait_for(self, state: str) -> str:
        """Wait until the program says this, and return all that it has said with it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            said = self._notified.recv(4096).decode()
            if said.startswith(state):
                return said
        raise AssertionError(f"no {state} in time: {self.program.errors}")


@contextmanager
def unit(
    cwd: Path, arguments: Sequence[str], listener: socket.socket | None = None, watchdog_seconds: float = 0
) -> Iterator[Unit]:
    """Start `wsframework …` as systemd does.

    Args:
        listener: the socket of a socket unit.
    """
    address = f"\0{cwd}"
    environment = {"NOTIFY_SOCKET": address.replace("\0", "@")}
    if watchdog_seconds:
        environment["WATCHDOG_USEC"] = str(round(watchdog_seconds * 1e6))
    command, inherited = ["-m", "wsframework", *arguments], []
    if listener is not None:
        command, inherited = ["-c", _START, str(listener.fileno()), *arguments], [listener.fileno()]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.settimeout(PATIENCE_SECONDS)
        notified.bind(address)
        with running(*command, cwd=cwd, environment=environment, inherited=inherited) as program:
            yield Unit(program, notified)
