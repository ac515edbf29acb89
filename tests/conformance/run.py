"""Run cases: servers under test on one side, fuzzing clients on the other, one list of cases between them.

Every client takes the next case when it is done with one, so the work spreads by itself, and every client has
a server process of its own, so that on a machine with cores to spare neither side waits for the other. A
client that dies or hangs ends alone: the others go on with what is left, and the cases nobody finished are
missing in the report, which makes the run incomplete.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import trio

from tests.conformance.install import Suite
from tests.conformance.report import Report, Result, merge, read_result

__all__ = ["Job", "ServerError", "conformance"]

ROOT = Path(__file__).parents[2]

# No case lasts longer than 480 s by its own deadline, but for those of 9.5 and 9.6 (1,000 s, of which a
# server worth testing takes less than 5).
CASE_SECONDS = 600

# Python, trio and wsframework import in half a second; a busy machine may take several.
START_SECONDS = 30

# A server that is asked to stop may drain its connections first (`Timeouts.drain`: 10 s).
STOP_SECONDS = 15


class ServerError(Exception):
    """The server under test did not come up."""


@attrs.frozen
class Job:
    """One run.

    Attributes:
        suite: the installed suite.
        cases: the cases, in the order they are handed out.
        reports: a folder for logs and for the suite's pages on the cases that are not OK.
        server: the port where an echo server listens already, or the name of a module that is one: run with
            `python -m`, it listens on a port of 127.0.0.1 and prints that port as its only line of output.
        clients: how many clients share the cases.
    """

    suite: Suite
    cases: Sequence[str]
    reports: Path
    server: str | int
    clients: int


async def conformance(job: Job, progress: Callable[[Result], None]) -> Report:
    """Run every case of a job and report.

    SIGINT and SIGTERM end the run; the report has what is known by then. Call it from the main thread.

    Args:
        job: what to run.
        progress: called with each result as it comes.

    Raises:
        ServerError: the server did not come up.

    Cancellation:
        Clients and servers are stopped; there is no report.
    """
    started = trio.current_time()
    queue = deque(job.cases)
    notes: list[str] = []
    parts: list[list[Result]] = [[] for _ in range(job.clients)]

    async def client(n: int, port: int) -> None:
        def done(result: Result) -> None:
            parts[n].append(result)
            progress(result)

        try:
            await _client(job, n, port, queue, done)
        except _Lost as lost:
            notes.append(f"client {n + 1}: {lost}")

    async def stop_on_signal(scope: trio.CancelScope) -> None:
        async for number in signals:
            notes.append(f"stopped by {signal.Signals(number).name}")
            scope.cancel()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with AsyncExitStack() as servers:
            ports = [await servers.enter_async_context(_server(job, n, notes)) for n in range(job.clients)]
            async with trio.open_nursery() as watch:
                watch.start_soon(stop_on_signal, watch.cancel_scope)
                async with trio.open_nursery() as clients:
                    for n, port in enumerate(ports):
                        clients.start_soon(client, n, port)
                watch.cancel_scope.cancel()
    return merge(job.cases, parts, seconds=trio.current_time() - started, notes=notes)


class _Lost(Exception):
    """A client cannot go on; the message says with which case and why."""


async def _client(job: Job, n: int, port: int, queue: deque[str], done: Callable[[Result], None]) -> None:
    log = job.reports / f"client-{n + 1}.log"
    command = job.suite.client(f"ws://127.0.0.1:{port}/", f"server-{n + 1}", job.reports)
    async with _process(command, log) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers = _Lines(process.stdout)
        while queue:
            case = queue.popleft()
            with trio.move_on_after(CASE_SECONDS) as deadline:
                try:
                    await process.stdin.send_all(f"{case}\n".encode())
                    answer = await answers.next()
                except trio.BrokenResourceError:
                    answer = b""
            if deadline.cancelled_caught:
                raise _Lost(f"gave up on case {case} after {CASE_SECONDS} s")
            if not answer:
                raise _Lost(f"ended during case {case}: {_last_line(log)} ({log})")
            done(read_result(answer))
        await process.stdin.aclose()
        # The suite leaves timers of its last case behind but stops without them.
        with trio.move_on_after(STOP_SECONDS):
            await process.wait()


@asynccontextmanager
async def _server(job: Job, n: int, notes: list[str]) -> AsyncIterator[int]:
    if isinstance(job.server, int):
        yield job.server
        return
    log = job.reports / f"server-{n + 1}.log"
    async with _process([sys.executable, "-m", job.server], log) as process:
        assert process.stdout is not None
        line = b"nothing"
        with trio.move_on_after(START_SECONDS):
            line = await _Lines(process.stdout).next()
        if not line.isdigit():
            raise ServerError(
                f"python -m {job.server} printed {line!r} instead of its port: {_last_line(log)} ({log})"
            )
        yield int(line)
        if process.poll() is not None:
            notes.append(f"server {n + 1} exited with {process.returncode} during the run ({log})")
    if log.stat().st_size:
        notes.append(f"server {n + 1} had something to say: {_last_line(log)} ({log})")


@asynccontextmanager
async def _process(command: Sequence[str], log: Path) -> AsyncIterator[trio.Process]:
    """Run a command with pipes for stdin and stdout, a file for stderr, and an end in every case."""
    with log.open("wb") as stderr:
        process = await trio.lowlevel.open_process(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C is for us; we end them
        )
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            # A client between two cases hears of the end only here; a SIGTERM alone leaves it waiting.
            if process.stdin is not None:
                await trio.aclose_forcefully(process.stdin)
            if process.poll() is None:
                process.terminate()
            with trio.move_on_after(STOP_SECONDS):
                await process.wait()
            if process.poll() is None:
                process.kill()
            await process.wait()
            if process.stdout is not None:
                await trio.aclose_forcefully(process.stdout)


class _Lines:
    """The lines of a stream, one at a time."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def next(self) -> bytes:
        """Return the next line without its end, or b"" when the stream has ended.

        Cancellation:
            Nothing is lost.
        """
        while (end := self._buffer.find(b"\n")) < 0:
            chunk = await self._stream.receive_some()
            if not chunk:
                return b""
            self._buffer += chunk
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no output"
