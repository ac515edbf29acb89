"""The sockets of all workers: bound once, by the parent, which closes them when it stops."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

import attrs

from wsframework.request import Address
from wsframework.server.listeners import (
    address_of,
    open_tcp_listeners,
    open_unix_listener,
    unix_socket_file,
)

__all__ = ["Listening", "listen", "listen_on_inherited"]


@attrs.frozen
class Listening:
    """Sockets that listen.

    Attributes:
        sockets: for the workers to inherit.
        addresses: where they listen.
    """

    sockets: Sequence[socket.socket]
    addresses: tuple[Address, ...]
    _remove_files: Sequence[Callable[[], None]] = ()

    def close(self) -> None:
        """Close them, and remove the files of unix sockets; workers that have them still listen."""
        for remove in self._remove_files:
            remove()
        for listener in self.sockets:
            listener.close()


async def listen(host: str | None, port: int, unix_path: str | None, unix_mode: int | None) -> Listening:
    """Bind the sockets that the options of `run` name, and listen.

    Args:
        host: an address or name; None for every interface.
        port: a TCP port; 0 lets the system choose.
        unix_path: a unix socket's path, instead of host and port.
        unix_mode: the permissions of its file.

    Raises:
        ListenError: an address cannot be listened on.
    """
    if unix_path is None:
        sockets = await open_tcp_listeners(host, port)
        return listen_on_inherited(sockets)
    listener = open_unix_listener(unix_path, unix_mode)
    return Listening([listener], (address_of(listener.getsockname()),), [unix_socket_file(unix_path)])


def listen_on_inherited(sockets: Sequence[socket.socket]) -> Listening:
    """Return sockets that listen already; the files of unix sockets are left to whoever has made them."""
    return Listening(sockets, tuple(address_of(each.getsockname()) for each in sockets))
