"""Resolve a host's name and connect a socket, trying one address after the other.

Happy Eyeballs (RFC 8305) would be faster where one address does not answer, and harder to describe.
"""

from __future__ import annotations

import errno
import os
import socket as stdlib_socket
from collections.abc import Callable

import attrs
import trio

from wsframework.diagnostics.kernel import read_kernel, read_state
from wsframework.diagnostics.problems import Unreachable, refused, unknown_host
from wsframework.diagnostics.steps import Connected, ConnectFailed, Connecting, Resolved, Step
from wsframework.diagnostics.target import Target

__all__ = ["Clock", "Tell", "reach", "show_address"]

Tell = Callable[[Step], None]
"""A function that gets each step."""


class Clock:
    """Seconds since the start of a trace."""

    def __init__(self) -> None:
        self._start = trio.current_time()

    def now(self) -> float:
        """Return the seconds since the start."""
        return trio.current_time() - self._start


Endpoint = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
"""An address of the socket module; a Python without IPv6 returns IPv6 addresses in the last form."""


@attrs.frozen
class _Place:
    family: int
    address: Endpoint

    def __str__(self) -> str:
        return show_address(self.address)


async def reach(target: Target, timeout_seconds: float, clock: Clock, tell: Tell) -> stdlib_socket.socket:
    """Connect to a target's host; return the socket, non-blocking.

    Args:
        target: names the host.
        timeout_seconds: limits the name resolution, and each connection attempt.
        clock: gives the times of steps.
        tell: is called with each step.

    Raises:
        Unreachable: no address can be connected to.

    Cancellation: nothing is left behind.
    """
    places = await _resolve(target, timeout_seconds)
    tell(
        Resolved(
            at=clock.now(),
            host=target.host,
            addresses=tuple(map(str, places)),
            is_address=target.is_address,
        )
    )
    error = ""
    for place in places:
        found = await _connect(place, timeout_seconds, clock, tell)
        if isinstance(found, stdlib_socket.socket):
            return found
        error = found
    raise Unreachable(refused([str(place) for place in places], error))


async def _resolve(target: Target, timeout_seconds: float) -> list[_Place]:
    with trio.move_on_after(timeout_seconds):
        try:
            found = await trio.socket.getaddrinfo(target.host, target.port, type=stdlib_socket.SOCK_STREAM)
        except stdlib_socket.gaierror as error:
            raise Unreachable(unknown_host(target.host, (error.strerror or str(error)).lower())) from None
        except (OSError, UnicodeError) as error:
            raise Unreachable(unknown_host(target.host, str(error))) from None
        return list(dict.fromkeys(_Place(family, address) for family, _, _, _, address in found))
    raise Unreachable(unknown_host(target.host, f"no answer within {timeout_seconds:g} s"))


async def _connect(
    place: _Place, timeout_seconds: float, clock: Clock, tell: Tell
) -> stdlib_socket.socket | str:
    """Connect to one address; return the socket, or the error's name."""
    socket = stdlib_socket.socket(place.family, stdlib_socket.SOCK_STREAM)
    try:
        socket.setblocking(False)
        socket.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
        started = clock.now()
        number = socket.connect_ex(place.address)
        tell(Connecting(at=started, remote=str(place), state=read_state(socket)))
        if number == errno.EINPROGRESS:
            number = errno.ETIMEDOUT
            with trio.move_on_after(timeout_seconds):
                await trio.lowlevel.wait_writable(socket)
                number = socket.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_ERROR)
        if not number:
            tell(
                Connected(
                    at=clock.now(),
                    local=show_address(socket.getsockname()),
                    remote=str(place),
                    seconds=clock.now() - started,
                    kernel=read_kernel(socket),
                )
            )
            return socket
    except BaseException:
        socket.close()
        raise
    kernel = read_kernel(socket)
    socket.close()
    error = "timeout" if number == errno.ETIMEDOUT else errno.errorcode.get(number, os.strerror(number))
    # Only a SYN that was not answered can have been retransmitted.
    syns = None if kernel is None else 1 + kernel.retransmissions
    tell(ConnectFailed(at=clock.now(), remote=str(place), error=error, syns=syns))
    return error


def show_address(address: Endpoint) -> str:
    """Write a socket's address as in a URL."""
    host, port = str(address[0]), str(address[1])
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
