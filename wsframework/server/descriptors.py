"""File descriptors: as many as the system gives, and what to do when there are none left.

Each connection takes one. A process starts with a soft limit, often 1,024, which it may raise by itself up to
the hard one.
"""

from __future__ import annotations

import errno
import os
from typing import Any

try:
    import resource
except ImportError:  # Windows, which has no such limit
    _resource: Any = None
else:
    _resource = resource

__all__ = [
    "ABOUT_THE_PEER",
    "OUT_OF_DESCRIPTORS",
    "OUT_OF_RESOURCES",
    "SpareDescriptors",
    "descriptor_limit",
    "raise_descriptor_limit",
    "room_for_connections",
]

OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
"""The process's own limit, or the machine's."""

OUT_OF_RESOURCES = OUT_OF_DESCRIPTORS | {errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC}
"""Those, the kernel's memory, or its room for what epoll watches (fs.epoll.max_user_watches)."""

ABOUT_THE_PEER = frozenset(
    number
    for name in (
        *("ECONNABORTED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENONET"),
        *("ENOPROTOOPT", "EOPNOTSUPP", "EPERM", "EPROTO", "ETIMEDOUT"),
    )
    if (number := getattr(errno, name, None)) is not None
)
"""What `accept` says of a connection that is gone already, or that a firewall forbids (accept(2))."""

_ENOUGH = 1024 * 1024
"""Some containers have a hard limit of a thousand million; Linux's own ceiling (fs.nr_open) is this."""

_RESERVE = 128
"""Descriptors that connections do not get: for what the application opens, and for telling those that are too
many that they are. A quarter of the limit where that is less."""

_SPARE = 4


def raise_descriptor_limit() -> None:
    """Raise this process's soft limit to its hard limit, as far as the system lets it.

    Go and Node.js do so at their start. A program that uses `select` in this process, or is started by it,
    may dislike descriptors above 1,023.
    """
    if _resource is None:
        return
    unlimited = _resource.RLIM_INFINITY
    soft, hard = _resource.getrlimit(_resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == unlimited else min(hard, _ENOUGH)
    # macOS calls its hard limit infinite and takes no more than kern.maxfilesperproc.
    while soft != unlimited and wanted > soft:
        try:
            _resource.setrlimit(_resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            wanted //= 2
        else:
            return


def descriptor_limit() -> int | None:
    """Return how many descriptors this process may have open; None for no limit."""
    if _resource is None:
        return None
    soft: int = _resource.getrlimit(_resource.RLIMIT_NOFILE)[0]
    return None if soft == _resource.RLIM_INFINITY else soft


def room_for_connections() -> int | None:
    """Return how many more connections the limit has room for, apart from a reserve; None for no limit."""
    limit = descriptor_limit()
    if limit is None:
        return None
    return max(1, limit - _open_descriptors() - min(_RESERVE, limit // 4))


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return 16


class SpareDescriptors:
    """A few reserved descriptors, to answer new clients when all others are in use.

    Without one, a connection that cannot be accepted stays in the kernel's queue: its client waits, and the
    listener stays ready.
    """

    def __init__(self) -> None:
        self._kept: list[int] = []
        self._closed = False
        self.refill()

    def refill(self) -> bool:
        """Take back what was lent, as far as the system gives it; return whether all are there."""
        if self._closed:
            return True
        while len(self._kept) < _SPARE:
            try:
                self._kept.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                return False
        return True

    def lend(self) -> bool:
        """Free one for the next `accept`; False when all are lent."""
        if not self._kept:
            return False
        os.close(self._kept.pop())
        return True

    def close(self) -> None:
        """Give all of them back for good."""
        self._closed = True
        while self.lend():
            pass
