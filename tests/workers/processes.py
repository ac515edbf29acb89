"""`wsframework run --workers` as processes: its records, workers, and clients that know who serves them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from tests.cli.process import PATIENCE_SECONDS, Program, running

APP = """\
import os, time, trio
from wsframework import App, Timeouts
app = App(timeouts=Timeouts(drain=3, lifespan=2))
print("imported by", os.getpid())

@app.websocket("/")
async def echo(ws):
    await ws.send(str(os.getpid()))
    async for message in ws:
        if message == "block":
            time.sleep(60)
        await ws.send(message)

@app.http("/signals")
async def signals(request):
    command = ["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]
    return (await trio.run_process(command, capture_stdout=True)).stdout

@app.http("/environment")
async def environment(request):
    return "\\n".join(os.environ)
"""


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


QUIET = f"""\
import logging
{APP}
logging.getLogger("wsframework").setLevel(logging.WARNING)
"""
"""The same without a record of each connection; the parent has its own level."""


_PARENT = """\
from wsframework.cli import main
from wsframework.workers import watching
watching.STUCK_SECONDS = {}
main()
"""


class Crew:
    """A parent and its workers."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._read = 0
        self._records: list[dict[str, Any]] = []
        line = program.wait_for("Listening on")
        self.url = next((word.rstrip(",") for word in line.split() if "://" in word), "")

    @property
    def parent(self) -> int:
        """The parent's process."""
        return self.program.process.pid

    @property
    def records(self) -> list[dict[str, Any]]:
        """What all of them have logged so far."""
        new = self.program.errors[self._read :]
        self._read += len(new)
        self._records += [json.loads(line) for line in new if line.startswith("{")]
        return self._records

    def pids(self) -> list[int]:
        """The processes of workers that serve, oldest first."""
        ready = [entry["pid"] for entry in self.records if entry.get("event") == "worker.ready"]
        return [pid for pid in ready if is_alive(pid)]

    def logged(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The records of an event with these fields so far."""
        return [
            entry for entry in self.records if entry.get("event") == event and fields.items() <= entry.items()
        ]

    def wait_for(
        self, event: str, count: int = 1, patience: float = PATIENCE_SECONDS, **fields: object
    ) -> dict[str, Any]:
        """Wait until an event has been logged so often; return the last record of it."""
        try:
            wait_until(lambda: len(self.logged(event, **fields)) >= count, event, patience)
        except AssertionError:
            raise AssertionError(f"no {event} {fields} in {self.records[-40:]}") from None
        return self.logged(event, **fields)[count - 1]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the parent."""
        os.kill(self.parent, number)


@contextmanager
def crew(
    cwd: Path,
    workers: int = 2,
    *options: str,
    target: str = "echo:app",
    text: str | None = None,
    stuck: float = 30,
) -> Iterator[Crew]:
    """Run a parent with workers that all serve; afterwards none of its processes is left.

    Args:
        text: the module `echo`.
        stuck: after how many seconds without a heartbeat a worker is ended.
    """
    if not (cwd / "echo.py").exists():
        (cwd / "echo.py").write_text(APP if text is None else text)
    arguments = ("run", target, "--port", "0", "--workers", str(workers), "--log-format", "json", *options)
    with running("-c", _PARENT.format(stuck), *arguments, cwd=cwd) as program:
        found = Crew(program)
        try:
            found.wait_for("worker.ready", workers)
            yield found
        finally:
            program.process.kill()
            started = [entry["pid"] for entry in found.logged("worker.started")]
            for pid in started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            wait_until(lambda: not any(map(is_alive, started)), f"gone: {started}")


def wait_until(condition: Any, what: str, seconds: float = PATIENCE_SECONDS) -> float:
    """Wait for a condition, and return how long that took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, what
        time.sleep(0.01)
    return time.monotonic() - start


def is_alive(pid: int) -> bool:
    """Whether a process runs, or is stopped; a zombie does not count."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


class Client:
    """A WebSocket, the process that serves it, and its end."""

    def __init__(self, ws: WebSocketConnection, pid: int, stream: trio.SocketStream) -> None:
        self.ws = ws
        self.pid = pid
        self._stream = stream

    async def ask(self, message: str = "hi") -> str:
        """Send a message and return the answer."""
        await self.ws.send_message(message)
        return str(await self.ws.get_message())

    async def code(self) -> int:
        """Wait for the end, and return the close code: 1006 for a connection that was lost."""
        try:
            with trio.fail_after(PATIENCE_SECONDS):
                await self.ws.get_message()
        except ConnectionClosed as closed:
            await self.drop()
            return 1006 if closed.reason is None else int(closed.reason.code)
        raise AssertionError("a message in place of the end")

    async def drop(self) -> None:
        """Close the stream. The server waits for that, and trio-websocket leaves it open."""
        await self._stream.aclose()


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Client]:
    """Open a WebSocket to whichever worker takes it."""
    port = int(url.rpartition(":")[2])
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
        yield await open_client(nursery, stream)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def clients_of_all(url: str, pids: list[int]) -> AsyncIterator[dict[int, Client]]:
    """Open WebSockets until each of the processes has one; return one of each."""
    port = int(url.rpartition(":")[2])
    # The streams are ours to close: trio-websocket leaves them open when the server closes first.
    async with contextlib.AsyncExitStack() as streams, trio.open_nursery() as nursery:
        found: dict[int, Client] = {}
        more: list[Client] = []
        deadline = trio.current_time() + PATIENCE_SECONDS
        while not found.keys() >= set(pids):
            assert trio.current_time() < deadline, f"{pids} do not all accept: {list(found)}"
            stream = await streams.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
            one = await open_client(nursery, stream)
            if found.setdefault(one.pid, one) is not one:
                more.append(one)
        for one in more:
            await one.drop()
        yield found
        nursery.cancel_scope.cancel()


async def open_client(nursery: trio.Nursery, stream: trio.SocketStream) -> Client:
    """Upgrade a stream, and hear which process has it."""
    ws = await wrap_client_stream(nursery, stream, "localhost", "/")
    return Client(ws, int(await ws.get_message()), stream)


@asynccontextmanager
async def connected(url: str, path: str) -> AsyncIterator[WebSocketConnection]:
    """Open a WebSocket, and close its stream afterwards, which trio-websocket may leave open.

    Raises:
        OSError: there was no answer; trio-websocket waits on also if the connection was lost.
    """
    port = int(url.rpartition(":")[2])
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
        with trio.move_on_after(10) as opening:
            ws = await wrap_client_stream(nursery, stream, "localhost", path)
        if opening.cancelled_caught:
            raise OSError("the handshake was not answered")
        yield ws
        nursery.cancel_scope.cancel()


def code_of(error: BaseException) -> int:
    """Return the close code of an exception: 1006 for a connection that was lost."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ConnectionClosed)
    return 1006 if error.reason is None else int(error.reason.code)
