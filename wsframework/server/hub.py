"""The hub: one epoll (or kqueue) for all of a server's sockets, and one task that waits for it.

Theory of operation
-------------------
Trio's own stream calls park a task and change the kernel's interest list for every message. The hub does it
once a *turn*: it waits until any socket is ready, then calls `on_ready` of every ready `Pollee`, which reads
or writes without blocking and wakes only the tasks that now have something to do.

Writes wait for the end of the scheduler's turn. Whoever commits a frame marks its pollee *dirty*, and the
flusher, the hub's second task, flushes all that are dirty at its next step, when every task that was woken in
this turn has run. So frames that were committed in one turn leave in one system call, and system calls run
back to back: flushing each connection when its handler parked cost a fifth more Python a message.

A turn has a time budget, so that nobody waits for whoever sends most. What was ready and not served in it is
served in the next turn, before the kernel is asked again. A pollee does a bounded step in `on_ready`; one
that has more to do gets the rest of its steps through `again`, from the hub's third task, which serves such
pollees in turn and has less time than the others, because each step makes work for a handler as well.

A number is not a socket: it is free the moment its socket is closed, and the next accepted one gets it. So a
number is taken off the kernel's list before it is closed, always, and what was ready before `remove` is not
told to whoever has the number now. A forked child shares the list and holds the sockets; closing ours without
taking it off would leave an event that never ends, under a number that belongs to nobody or to somebody else.

Mistakes: an `Exception` of a pollee ends that pollee. Everything else comes out of `run`: without a hub there
is no server.

Nothing here knows of frames, handshakes or TLS.
"""

from __future__ import annotations

import logging
import select
import selectors
import socket as stdlib_socket
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Protocol

import trio
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_readable, wait_task_rescheduled

from wsframework.records import describe, record

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = [
    "HANGUP",
    "QUIET",
    "READ",
    "WRITE",
    "EpollPoller",
    "Hub",
    "Pollee",
    "Poller",
    "SelectorPoller",
    "hang_up",
    "hub_is_possible",
    "tune",
    "unsent_bytes",
]

# epoll's own bits, so that on Linux nothing is translated for every event.
READ = 0x001
WRITE = 0x004
HANGUP = 0x2018
"""EPOLLRDHUP, EPOLLHUP, EPOLLERR: the peer has sent FIN or RST. Only epoll tells it apart from READ, and it
matters only while READ is not asked for."""
QUIET = 0x80000000
"""EPOLLET, for whoever asks for nothing: the end of both directions (EPOLLHUP), which nobody can choose not
to hear of, is reported once and not for ever. A unix socket is there as soon as its peer has closed it."""

_EVENTS_PER_TURN = 512

_READ_SECONDS = 0.002
"""How long the hub reads before other tasks get their turn. What it has read makes work for handlers, several
times as much: with it an echo waits about 10 ms beside any number of connections that want more than their
share."""

_WRITE_SECONDS = 0.004
"""The same for writing, which makes no work for anybody: some hundred system calls."""

_AGAIN_SECONDS = 0.001
"""The same for what one step was not enough for."""

_FLUSHES_OF_ONE = 4
"""In `flush_now`: what makes room may let another message in."""

_PER_LOOK = 8
"""How many pollees are served between two looks at the clock; a look costs 0.1 µs, a pollee 10 to 400 µs."""

_clock = time.perf_counter


class Pollee(Protocol):
    """One socket in the hub."""

    dirty: bool
    """The hub's: whether it is going to call `flush`."""

    def on_ready(self, events: int, now: float) -> None:
        """Read or write what the socket allows, without blocking.

        Args:
            events: READ, WRITE and HANGUP, or'ed.
            now: `trio.current_time()`.
        """

    def flush(self) -> None:
        """Write what is in the outbox, as far as the socket takes it."""

    def abort(self, cause: str) -> None:
        """Drop the connection: something went wrong in one of the other methods, or the server has ended."""


class Patient(Pollee, Protocol):
    """A pollee whose work may take more than one step."""

    queued: bool
    """The hub's: whether it is going to call `go_on`."""

    def go_on(self, now: float) -> None:
        """Take the next step; call `Hub.again` if there is more to do."""


class Poller(Protocol):
    """The kernel's interest list."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when a socket is ready."""

    def set(self, fd: int, events: int) -> None:
        """Ask for these events of `fd` from now on."""

    def forget(self, fd: int) -> bool:
        """Ask for nothing of `fd` any more; call it before the descriptor is closed. It never raises.

        Returns:
            False when the kernel does not know the number.
        """

    def renew(self) -> None:
        """Begin a new list with what is asked for; `fileno` changes."""

    def poll(self) -> list[tuple[int, int]]:
        """Return what is ready now, as (fd, events)."""

    def close(self) -> None:
        """Give the kernel its list back."""


class EpollPoller:
    """Linux."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._asked: dict[int, int] = {}

    def fileno(self) -> int:
        """The list's own descriptor."""
        return self._epoll.fileno()

    def set(self, fd: int, events: int) -> None:
        """Ask for these events, and no others."""
        if fd in self._asked:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._asked[fd] = events

    def forget(self, fd: int) -> bool:
        """Take the descriptor off the list."""
        # Closing a descriptor takes it off the kernel's list only if nobody else has the socket: a process
        # that a handler has forked has all of them.
        self._asked.pop(fd, None)
        try:
            self._epoll.unregister(fd)
        except (OSError, ValueError):
            return False
        return True

    def renew(self) -> None:
        """Begin a new list with what is asked for."""
        self._epoll.close()
        self._epoll = select.epoll()
        for fd, events in self._asked.items():
            with suppress(OSError):
                self._epoll.register(fd, events)

    def poll(self) -> list[tuple[int, int]]:
        """Look without waiting."""
        return self._epoll.poll(0, _EVENTS_PER_TURN)

    def close(self) -> None:
        """Close the list."""
        self._epoll.close()


_FROM_SELECTORS = {
    selectors.EVENT_READ: READ,
    selectors.EVENT_WRITE: WRITE,
    selectors.EVENT_READ | selectors.EVENT_WRITE: READ | WRITE,
}


class SelectorPoller:
    """Any selector of the standard library that has a descriptor of its own: kqueue on macOS and BSD."""

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        self._selector = selector if selector is not None else selectors.DefaultSelector()

    def fileno(self) -> int:
        """The list's own descriptor."""
        number: int = self._selector.fileno()  # type: ignore[attr-defined]
        return number

    def set(self, fd: int, events: int) -> None:
        """Ask for these events, and no others."""
        mask = selectors.EVENT_READ if events & READ else 0
        if events & WRITE:
            mask |= selectors.EVENT_WRITE
        known = fd in self._selector.get_map()
        if not mask:
            # Selectors cannot watch for nothing.
            self.forget(fd)
        elif known:
            self._selector.modify(fd, mask)
        else:
            self._selector.register(fd, mask)

    def forget(self, fd: int) -> bool:
        """Take the descriptor off the list."""
        try:
            self._selector.unregister(fd)
        except (KeyError, ValueError, OSError, RuntimeError):
            return False
        return True

    def renew(self) -> None:
        """Keep the list: a forked child gets no kqueue."""

    def poll(self) -> list[tuple[int, int]]:
        """Look without waiting."""
        return [(key.fd, _FROM_SELECTORS[mask]) for key, mask in self._selector.select(0)]

    def close(self) -> None:
        """Close the list."""
        self._selector.close()


def hub_is_possible() -> bool:
    """Whether this platform has an interest list that Trio can wait for."""
    return sys.platform != "win32" and (hasattr(select, "epoll") or hasattr(select, "kqueue"))


class Hub:
    """All sockets of one server."""

    def __init__(self, poller: Poller | None = None) -> None:
        if poller is None:
            poller = EpollPoller() if hasattr(select, "epoll") else SelectorPoller()
        self._poller = poller
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
        """Watch it no more; call it before the socket is closed, never after."""
        if self._pollees.pop(fd, None) is not None:
            self._poller.forget(fd)
            self._removed.add(fd)

    def mark_dirty(self, pollee: Pollee) -> None:
        """See to it that `pollee.flush` is called at the end of the scheduler's turn."""
        if pollee.dirty:
            return
        pollee.dirty = True
        self._dirty.append(pollee)
        flusher = self._flusher
        if flusher is not None:
            self._flusher = None
            reschedule(flusher)

    def again(self, pollee: Patient) -> None:
        """See to it that `pollee.go_on` is called when others have had their turn."""
        if pollee.queued:
            return
        pollee.queued = True
        self._unfinished.append(pollee)
        finisher = self._finisher
        if finisher is not None:
            self._finisher = None
            reschedule(finisher)

    async def run(self) -> None:
        """Wait and dispatch for ever, until cancelled; call `close` afterwards.

        Raises:
            BaseException: what is not about a single pollee: a mistake of ours, or a poller that fails.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._flush)
            nursery.start_soon(self._finish)
            await self._dispatch()

    def flush_now(self) -> None:
        """Flush what is dirty at once, as far as the sockets take it; the hub's tasks need not run for it."""
        for _ in range(_FLUSHES_OF_ONE):
            dirty, self._dirty = self._dirty, []
            for pollee in dirty:
                pollee.dirty = False
                try:
                    pollee.flush()
                except BaseException as error:  # the server's end: the others must be told
                    self._fail(pollee, error)

    def close(self) -> None:
        """Drop every connection that is left, and give the kernel its list back."""
        for pollee in list(self._pollees.values()):
            self._abort(pollee, "the server has ended")
        self._unfinished.clear()
        self._poller.close()

    # A Ctrl-C must not strike between a socket's state and the hub's. Trio raises it elsewhere then.
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
                        continue  # closed since it was ready, and the number may be somebody else's already
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
            pollee = None  # else an idle server keeps who came last

    def _forget_stranger(self, fd: int) -> None:
        """Take a number off the kernel's list that nobody here has asked for."""
        if not self._poller.forget(fd):
            # Closed, and held open by a child: the kernel does not know it by this number any more.
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
            # Those that are there now: whoever needs another step waits until its handler had its turn.
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

    # A Ctrl-C between the two lines would leave a task in the list that does not wait.
    @trio.lowlevel.enable_ki_protection
    async def flushed(self) -> None:
        """Wait, for a turn at the most, until what is dirty now was offered to its sockets.

        Cancellation: it waits all the same.
        """
        if self._flushing and self._dirty:
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
            await self._flush_for_ever()
        finally:
            self._flushing = False
            self._wake_flushed()

    async def _flush_for_ever(self) -> None:
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
        """A mistake of ours in one connection must not stop the others."""
        record(logging.ERROR, "connection.failed", exc_info=error, error=describe(error))
        self._abort(pollee, f"a mistake in the server: {describe(error)}")

    def _abort(self, pollee: Pollee, cause: str) -> None:
        try:
            pollee.abort(cause)
        except Exception as error:
            record(logging.ERROR, "connection.failed", exc_info=error, error=describe(error))
            # It cannot even be dropped. Nothing may be heard of it again.
            for fd in [fd for fd, other in self._pollees.items() if other is pollee]:
                self.remove(fd)


def _never(_: object) -> Abort:
    return Abort.FAILED


def tune(socket: stdlib_socket.socket) -> None:
    """Make an accepted socket fit for the hub."""
    socket.setblocking(False)
    if socket.family in (stdlib_socket.AF_INET, stdlib_socket.AF_INET6):
        # We batch by ourselves; Nagle's algorithm would only hold back what we have decided to send.
        socket.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)


def hang_up(socket: stdlib_socket.socket) -> None:
    """Close a socket, and end its connection whoever else has it.

    Closing says nothing to the peer while a process that a handler has forked has the socket too.
    """
    with suppress(OSError):
        socket.shutdown(stdlib_socket.SHUT_RDWR)
    socket.close()


def unsent_bytes(fd: int) -> int:
    """Return how many bytes a socket's kernel has taken and the peer's has not; 0 where it does not tell."""
    if sys.platform == "win32":
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0
