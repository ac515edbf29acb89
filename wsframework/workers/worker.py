"""What runs in a worker beside the App: it obeys the parent, and tells it how it went.

start-up    ignore the terminal's signals, read what to serve, watch for the parent's end
serving     obey the channel
the end     as told by the channel, by SIGTERM, or within two seconds of the parent's end
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from select import poll
from types import FrameType
from typing import Any

import attrs
import trio

from wsframework.config import Timeouts
from wsframework.engines.running import figures_of_engines
from wsframework.records import record
from wsframework.server import Server, run_server
from wsframework.workers.channel import Channel
from wsframework.workers.page import Page, Slot

try:
    import ctypes
except ImportError:  # an optional part of Python's own build
    _ctypes: Any = None
else:
    _ctypes = ctypes

__all__ = ["Assignment", "serve_as_worker", "take_assignment"]

ORPHAN_DRAIN_SECONDS = 1.0
ORPHAN_SECONDS = 1.8
"""How long after the parent's end a worker may drain, and exist."""

_PR_SET_PDEATHSIG = 1
"""prctl(2), <linux/prctl.h>."""

_HELD_SECONDS = signal.SIGTRAP
"""The same for a worker in which C code holds the interpreter's lock, so that none of ours can run. A signal,
because the kernel sends it, and its handler, alarm(3), takes the signal's number for the seconds."""

_OF_PARENT = (signal.SIGTTIN, signal.SIGTTOU)

_FIGURES_SECONDS = 1.0
"""How often the figures of engines are told."""

STUCK_SECONDS = 10.0
"""Added to an App's own limits: how long the parent waits for the end of a worker before it kills it. The
worker's own last resort is earlier, and logs what is stuck."""


@attrs.frozen
class Assignment:
    """What the parent has told a worker first.

    Attributes:
        channel: to the parent.
        slot: the worker's part of the shared page.
        listeners: the sockets to accept from.
        program: what to serve, as the parent's `Launch.program`.
    """

    channel: Channel
    slot: Slot
    listeners: list[socket.socket]
    program: Mapping[str, Any]

    def wait_to_serve(self) -> None:
        """Tell the parent that the App is imported, and wait until it says to serve, without Trio.

        Raises:
            SystemExit: it says to stop, or is gone.
        """
        self.channel.send("imported")
        try:
            kind, _ = self.channel.receive_blocking()
        except EOFError:
            sys.exit(1)
        if kind != "serve":
            sys.exit(0)

    def close(self) -> None:
        """Close the channel and the listeners, which the server has closed if it has run."""
        self.channel.close()
        for listener in self.listeners:
            listener.close()

    def fail(self, line: str, details: str = "", *, mistake: bool = False) -> None:
        """Tell the parent why this worker will not serve.

        Args:
            line: one line.
            details: lines below it, such as a traceback.
            mistake: whether it is the user's, such as a wrong import string.
        """
        self.channel.send("failed", {"line": line, "details": details, "mistake": mistake})


def take_assignment(channel_fd: int) -> Assignment:
    """Begin as a worker: call this first in its process, in the main thread.

    Raises:
        EOFError: the parent is gone.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        # Not SIG_IGN, which the programs that a handler starts would inherit.
        signal.signal(number, _do_nothing)
    # The parent ends a worker that hangs with SIGABRT.
    faulthandler.enable()
    channel = Channel(socket.socket(fileno=channel_fd))
    _, start = channel.receive_blocking()
    match start:
        case {
            "page": int(page),
            "slot": int(slot),
            "listeners": [*fds],
            "terminal": bool(terminal),
            "program": dict(program),
        }:
            inherited = [int(fd) for fd in fds]
        case _:
            raise ValueError(f"not an assignment: {start!r}")
    # What came before is ignored with the rest. A debugger handles SIGINT once it is left with `continue`;
    # beside a terminal it stays blocked, or Ctrl-C would open the debugger instead of stopping the program.
    ignored = {signal.SIGHUP} if terminal else {signal.SIGINT, signal.SIGHUP}
    if not terminal:
        # Meant for the parent, when a service manager sends them to every process; they would stop this one.
        for number in _OF_PARENT:
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*ignored, *_OF_PARENT})
    _end_without_interpreter()
    if _has_hung_up(channel_fd, 0):
        raise EOFError("the parent was gone before the kernel could tell")
    for fd in (channel_fd, page, *inherited):
        os.set_inheritable(fd, False)
    watch = functools.partial(_outlive_parent_briefly, channel_fd)
    threading.Thread(target=watch, name="wsframework parent watch", daemon=True).start()
    return Assignment(
        channel, Page.attach(page, slot), [socket.socket(fileno=fd) for fd in inherited], program
    )


def serve_as_worker(
    assignment: Assignment, start: Callable[..., Awaitable[object]], timeouts: Timeouts
) -> None:
    """Serve until the parent, or SIGTERM, says to stop; through the drain, to the end of the lifespans.

    Args:
        assignment: the parent's.
        start: serves on the assignment's listeners, and follows Trio's start protocol.
        timeouts: the App's.

    Raises:
        Exception: as `start` raises it.
    """
    duties = _Duties(assignment, timeouts)
    run_server(start, duties.listening, timeouts, signals=(signal.SIGTERM,), beside=duties.run)


class _Duties:
    """The tasks of a worker beside its server."""

    def __init__(self, assignment: Assignment, timeouts: Timeouts) -> None:
        self._channel = assignment.channel
        self._slot = assignment.slot
        self._ends_within = timeouts.drain + timeouts.lifespan + STUCK_SECONDS
        self._server: Server | None = None
        self._listens = trio.Event()

    def listening(self, server: Server) -> None:
        """Tell the parent that this worker serves."""
        self._server = server
        self._listens.set()
        self._channel.send("ready")

    async def run(self, halt: Callable[[bool, bool], None]) -> None:
        """Do all of them, until cancelled.

        Args:
            halt: begins to stop, and is told whether another worker takes this one's place, and whether to
                cut short what has begun.
        """
        self._channel.send("running", {"ends_within": self._ends_within})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_when_leaving)
            nursery.start_soon(self._tell_of_engines)
            await self._obey(halt)
            # The parent is gone.
            record(logging.WARNING, "parent.gone", ends_within=ORPHAN_SECONDS)
            halt(False, False)
            await trio.sleep(ORPHAN_DRAIN_SECONDS)
            halt(False, True)

    async def _tell_when_leaving(self) -> None:
        await self._listens.wait()
        assert self._server is not None
        await self._server.wait_stopping()
        # Also when nobody has told it, such as after a SIGTERM: another one takes its place meanwhile.
        self._channel.send("leaving")

    async def _tell_of_engines(self) -> None:
        while True:
            self._slot.tell_engines(figures_of_engines())
            await trio.sleep(_FIGURES_SECONDS)

    async def _obey(self, halt: Callable[[bool, bool], None]) -> None:
        async for message in self._channel:
            match message:
                case "drain", {"restarting": bool(restarting)}:
                    halt(restarting, False)
                case "stop", _:
                    halt(False, False)
                    halt(False, True)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Leave a signal of the terminal to the parent."""


def _have_kernel_at_parents_end(number: int) -> None:
    """Have the kernel send a signal to this process when its parent ends: once for each thread that asks."""
    if sys.platform == "linux" and _ctypes is not None:
        with contextlib.suppress(OSError, AttributeError):  # another C library, or not permitted
            _ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))


def _end_without_interpreter() -> None:
    """End some seconds after the parent, also if no Python code runs any more because C code does not return.

    SIGALRM ends a process, unless the program has a handler for it. Before that, the thread below does.
    """
    if sys.platform == "linux" and _ctypes is not None:
        with contextlib.suppress(OSError, AttributeError):
            libc = _ctypes.CDLL(None)
            libc.signal.argtypes = [_ctypes.c_int, _ctypes.c_void_p]
            libc.signal.restype = _ctypes.c_void_p
            libc.signal(int(_HELD_SECONDS), _ctypes.cast(libc.alarm, _ctypes.c_void_p))
            _have_kernel_at_parents_end(_HELD_SECONDS)


def _outlive_parent_briefly(channel_fd: int) -> None:
    """Exit soon after the parent's end, even if the event loop is blocked. Runs in a thread of its own."""
    # A process that is stopped continues, so that it can end too.
    _have_kernel_at_parents_end(signal.SIGCONT)
    _has_hung_up(channel_fd, None)
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)


def _has_hung_up(channel_fd: int, milliseconds: int | None) -> bool:
    """Whether the parent is gone; wait for that."""
    hung_up = poll()
    hung_up.register(channel_fd, 0)  # the end alone, which is always reported
    return bool(hung_up.poll(milliseconds))
