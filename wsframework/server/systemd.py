"""A service manager, such as systemd: what it is told of the program, and the sockets that it passes.

It tells by environment variables what it wants. They are taken out of the environment, because they are for
this process and not for those that it starts.

    NOTIFY_SOCKET                           where to send READY=1, RELOADING=1, STOPPING=1 and STATUS=…
    WATCHDOG_USEC, WATCHDOG_PID             how often it wants WATCHDOG=1, and from which process
    LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES  sockets, at the descriptors from 3 on, for whom, their names

Source: sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3).
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import socket
import time
from collections.abc import Callable, MutableMapping

import trio

from wsframework.errors import ConfigurationError, ListenError
from wsframework.records import describe, record
from wsframework.server.listeners import listen_on

__all__ = ["ServiceManager", "service_manager", "take_listeners"]

_FIRST_DESCRIPTOR = 3

_SEND_SECONDS = 0.2
"""How long the event loop waits while the service manager does not read."""

_MOST_DIGITS = len(str(2**64))

_FEED_SECONDS = 5.0
"""How often to tell that all is well, at least. If it is told twice in an interval only, half of the interval
may be over when a worker hangs, and what is left does not suffice to replace it."""

_LOOK_SECONDS = 0.5
"""How soon to look again when all is not well."""


class ServiceManager:
    """Who has started this process, if that wants to be told how it goes. Without one, methods do nothing.

    Args:
        address: a datagram socket's path, or "@" and a name for one in Linux's abstract namespace; None if
            there is no service manager.
        watchdog_seconds: it ends the program that has not sent WATCHDOG=1 for so long; None if it does not.

    Attributes:
        watches: whether it wants WATCHDOG=1.
    """

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        self.watches = address is not None and watchdog_seconds is not None
        self._address = address
        self._half_seconds = (watchdog_seconds or 0.0) / 2
        self._failed = False

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> ServiceManager:
        """Return what the environment says, and remove it from there.

        Raises:
            ConfigurationError: WATCHDOG_USEC or WATCHDOG_PID is not a number.
        """
        address = environment.pop("NOTIFY_SOCKET", None)
        microseconds = _take_number(environment, "WATCHDOG_USEC")
        pid = _take_number(environment, "WATCHDOG_PID")
        watched = microseconds and pid in (None, os.getpid())
        return cls(address or None, (microseconds or 0) / 1_000_000 if watched else None)

    def ready(self, status: str) -> None:
        """Tell that the program serves, for the first time or after `reloading`."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self, status: str) -> None:
        """Tell that the program serves, but is being replaced; call `ready` afterwards."""
        # Without the time, systemd cannot tell whether this follows its request.
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\nSTATUS={status}")

    def status(self, status: str) -> None:
        """Tell how it goes now."""
        self._send(f"STATUS={status}")

    def stopping(self, status: str) -> None:
        """Tell that the program has begun to stop."""
        self._send(f"STOPPING=1\nSTATUS={status}")

    async def feed_watchdog(self, is_well: Callable[[], bool] = lambda: True) -> None:
        """Send WATCHDOG=1 twice in each of its intervals, or every 5 seconds if that is more often.

        It does so as long as all is well, until cancelled.

        Nothing but the event loop sends it, so a loop that is blocked is noticed.

        Args:
            is_well: whether to send it.
        """
        while self.watches:
            if is_well():
                self._send("WATCHDOG=1")
                await trio.sleep(min(self._half_seconds, _FEED_SECONDS))
            else:
                await trio.sleep(min(self._half_seconds, _LOOK_SECONDS))

    def _send(self, state: str) -> None:
        if self._address is None:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_SEND_SECONDS)
                sender.connect(address)
                sender.send(state.encode())
        except OSError as error:
            if not self._failed:
                self._failed = True
                record(logging.WARNING, "notify.failed", NOTIFY_SOCKET=self._address, error=describe(error))


@functools.cache
def service_manager() -> ServiceManager:
    """Return that of this process; the first call takes it out of the environment.

    Raises:
        ConfigurationError: as `ServiceManager.take`.
    """
    return ServiceManager.take(os.environ)


def take_listeners(
    environment: MutableMapping[str, str], first: int = _FIRST_DESCRIPTOR
) -> list[socket.socket]:
    """Return the listening sockets that a service manager has passed, and remove them from the environment.

    Args:
        environment: says whether there are any.
        first: the descriptor of the first one.

    Returns:
        None of them if it has passed none, or to another process.

    Raises:
        ConfigurationError: LISTEN_FDS or LISTEN_PID is not a number.
        ListenError: a descriptor is closed, or is not a TCP or unix socket that listens.
    """
    count = _take_number(environment, "LISTEN_FDS")
    pid = _take_number(environment, "LISTEN_PID")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if not count:
        return []
    if pid != os.getpid():
        # A shell between the two, for example, or variables that were inherited by mistake.
        record(logging.WARNING, "sockets.not_ours", LISTEN_PID=pid, pid=os.getpid())
        return []
    named = itertools.chain(names, itertools.repeat(""))
    return [_listener(fd, name) for fd, name in zip(range(first, first + count), named, strict=False)]


def _listener(fd: int, name: str) -> socket.socket:
    called = f"descriptor {fd} of LISTEN_FDS" + (f", {name!r}," if name else "")
    try:
        os.set_inheritable(fd, False)
        listener = socket.socket(fileno=fd)
    except OSError as error:
        raise ListenError(f"{called} is not a socket: {error.strerror}") from None
    try:
        listen_on([listener])
    except ListenError as error:
        listener.detach()
        hint = "; a socket unit needs ListenStream= and Accept=no"
        raise ListenError(f"{called} is of no use: {error}{hint}") from None
    return listener


def _take_number(environment: MutableMapping[str, str], name: str) -> int | None:
    text = environment.pop(name, None)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise ConfigurationError(
            f"the environment variable {name} is {text[:80]!r}, and not a number of 64 bits"
        )
    return int(text)
