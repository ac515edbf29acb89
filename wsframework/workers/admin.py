"""The admin socket of a parent: what its workers do, and requests to change them.

A unix socket that only its owner may use. Each request is one line of JSON, `{"do": "show"}`, and so is the
answer, which has an `error` if the request was refused.

    show      the figures of all workers, and their sums
    restart   replace all workers, one after the other
    add       start one more, unless there are as many as can be
    remove    end one, unless it is the last
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import trio

from wsframework.engines.running import together
from wsframework.errors import ListenError
from wsframework.records import record
from wsframework.server.crowd import Phase
from wsframework.server.listeners import open_unix_listener, unix_socket_file
from wsframework.workers.crew import Worker
from wsframework.workers.page import Page
from wsframework.workers.rolling import Roller
from wsframework.workers.supervisor import Supervisor

__all__ = ["Admin", "admin_folder", "memory_of", "open_admin_socket", "peer_uid"]

_CLIENTS = 64
"""At the same time. One more takes the place of the one that has been silent longest."""

_REQUEST_BYTES = 4096
_IDLE_SECONDS = 60.0

_PROBE_SECONDS = 0.1

_RATE_SECONDS = 2.0
"""How often messages are counted: workers sum them as often."""

_STUCK_SECONDS = 2.0
"""The age of a heartbeat from which on a worker is shown as stuck: three are lost by then."""


def admin_folder() -> Path:
    """Return where parents have their sockets, each named after its process, unless they are told a path.

    It is `wsframework` in XDG_RUNTIME_DIR, or else a folder of this user among the temporary files.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime, "wsframework")
    return Path(tempfile.gettempdir(), f"wsframework-{os.getuid()}")


@contextmanager
def open_admin_socket(path: str | None) -> Iterator[socket.socket | None]:
    """Listen on an admin socket, and remove its file at the end.

    Args:
        path: where; None for the folder above. If that cannot be used, a warning is logged, and there is no
            such socket.

    Raises:
        ListenError: it cannot listen at this path.
    """
    try:
        where = path
        if where is None:
            folder = _own_folder()
            _remove_stale_sockets(folder)
            where = str(folder / f"{os.getpid()}.sock")
        listener = open_unix_listener(where, 0o600)
    except (OSError, ListenError) as error:
        if path is not None:
            raise
        record(logging.WARNING, "admin.unavailable", error=str(error))
        yield None
        return
    remove = unix_socket_file(where)
    try:
        yield listener
    finally:
        remove()
        listener.close()


def _own_folder() -> Path:
    folder = admin_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    # Among temporary files, another user may have made it first.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ListenError(f"{folder} is not a folder that only this user can change")
    return folder


def _remove_stale_sockets(folder: Path) -> None:
    """Remove the sockets of parents that were killed."""
    for file in folder.glob("*.sock"):
        # Two signs: one of them may be in another container that shares the folder, or about to listen.
        if file.stem.isdecimal() and not _is_alive(int(file.stem)) and _refuses(file):
            with contextlib.suppress(OSError):
                file.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _refuses(file: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(str(file))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


@attrs.define
class _Rate:
    """How many messages a worker has received and sent, and how many a second lately."""

    messages: int = 0
    at: float = 0.0
    per_second: float = 0.0


class Admin:
    """Answers on the admin socket.

    Args:
        supervisor: has the workers.
        roller: restarts them.
        page: has their figures.
    """

    def __init__(self, supervisor: Supervisor, roller: Roller, page: Page) -> None:
        self._supervisor = supervisor
        self._roller = roller
        self._page = page
        self._rates: dict[int, _Rate] = {}
        self._clients: dict[trio.CancelScope, None] = {}

    async def serve(self, listener: socket.socket) -> None:
        """Answer until cancelled.

        Args:
            listener: the socket; the caller closes it.
        """
        listener.setblocking(False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._count)
            while True:
                await trio.lowlevel.wait_readable(listener)
                try:
                    client, _ = listener.accept()
                except OSError:
                    await trio.sleep(0.1)
                    continue
                if len(self._clients) >= _CLIENTS:
                    longest_silent = next(iter(self._clients))
                    longest_silent.cancel(reason="there are too many clients")
                    del self._clients[longest_silent]
                scope = trio.CancelScope()
                self._clients[scope] = None
                nursery.start_soon(self._talk, client, scope)

    async def _count(self) -> None:
        while True:
            now = trio.current_time()
            before, self._rates = self._rates, {}
            for number, worker in self._supervisor.workers.items():
                counted = self._page.read(worker.slot).counted
                rate = _Rate(counted.messages_received + counted.messages_sent, now)
                if number in before:
                    last = before[number]
                    rate.per_second = max(0, rate.messages - last.messages) / (now - last.at)
                self._rates[number] = rate
            await trio.sleep(_RATE_SECONDS)

    async def _talk(self, client: socket.socket, scope: trio.CancelScope) -> None:
        try:
            # Entered also when it was cancelled meanwhile, because that closes the socket.
            async with trio.SocketStream(trio.socket.from_stdlib_socket(client)) as stream:
                # A client that breaks off, or says nothing, is gone.
                with contextlib.suppress(trio.BrokenResourceError), scope:
                    scope.deadline = trio.current_time() + _IDLE_SECONDS
                    if peer_uid(client) not in (None, 0, os.getuid()):
                        await stream.send_all(_line({"error": "this socket is another user's"}))
                        return
                    buffer = b""
                    while len(buffer) <= _REQUEST_BYTES and (piece := await stream.receive_some()):
                        *lines, buffer = (buffer + piece).split(b"\n")
                        for line in lines:
                            await stream.send_all(_line(self.answer(line)))
                        scope.deadline = trio.current_time() + _IDLE_SECONDS
                        if scope in self._clients:
                            self._clients[scope] = self._clients.pop(scope)  # now the last one
        finally:
            self._clients.pop(scope, None)

    def answer(self, line: bytes) -> dict[str, object]:
        """Do what a line asks for, and return the answer."""
        try:
            wanted = json.loads(line)
        except (ValueError, RecursionError):
            wanted = None
        match wanted:
            case {"do": "show"}:
                return self._figures()
            case {"do": "restart" | "add" | "remove"} if self._supervisor.stopping:
                return {"error": "the server is stopping"}
            case {"do": "restart"}:
                self._roller.ask()
                return {"done": f"restarting {len(self._supervisor.places)} workers, one after the other"}
            case {"do": "add"} if self._supervisor.add():
                return {"done": "starting one more worker"}
            case {"do": "add"}:
                most = self._supervisor.most
                return {"error": f"{most} workers are the most; restart the server with --workers for more"}
            case {"do": "remove"} if self._supervisor.remove():
                return {"done": "ending one worker"}
            case {"do": "remove"}:
                return {"error": "the last worker stays; stop the server instead"}
            case _:
                return {"error": 'not a request: write {"do": "show"}, or restart, add or remove'}

    def _figures(self) -> dict[str, object]:
        workers = [self._shown(worker) for worker in self._supervisor.workers.values()]
        # Those who watch a counter expect it to grow, also when workers are replaced.
        counted = self._supervisor.counted
        sums: dict[str, int | float] = {name: getattr(counted, name) for name in _COUNTERS}
        for shown in workers:
            for name in _SUMMED:
                value = shown[name]
                if isinstance(value, int | float):
                    sums[name] = sums.get(name, 0) + value
        read = [self._page.read(worker.slot).engines for worker in self._supervisor.workers.values()]
        engines = together([each for each in read if each is not None])
        total = {**sums, "engines": engines and attrs.asdict(engines)}
        return {"pid": os.getpid(), "restarting": self._roller.rolling, "workers": workers, "total": total}

    def _shown(self, worker: Worker) -> dict[str, object]:
        figures = self._page.read(worker.slot)
        counted = figures.counted
        runs = Phase.SERVING <= figures.phase <= Phase.DRAINING
        stuck = runs and time.monotonic() - figures.heartbeat > _STUCK_SECONDS
        rss, pss = memory_of(worker.pid)
        return {
            "worker": worker.number,
            "pid": worker.pid,
            "age": round(trio.current_time() - worker.started_at, 1),
            "state": "stuck" if stuck else worker.state,
            "connections": figures.connections,
            "websockets": counted.websockets,
            "accepted": counted.accepted,
            "refused": counted.refused,
            "messages_received": counted.messages_received,
            "messages_sent": counted.messages_sent,
            "messages_per_second": round(self._rates.get(worker.number, _Rate()).per_second, 1),
            "loop_lag": round(counted.loop_lag, 4),
            "rss": rss,
            "pss": pss,
            "engines": None if figures.engines is None else attrs.asdict(figures.engines),
        }


_COUNTERS = ("accepted", "refused", "messages_received", "messages_sent")

_SUMMED = (*_COUNTERS, "connections", "websockets", "messages_per_second", "rss", "pss")


def memory_of(pid: int) -> tuple[int | None, int | None]:
    """Return a process's resident bytes, and its share of them where pages are shared; None if unknown."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None, None
    found = dict(line.split(":", 1) for line in text.splitlines()[1:])
    rss, pss = (int(found[name].split()[0]) * 1024 for name in ("Rss", "Pss"))
    return rss, pss


def peer_uid(client: socket.socket) -> int | None:
    """Return the user of a unix socket's peer; None where only the file's permissions say who may connect."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    form = "3i"  # struct ucred of Linux: pid, uid, gid
    found = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(form))
    return int(struct.unpack(form, found)[1])


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"
