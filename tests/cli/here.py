"""A command in this process, which takes a hundredth of the time of a new one.

Each command has also a test in a process of its own (`tests/cli/process.py`).
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import queue
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cli.process import PATIENCE_SECONDS, url_in
from wsframework.cli import main


class _Output(io.TextIOWrapper):
    """A pipe's end, as far as a command can see."""

    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        self.writes: queue.SimpleQueue[str] = queue.SimpleQueue()
        super().__init__(self.bytes, encoding="utf-8", write_through=True)

    def write(self, text: str, /) -> int:
        written = super().write(text)
        self.writes.put(text)
        return written

    def text(self) -> str:
        return self.bytes.getvalue().decode()


@contextlib.contextmanager
def _process_state() -> Iterator[None]:
    """Undo what a server does to its process for good."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "freeze", lambda: None)
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)


@contextlib.contextmanager
def _standard_streams(typed: bytes) -> Iterator[tuple[_Output, _Output]]:
    reading, writing = os.pipe()
    assert len(typed) < 60_000, "more than a pipe holds"
    os.write(writing, typed)
    os.close(writing)
    out, err = _Output(), _Output()
    with open(reading, encoding="utf-8") as stdin, pytest.MonkeyPatch.context() as patch:
        for name, stream in (("stdin", stdin), ("stdout", out), ("stderr", err)):
            patch.setattr(sys, name, stream)
        yield out, err


def _exit_code(arguments: tuple[str, ...]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    code = ended.value.code or 0
    assert isinstance(code, int)
    return code


def run_here(*arguments: str, typed: bytes = b"") -> tuple[int, str, str]:
    """Run a command to its end; return its exit code, stdout and stderr.

    Args:
        arguments: what follows the program's name.
        typed: what is on its standard input, a pipe.
    """
    with _process_state(), _standard_streams(typed) as (out, err):
        code = _exit_code(arguments)
    return code, out.text(), err.text()


def serve_here(*arguments: str, visit: Callable[[str], object]) -> tuple[int, str, str]:
    """Run a server; stop it with SIGTERM when `visit`, which a thread calls with its URL, has returned.

    Returns:
        As `run_here` does.
    """
    with ThreadPoolExecutor(1) as thread, _process_state(), _standard_streams(b"") as (out, err):

        def visiting() -> None:
            if line := out.writes.get(timeout=PATIENCE_SECONDS):
                try:
                    visit(url_in(line))
                finally:
                    os.kill(os.getpid(), signal.SIGTERM)

        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # should the server have ended by itself
        visited = thread.submit(visiting)
        try:
            code = _exit_code(arguments)
        finally:
            out.writes.put("")
            signal.signal(signal.SIGTERM, before)
        visited.result()
    return code, out.text(), err.text()
