"""File descriptors: raise their limit, and keep some in reserve.

Each connection takes one. A process starts with a soft limit, often 1,024, and may raise it up to the hard
limit.
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
"""The limit of the process or of the machine is reached."""

OUT_OF_RESOURCES = OUT_OF_DESCRIPTORS | {errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC}
"""The same, or the kernel lacks memory or may not watch more sockets (fs.epoll.max_user_watches)."""

ABOUT_THE_PEER = frozenset(
    number
    for name in (
        *("ECONNABORTED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENONET"),
        *("ENOPROTOOPT", "EOPNOTSUPP", "EPERM", "EPROTO", "ETIMEDOUT"),
    )
    if (number := getattr(errno, name, None)) is not None
)
"""Errors of accept(2) for a connection that is gone already, or that a firewall forbids."""

_ENOUGH = 1024 * 1024
"""The default of fs.nr_open in Linux. Some containers have a hard limit of 1,000 million."""

_RESERVE = 128
"""Descriptors that connections do not get: the application needs some, and so do refusals of connections over
the limit. It is a quarter of the limit where that is less."""

_SPARE = 4


def raise_descriptor_limit() -> None:
    """Raise this process's soft limit to its hard limit, as far as the system allows.

    Go and Node.js do so at their start. Code that calls `select(2)`, in this process or in one that it
    starts, does not work with descriptors above 1,023.
    """
    if _resource is None:
        return
    unlimited = _resource.RLIM_INFINITY
    soft, hard = _resource.getrlimit(_resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == unlimited else min(hard, _ENOUGH)
    # macOS reports an infinite hard limit, but accepts no more than kern.maxfilesperproc.
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
    """Return how many connections the limit has room for, less a reserve; None for no limit."""
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

    Without them, a connection that cannot be accepted stays in the kernel's queue: its client waits, and the
    listener stays ready.
    """

    def __init__(self) -> None:
        self._kept: list[int] = []
        self._closed = False
        self.refill()

    def refill(self) -> bool:
        """Replace what was lent, as far as the system allows; return whether the reserve is complete."""
        if self._closed:
            return True
        while len(self._kept) < _SPARE:
            try:
                self._kept.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                return False
        return True

    def lend(self) -> bool:
        """Free one for the next `accept`; return False if all are lent."""
        if not self._kept:
            return False
        os.close(self._kept.pop())
        return True

    def close(self) -> None:
        """Close all of them, and reserve no more."""
        self._closed = True
        while self.lend():
            pass
