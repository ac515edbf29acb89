"""Start a worker's process, and wait for its end."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence

import attrs
import trio

from wsframework.workers.channel import Channel

__all__ = ["Launch", "Process", "signal_name"]

_PARENTS_OWN = ("LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_")
"""What a service manager tells the parent alone (sd_listen_fds, sd_notify, sd_watchdog_enabled)."""

_HELD_BACK = {signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU}
"""Blocked in a worker from its first instruction: it ignores them, and Ctrl-C reaches it too."""

_WAITING = trio.CapacityLimiter(math.inf)
"""For threads that wait for a process: as many as there are processes, and Trio's own limit is 40."""


class Process:
    """A process that this one has started."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.pid = popen.pid
        self._popen = popen

    async def wait(self) -> int:
        """Wait for its end; return its status, or minus the number of the signal that ended it.

        Cancellation: nothing is left behind, except for a thread where the system has no pidfd.
        """
        try:
            pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            # Not there, forbidden as in some containers, or no descriptor is left.
            return await trio.to_thread.run_sync(self._popen.wait, abandon_on_cancel=True, limiter=_WAITING)
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)
        return self._popen.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; without effect after its end."""
        self._popen.send_signal(number)


@attrs.define
class Launch:
    """How the parent starts a worker.

    Attributes:
        command: the program and its arguments; the channel's descriptor and the worker's number are added.
        program: what the worker is to serve, as JSON knows it; goes to the worker as it is.
        sockets: the listeners that it inherits.
        page_fd: the descriptor of the shared page, which it inherits.
        terminal: whether it keeps the parent's standard input, for a debugger.
    """

    command: Sequence[str]
    program: Mapping[str, object]
    sockets: Sequence[socket.socket]
    page_fd: int
    terminal: bool = False

    def start(self, number: int, slot: int) -> tuple[Process, Channel]:
        """Start a worker.

        Args:
            number: the worker's, for its log.
            slot: its place in the page.

        Raises:
            OSError: there can be no more processes or descriptors.
        """
        ours, theirs = socket.socketpair()
        channel = Channel(ours)
        with theirs:
            listeners = [listener.fileno() for listener in self.sockets]
            try:
                process = _start_blocked(
                    [*self.command, "--worker", str(number), "--channel", str(theirs.fileno())],
                    [theirs.fileno(), self.page_fd, *listeners],
                    None if self.terminal else subprocess.DEVNULL,
                )
            except BaseException:
                channel.close()
                raise
        start = {
            "page": self.page_fd,
            "slot": slot,
            "listeners": listeners,
            "terminal": self.terminal,
            "program": self.program,
        }
        channel.send("start", start)
        return Process(process), channel


def _start_blocked(command: Sequence[str], fds: Sequence[int], stdin: int | None) -> subprocess.Popen[bytes]:
    # The mask is inherited, so a signal that comes before the worker can ignore it waits.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
    try:
        return subprocess.Popen(command, pass_fds=fds, stdin=stdin, env=_environment())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_PARENTS_OWN)}


def signal_name(status: int) -> str | None:
    """Return the name of the signal that ended a process, or None if none did."""
    if status >= 0:
        return None
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
