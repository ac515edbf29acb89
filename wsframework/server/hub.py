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

Nothing here knows of frames, handshakes or TLS.
"""

from __future__ import annotations

import logging
import select
import selectors
import socket as stdlib_socket
import sys
from typing import Protocol

import trio
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_readable, wait_task_rescheduled

from wsframework.records import describe, record

__all__ = [
    "READ",
    "WRITE",
    "HANGUP",
    "QUIET",
    "EpollPoller",
    "Hub",
    "Pollee",
    "Poller",
    "SelectorPoller",
    "hub_is_possible",
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
_FLUSHES_PER_STEP = 512
"""About 5 ms of system calls; then other tasks get their turn."""


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

    def abort(self) -> None:
        """Drop the connection: something went wrong in one of the other methods."""


class Poller(Protocol):
    """The kernel's interest list."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when a socket is ready."""

    def set(self, fd: int, events: int) -> None:
        """Ask for these events of `fd` from now on."""

    def forget(self, fd: int) -> None:
        """Ask for nothing of `fd` any more; call it before the descriptor is closed."""

    def poll(self) -> list[tuple[int, int]]:
        """Return what is ready now, as (fd, events)."""

    def close(self) -> None:
        """Give the kernel its list back."""


class EpollPoller:
    """Linux."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._known: set[int] = set()

    def fileno(self) -> int:
        """The list's own descriptor."""
        return self._epoll.fileno()

    def set(self, fd: int, events: int) -> None:
        """Ask for these events, and no others."""
        if fd in self._known:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
            self._known.add(fd)

    def forget(self, fd: int) -> None:
        """Take the descriptor off the list."""
        # Closing the descriptor takes it off the kernel's list: nothing of ours duplicates it.
        self._known.discard(fd)

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

    def forget(self, fd: int) -> None:
        """Take the descriptor off the list."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

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
        self._dirty: list[Pollee] = []
        self._flusher: Task | None = None

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
        """Watch it no more; call it before the socket is closed."""
        if self._pollees.pop(fd, None) is not None:
            self._poller.forget(fd)

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

    def flush_now(self) -> None:
        """Flush what is dirty without waiting for the flusher, which may be dead."""
        dirty, self._dirty[:] = list(self._dirty), []
        for pollee in dirty:
            pollee.dirty = False
            try:
                pollee.flush()
            except Exception as error:
                _fail(pollee, error)

    async def run(self) -> None:
        """Wait and dispatch for ever, until cancelled; call `close` afterwards."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._flush)
            await self._dispatch()

    def close(self) -> None:
        """Drop every connection that is left, and give the kernel its list back."""
        for pollee in list(self._pollees.values()):
            pollee.abort()
        self._poller.close()

    async def _dispatch(self) -> None:
        poller, pollees = self._poller, self._pollees
        fd = poller.fileno()
        while True:
            await wait_readable(fd)
            now = trio.current_time()
            for ready, events in poller.poll():
                try:
                    pollees[ready].on_ready(events, now)
                except Exception as error:
                    pollee = pollees.get(ready)
                    if pollee is not None:  # else closed by one of those before it
                        _fail(pollee, error)

    async def _flush(self) -> None:
        while True:
            if not self._dirty:
                self._flusher = current_task()
                await wait_task_rescheduled(self._stop_flusher)
            dirty = self._dirty[:_FLUSHES_PER_STEP]
            del self._dirty[:_FLUSHES_PER_STEP]
            for pollee in dirty:
                pollee.dirty = False
                try:
                    pollee.flush()
                except Exception as error:
                    _fail(pollee, error)
            if self._dirty:
                await trio.lowlevel.checkpoint()

    def _stop_flusher(self, _: object) -> Abort:
        self._flusher = None
        return Abort.SUCCEEDED


def _fail(pollee: Pollee, error: Exception) -> None:
    """A mistake of ours in one connection must not stop the others."""
    record(logging.ERROR, "connection.failed", exc_info=error, error=describe(error))
    pollee.abort()


def tune(socket: stdlib_socket.socket) -> None:
    """Make an accepted socket fit for the hub."""
    socket.setblocking(False)
    if socket.family in (stdlib_socket.AF_INET, stdlib_socket.AF_INET6):
        # We batch by ourselves; Nagle's algorithm would only hold back what we have decided to send.
        socket.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
