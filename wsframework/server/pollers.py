"""The kernel's interest lists that the hub waits for: epoll on Linux, kqueue on macOS and BSD.

A descriptor number is not a socket: it is free the moment its socket is closed, and the next accepted socket
may get it. So `forget` comes before the socket is closed, always.
"""

from __future__ import annotations

import select
import selectors
import sys
from contextlib import suppress
from typing import Protocol

__all__ = [
    "HANGUP",
    "QUIET",
    "READ",
    "WRITE",
    "EpollPoller",
    "Poller",
    "SelectorPoller",
    "default_poller",
    "hub_is_possible",
]

# epoll's own bits, so that on Linux nothing is translated for every event.
READ = 0x001
WRITE = 0x004
HANGUP = 0x2018
"""EPOLLRDHUP, EPOLLHUP, EPOLLERR: the peer has sent FIN or RST. Only epoll tells it apart from READ, and it
matters only while READ is not asked for."""
QUIET = 0x80000000
"""EPOLLET, to ask for nothing else: epoll reports the end of both directions (EPOLLHUP) whatever it is asked
for, and with this bit reports it once and not in every poll. A unix socket reaches that state as soon as its
peer has closed it."""

_EVENTS_PER_POLL = 512


class Poller(Protocol):
    """The kernel's interest list."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when a socket is ready."""

    def set(self, fd: int, events: int) -> None:
        """Ask for these events of `fd` from now on."""

    def forget(self, fd: int) -> bool:
        """Watch `fd` no longer; call this before the descriptor is closed. It never raises.

        Returns:
            False when the kernel's list has no such descriptor.
        """

    def renew(self) -> None:
        """Replace the list by a new one with the same descriptors and events; `fileno` changes."""

    def poll(self) -> list[tuple[int, int]]:
        """Return what is ready now, as (fd, events), without waiting."""

    def close(self) -> None:
        """Close the list."""


class EpollPoller:
    """epoll, on Linux."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._asked: dict[int, int] = {}

    def fileno(self) -> int:
        """Return the list's own descriptor."""
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
        # Closing a descriptor takes it off the kernel's list only if no other process has the socket open,
        # and a process that a handler has forked has all of them open.
        self._asked.pop(fd, None)
        try:
            self._epoll.unregister(fd)
        except (OSError, ValueError):
            return False
        return True

    def renew(self) -> None:
        """Replace the list by a new one with the same descriptors and events."""
        self._epoll.close()
        self._epoll = select.epoll()
        for fd, events in self._asked.items():
            with suppress(OSError):
                self._epoll.register(fd, events)

    def poll(self) -> list[tuple[int, int]]:
        """Look without waiting."""
        return self._epoll.poll(0, _EVENTS_PER_POLL)

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
        """Return the list's own descriptor."""
        number: int = self._selector.fileno()  # type: ignore[attr-defined]
        return number

    def set(self, fd: int, events: int) -> None:
        """Ask for these events, and no others."""
        mask = selectors.EVENT_READ if events & READ else 0
        if events & WRITE:
            mask |= selectors.EVENT_WRITE
        known = fd in self._selector.get_map()
        if not mask:
            # A selector cannot watch a descriptor for no event.
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
        """Keep the list: a forked child does not inherit a kqueue."""

    def poll(self) -> list[tuple[int, int]]:
        """Look without waiting."""
        return [(key.fd, _FROM_SELECTORS[mask]) for key, mask in self._selector.select(0)]

    def close(self) -> None:
        """Close the list."""
        self._selector.close()


def hub_is_possible() -> bool:
    """Whether this platform has an interest list that Trio can wait for."""
    return sys.platform != "win32" and (hasattr(select, "epoll") or hasattr(select, "kqueue"))


def default_poller() -> Poller:
    """Return a new poller of this platform's kind."""
    return EpollPoller() if hasattr(select, "epoll") else SelectorPoller()
