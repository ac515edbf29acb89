"""The sockets that a service manager passes to `run`, instead of an address to listen on."""

from __future__ import annotations

import os
import socket

import typer

from wsframework.authority import is_loopback
from wsframework.errors import ConfigurationError
from wsframework.server.listeners import address_of
from wsframework.server.systemd import take_listeners

__all__ = ["inherited_listeners", "loopback_host"]


def inherited_listeners(context: typer.Context) -> list[socket.socket]:
    """Return the sockets that a service manager has passed; it passes none to most programs.

    Args:
        context: the command's, which must not say where to listen as well.

    Raises:
        ConfigurationError: it does, or a socket is of no use.
    """
    sockets = take_listeners(os.environ)
    for name in ("host", "port", "unix", "unix_mode") if sockets else ():
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise ConfigurationError(
                f"--{name.replace('_', '-')}: the service manager has passed the sockets to listen on "
                "(LISTEN_FDS); leave this option out, or stop the socket unit"
            )
    return sockets


def loopback_host(sockets: list[socket.socket]) -> str | None:
    """Return the host that TCP sockets listen on if only this machine reaches them, and None otherwise."""
    addresses = [address_of(each.getsockname()) for each in sockets]
    if all(address.port is not None and is_loopback(address.host) for address in addresses):
        return addresses[0].host
    return None
