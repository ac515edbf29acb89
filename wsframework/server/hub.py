"""The hub: one epoll (or kqueue) for all of a server's sockets, and one task that waits for it.

Theory of operation
-------------------
Trio's own stream calls park a task and change the kernel's interest list for every message. The hub does it
once per *turn*: it waits until any socket is ready, then calls `on_ready` of every ready `Pollee`, which
reads or writes without blocking and wakes only the tasks that now have something to do.

Writes wait for the end of the scheduler's turn. Committing a frame marks its pollee *dirty*, and the flusher,
the hub's second task, flushes all dirty pollees at its next step, when every task that was woken in this turn
has run. So frames that were committed in one turn leave in one system call, and system calls run back to
back: flushing each connection when its handler parked took a fifth more Python per message.

A turn has a time budget, so that a busy connection does not delay the others. What was ready and not served
in it is served in the next turn, before the kernel is asked again. A pollee does a bounded step in
`on_ready`; one that has more to do gets the rest of its steps through `again`, from the hub's third task,
which serves such pollees in turn and has less time than the others, because each step makes work for a
handler as well.

A descriptor number is free as soon as its socket is closed, and the next accepted socket may get it. So a
number is always taken off the kernel's list before its socket is closed, and what was ready before `remove`
is not delivered to a later socket with the same number. A forked child shares the list and holds the sockets;
closing ours without taking it off would leave an event that never ends, under a number that is free or
belongs to another socket.

Errors: an `Exception` that a pollee raises ends that pollee. Everything else comes out of `run`, and the
server ends: it cannot work without a hub.

This module does not know frames, handshakes or TLS.
"""

from __future__ import annotations

import logging
import socket as stdlib_socket
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Protocol

import trio
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_readable, wait_task_rescheduled

from wsframework.records import describe, record, record_failure
from wsframework.server.pollers import Poller, default_poller

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["Hub", "Pollee", "hang_up", "tune", "unsent_bytes"]

_READ_SECONDS = 0.002
"""How long the hub reads before other tasks get their turn. What it reads causes several times as much work
for handlers: with this value an echo waits about 10 ms beside any number of connections that send as fast as
they can."""

_WRITE_SECONDS = 0.004
"""The same for writing, which causes no work for handlers: some hundred system calls."""

_AGAIN_SECONDS = 0.001
"""The same for further steps of pollees that one step was not enough for."""

_FLUSHES_OF_ONE = 4
"""How often `flush_now` flushes: a flush makes room, and then a waiting message may enter the outbox."""

_PER_LOOK = 8
"""How many pollees are served between two looks at the clock; a look costs 0.1 µs, a pollee 10 to 400 µs."""

_clock = time.perf_counter


class Pollee(Protocol):
    """One socket in the hub."""

    dirty: bool
    """Set by the hub: whether it is going to call `flush`."""

    def on_ready(self, events: int, now: float) -> None:
        """Read or write what the socket allows, without blocking.

        Args:
            events: READ, WRITE and HANGUP, or'ed.
            now: `trio.current_time()`.
        """

    def flush(self) -> None:
        """Write what is in the outbox, as far as the socket takes it."""

    def abort(self, cause: str) -> None:
        """Drop the connection: one of the other methods raised, or the server has ended."""


class Patient(Pollee, Protocol):
    """A pollee whose work may take more than one step."""

    queued: bool
    """Set by the hub: whether it is going to call `go_on`."""

    def go_on(self, now: float) -> None:
        """Take the next step; call `Hub.again` if there is more to do."""


class Hub:
    """All sockets of one server."""

    def __init__(self, poller: Poller | None = None) -> None:
        self._poller = default_poller() if poller is None else poller
        self._pollees: dict[int, Pollee] = {}
        self._removed: set[int] = set()  # since the kernel was asked last
        self._dirty: list[Pollee] = []
        self._flusher: Task | None = None
        self._flushing = False
        self._await_flush: list[Task] = []
        self._unfinished: deque[Patient] = deque()
        self._finisher: Task | None = None
        self._strangers: set[int] = set()

    def add(self, fd: int, pollee: Pollee, events: int) -> None:
        """Watch a socket, or hand one that is watched to another pollee."""
        self._pollees[fd] = pollee
        self._poller.set(fd, events)

    def replace(self, fd: int, pollee: Pollee) -> None:
        """Hand a watched socket to another pollee and keep asking for the same events."""
        self._pollees[fd] = pollee

    def ask(self, fd: int, events: int) -> None:
        """Change what is asked of a watched socket."""
        self._poller.set(fd, events)

    def remove(self, fd: int) -> None:
        """Stop watching a socket; call it before the socket is closed, never after."""
        if self._pollees.pop(fd, None) is not None:
            self._poller.forget(fd)
            self._removed.add(fd)

    def mark_dirty(self, pollee: Pollee) -> None:
        """Have `pollee.flush` called at the end of the scheduler's turn."""
        if pollee.dirty:
            return
        flusher = self._flusher
        if flusher is not None:
            # First, because it fails if the caller has used up Python's stack. Then nothing has changed.
            reschedule(flusher)
            self._flusher = None
        pollee.dirty = True
        self._dirty.append(pollee)

    def again(self, pollee: Patient) -> None:
        """Have `pollee.go_on` called when the other pollees have had their turn."""
        if pollee.queued:
            return
        finisher = self._finisher
        if finisher is not None:
            reschedule(finisher)  # first, as in `mark_dirty`
            self._finisher = None
        pollee.queued = True
        self._unfinished.append(pollee)

    async def run(self) -> None:
        """Wait and dispatch until cancelled; call `close` afterwards.

        Raises:
            BaseException: a bug in the hub, or a poller that fails: an error that is not about one pollee.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._flush)
            nursery.start_soon(self._finish)
            await self._dispatch()

    def flush_now(self) -> None:
        """Flush all dirty pollees at once, as far as the sockets take it, without the hub's tasks."""
        for _ in range(_FLUSHES_OF_ONE):
            dirty, self._dirty = self._dirty, []
            for pollee in dirty:
                pollee.dirty = False
                try:
                    pollee.flush()
                except BaseException as error:  # the server is ending: the other clients must still be told
                    self._fail(pollee, error)

    def close(self) -> None:
        """Drop every connection that is left, and close the kernel's list."""
        for pollee in list(self._pollees.values()):
            self._abort(pollee, "the server has ended")
        self._unfinished.clear()
        self._poller.close()

    # A Ctrl-C here could leave the state of a socket or of the hub inconsistent. Trio raises it elsewhere.
    @trio.lowlevel.enable_ki_protection
    async def _dispatch(self) -> None:
        poller, pollees, removed = self._poller, self._pollees, self._removed
        ready: list[tuple[int, int]] = []
        done = 0
        pollee: Pollee | None
        while True:
            if done < len(ready):
                await trio.lowlevel.checkpoint()
            else:
                await wait_readable(poller.fileno())
                if removed:
                    removed.clear()
                ready, done = poller.poll(), 0
            now = trio.current_time()
            end = 0.0
            while done < len(ready):
                for fd, events in ready[done : done + _PER_LOOK]:
                    if removed and fd in removed:
                        continue  # closed since it was ready; another socket may have the number already
                    try:
                        pollee = pollees[fd]
                    except KeyError:
                        self._forget_stranger(fd)
                        continue
                    try:
                        pollee.on_ready(events, now)
                    except Exception as error:
                        self._fail(pollee, error)
                done += _PER_LOOK
                if done < len(ready):
                    looked = _clock()
                    end = end or looked + _READ_SECONDS
                    if looked > end:
                        break
            pollee = None  # else an idle server keeps the last pollee alive

    def _forget_stranger(self, fd: int) -> None:
        """Take a number off the kernel's list that belongs to no pollee."""
        if not self._poller.forget(fd):
            # Its socket was closed here and is open in a forked child: no call can name it any longer.
            self._poller.renew()
        if fd not in self._strangers:
            self._strangers.add(fd)
            record(logging.ERROR, "hub.unknown_descriptor", descriptor=fd)

    @trio.lowlevel.enable_ki_protection
    async def _finish(self) -> None:
        while True:
            if not self._unfinished:
                self._finisher = current_task()
                await wait_task_rescheduled(self._stop_finisher)
            now = trio.current_time()
            end = _clock() + _AGAIN_SECONDS
            pollee: Patient | None
            # Only those that are there now: one that needs another step waits until its handler has run.
            for _ in range(len(self._unfinished)):
                pollee = self._unfinished.popleft()
                pollee.queued = False
                try:
                    pollee.go_on(now)
                except Exception as error:
                    self._fail(pollee, error)
                if _clock() > end:
                    break
            pollee = None
            if self._unfinished:
                await trio.lowlevel.checkpoint()

    # A Ctrl-C between two of the lines would leave a task in the list that does not wait.
    @trio.lowlevel.enable_ki_protection
    async def flushed(self, pollee: Pollee) -> None:
        """Wait until a pollee that is dirty has been flushed, or the hub has ended.

        Cancellation: it cannot be cancelled.
        """
        # Again, if the turn's time was over before this pollee was flushed.
        while self._flushing and pollee.dirty:
            self._await_flush.append(current_task())
            await wait_task_rescheduled(_never)

    def _wake_flushed(self) -> None:
        tasks, self._await_flush = self._await_flush, []
        for task in tasks:
            reschedule(task)

    @trio.lowlevel.enable_ki_protection
    async def _flush(self) -> None:
        self._flushing = True
        try:
            await self._flush_forever()
        finally:
            self._flushing = False
            self._wake_flushed()

    async def _flush_forever(self) -> None:
        while True:
            if not self._dirty:
                self._flusher = current_task()
                await wait_task_rescheduled(self._stop_flusher)
            pollee: Pollee | None
            dirty, self._dirty = self._dirty, []
            done = 0
            end = 0.0
            while done < len(dirty):
                for pollee in dirty[done : done + _PER_LOOK]:
                    pollee.dirty = False
                    try:
                        pollee.flush()
                    except Exception as error:
                        self._fail(pollee, error)
                done += _PER_LOOK
                if done < len(dirty):
                    looked = _clock()
                    end = end or looked + _WRITE_SECONDS
                    if looked > end:
                        break
            if done < len(dirty):
                self._dirty[:0] = dirty[done:]
            dirty.clear()
            pollee = None
            if self._await_flush:
                self._wake_flushed()
            if self._dirty:
                await trio.lowlevel.checkpoint()

    def _stop_flusher(self, _: object) -> Abort:
        self._flusher = None
        return Abort.SUCCEEDED

    def _stop_finisher(self, _: object) -> Abort:
        self._finisher = None
        return Abort.SUCCEEDED

    def _fail(self, pollee: Pollee, error: BaseException) -> None:
        """Log an exception that a pollee raised, and drop that pollee only."""
        record_failure(error)
        self._abort(pollee, f"an error in the server: {describe(error)}")

    def _abort(self, pollee: Pollee, cause: str) -> None:
        try:
            pollee.abort(cause)
        except Exception as error:
            record_failure(error)
            # It cannot even be dropped, so stop watching its socket.
            for fd in [fd for fd, other in self._pollees.items() if other is pollee]:
                self.remove(fd)


def _never(_: object) -> Abort:
    return Abort.FAILED


def tune(socket: stdlib_socket.socket) -> None:
    """Set the options that an accepted socket needs in the hub."""
    socket.setblocking(False)
    if socket.family in (stdlib_socket.AF_INET, stdlib_socket.AF_INET6):
        # The hub batches frames itself; Nagle's algorithm would only delay them.
        socket.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)


def hang_up(socket: stdlib_socket.socket) -> None:
    """Close a socket, and end its connection even if another process has the socket open too.

    Closing alone sends nothing to the peer while a process that a handler has forked has the socket open.
    """
    with suppress(OSError):
        socket.shutdown(stdlib_socket.SHUT_RDWR)
    socket.close()


def unsent_bytes(fd: int) -> int:
    """Return how many bytes the kernel has taken that the peer has not acknowledged; 0 if that is unknown."""
    if sys.platform == "win32":
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0
