"""A program of ours as a process: its lines as they come, its end by a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO

ROOT = Path(__file__).parents[2]

PATIENCE_SECONDS = 30.0
"""How long a line or an end may take on a busy machine before the test fails."""


def url_in(line: str) -> str:
    """Return the first URL in what a server says, or the whole line if there is none."""
    return next((word for word in line.split() if "://" in word), line).rstrip(",")


class Program:
    """A running process, and the lines it has printed so far."""

    def __init__(
        self,
        command: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str] = MappingProxyType({}),
        inherited: Sequence[int] = (),
    ) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Without the terminal of who runs the tests, which has a say in what SIGHUP means.
            start_new_session=True,
        )
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._ended: list[list[str]] = []
        self._changed = threading.Condition()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.lines), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.errors), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: IO[str], lines: list[str]) -> None:
        with pipe:
            for line in pipe:
                with self._changed:
                    lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended.append(lines)
            self._changed.notify_all()

    def wait_for(self, text: str, *, stderr: bool = False) -> str:
        """Return the first line that holds `text`, waiting for it."""
        lines = self.errors if stderr else self.lines

        def found() -> str | None:
            return next((line for line in lines if text in line), None)

        with self._changed:
            # When the stream has ended, no line comes any more.
            self._changed.wait_for(
                lambda: found() or any(lines is ended for ended in self._ended), PATIENCE_SECONDS
            )
            line = found()
        assert line is not None, f"no line with {text!r}\nstdout: {self.lines}\nstderr: {self.errors}"
        return line

    @property
    def url(self) -> str:
        """The first URL that `wsframework run` says it listens on."""
        return url_in(self.wait_for("Listening on"))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Return the exit code, with all lines read."""
        code = self.process.wait(PATIENCE_SECONDS)
        for reader in self._readers:
            reader.join(PATIENCE_SECONDS)
        return code


@contextmanager
def running(
    *arguments: str,
    cwd: Path = ROOT,
    environment: Mapping[str, str] = MappingProxyType({}),
    inherited: Sequence[int] = (),
) -> Iterator[Program]:
    """Run `python …`, and end it with the block whatever happens.

    Args:
        environment: variables beside those of the tests.
        inherited: descriptors that it gets.
    """
    program = Program([sys.executable, *arguments], cwd, environment, inherited)
    try:
        yield program
    finally:
        if program.process.poll() is None:
            program.process.kill()
        program.wait()


@contextmanager
def serving(target: str, *options: str, cwd: Path = ROOT) -> Iterator[Program]:
    """Run `wsframework run TARGET` on a free port."""
    with running("-m", "wsframework", "run", target, "--port", "0", *options, cwd=cwd) as program:
        yield program
