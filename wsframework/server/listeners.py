"""Sockets that listen: TCP on IPv4 and IPv6, unix sockets, and sockets that the caller has bound."""

from __future__ import annotations

import contextlib
import errno
import os
import socket as stdlib_socket
import stat
from collections.abc import Callable, Iterator, Sequence

import trio

from wsframework.authority import LOOPBACK_HOSTS, is_loopback
from wsframework.errors import ConfigurationError, ListenError
from wsframework.request import Address

__all__ = [
    "address_of",
    "hosts_on_loopback",
    "is_loopback_only",
    "listen_on",
    "open_tcp_listeners",
    "open_unix_listener",
    "unix_socket_file",
]

_BACKLOG = 1024
"""How many connections the kernel completes before they are accepted: room for a reconnect storm. Linux caps
it at net.core.somaxconn, 4096 by default."""

_MAPPED = "::ffff:"

_ATTEMPTS = 8
"""How often port 0 is tried on several addresses; the port chosen on one may be taken on another."""


async def open_tcp_listeners(host: str | None, port: int) -> list[stdlib_socket.socket]:
    """Listen on every address of `host`, all on one port.

    Args:
        host: an address or name; None for every interface, with one socket for IPv4 and one for IPv6; "::"
            for every interface with one socket for both.
        port: 0 to 65535; 0 lets the system choose one port for all addresses.

    Raises:
        ListenError: the name is unknown, or an address is in use, not this machine's, or not allowed.
    """
    if not 0 <= port <= 65535:
        raise ListenError(f"a TCP port is a number from 0 to 65535, not {port}")
    try:
        found = await trio.socket.getaddrinfo(
            host, port, type=stdlib_socket.SOCK_STREAM, flags=stdlib_socket.AI_PASSIVE
        )
    except OSError as error:
        raise ListenError(f"cannot listen on {host}: unknown name ({error.strerror})") from None
    addresses = list(dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found))
    for attempt in range(_ATTEMPTS):
        try:
            return list(_bind_all(addresses))
        except _PortTaken as taken:
            if port != 0 or attempt == _ATTEMPTS - 1:
                raise ListenError(str(taken)) from None
    raise AssertionError("the loop returns or raises")


def is_loopback_only(host: str | None) -> bool:
    """Whether a listener on `host` can be reached from this machine only.

    Blocks while the resolver looks up a name: the name of the machine often resolves to 127.0.1.1 or
    127.0.0.1, and the resolver also reads addresses such as "127.1".
    """
    if not host or is_loopback(host):
        return bool(host)
    try:
        found = stdlib_socket.getaddrinfo(host, None, type=stdlib_socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False  # nothing can listen there; trying to listen reports the reason
    return all(is_loopback(str(sockaddr[0])) for _, _, _, _, sockaddr in found)


def hosts_on_loopback(host: str | None) -> tuple[str, ...]:
    """Return the hosts to accept on a listener that only this machine reaches, and `()` for every other one.

    A page in this machine's browser could reach it through a name of its own (DNS rebinding). Blocks while
    the resolver looks up a name.

    Args:
        host: what the listener was bound to, an address or a name.
    """
    if not host or not is_loopback_only(host):
        return ()
    return LOOPBACK_HOSTS if is_loopback(host) else (*LOOPBACK_HOSTS, host)


class _PortTaken(Exception):
    pass


def _bind_all(addresses: Sequence[tuple[int, tuple[object, ...]]]) -> Iterator[stdlib_socket.socket]:
    opened: list[stdlib_socket.socket] = []
    try:
        for family, sockaddr in addresses:
            host, port, *rest = sockaddr
            if port == 0 and opened:
                port = opened[0].getsockname()[1]
            address = (host, port, *rest)
            # "::" alone accepts both families, as in other servers; beside "0.0.0.0" it accepts IPv6 only.
            alone = host == "::" and len(addresses) == 1
            try:
                opened.append(_bind(family, address, v6_only=False) if alone else _bind(family, address))
            except OSError as error:
                # A machine without IPv6 (or with it switched off) still listens on IPv4.
                if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) and len(addresses) > 1:
                    continue
                where = Address(str(host), int(str(port)))
                raise _explain(where, error) from None
        if not opened:
            raise ListenError("cannot listen: no address of this host is usable")
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return iter(opened)


def _bind(family: int, sockaddr: tuple[object, ...], *, v6_only: bool = True) -> stdlib_socket.socket:
    listener = stdlib_socket.socket(family, stdlib_socket.SOCK_STREAM)
    try:
        # A restarted server must not wait for its old connections' TIME_WAIT.
        listener.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEADDR, 1)
        if family == stdlib_socket.AF_INET6:
            with contextlib.suppress(OSError):  # OpenBSD has no dual-stack sockets
                listener.setsockopt(stdlib_socket.IPPROTO_IPV6, stdlib_socket.IPV6_V6ONLY, v6_only)
        listener.bind(sockaddr)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _explain(where: object, error: OSError) -> Exception:
    match error.errno:
        case errno.EADDRINUSE:
            return _PortTaken(
                f"cannot listen on {where}: the port is in use; stop the other program or choose another"
            )
        case errno.EACCES | errno.EPERM:
            return ListenError(f"cannot listen on {where}: not allowed; ports below 1024 need privileges")
        case errno.EADDRNOTAVAIL:
            return ListenError(f"cannot listen on {where}: the address is not one of this machine's")
        case _:
            return ListenError(f"cannot listen on {where}: {error.strerror}")


def open_unix_listener(path: str, mode: int | None = None) -> stdlib_socket.socket:
    """Listen on a unix socket, and replace the file that a dead server left behind.

    Args:
        path: where its file is to be.
        mode: the file's permissions, such as 0o660. None keeps those of a file that is replaced; a new file
            then gets those of the umask.

    Raises:
        ListenError: something else is at that path, or another server listens there.
    """
    if not path:
        # Linux would choose a name that no client knows.
        raise ListenError("cannot listen on a unix socket: its path is empty")
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(path).st_mode
        if not stat.S_ISSOCK(found):
            raise ListenError(f"cannot listen on {path}: the file there is not a socket")
        with stdlib_socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)  # no process listens on it any more
                mode = stat.S_IMODE(found) if mode is None else mode
            except OSError as error:
                raise ListenError(
                    f"cannot listen on {path}: it belongs to another program ({error.strerror})"
                ) from None
            else:
                raise ListenError(f"cannot listen on {path}: another server listens there")
    listener = stdlib_socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM)
    try:
        listener.bind(path)
        if mode is not None:
            # Set before it listens, so that no client connects under other permissions.
            os.chmod(path, mode)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on {path}: {error.strerror or error}") from None
    return listener


def listen_on(sockets: Sequence[stdlib_socket.socket]) -> list[stdlib_socket.socket]:
    """Listen on sockets that the caller has bound; sockets that listen already keep their backlog.

    The sockets stay open if this raises.

    Raises:
        ConfigurationError: `sockets` is empty, or is not a list of `socket.socket`.
        ListenError: one is closed, connected, not bound, or not a TCP or unix stream socket.
    """
    if isinstance(sockets, stdlib_socket.socket):
        raise ConfigurationError("sockets is a list: write sockets=[socket]")
    if not sockets:
        raise ConfigurationError("sockets is empty: name at least one bound socket, or leave sockets out")
    for socket in sockets:
        if not isinstance(socket, stdlib_socket.socket):
            raise ConfigurationError(f"sockets takes socket.socket objects, not {type(socket).__name__}")
        _listen_on(socket)
    return list(sockets)


def _listen_on(socket: stdlib_socket.socket) -> None:
    if socket.fileno() < 0:
        raise ListenError("cannot listen on a socket that is closed")
    number = f"the socket with descriptor {socket.fileno()}"
    unix = getattr(stdlib_socket, "AF_UNIX", None)
    if socket.family not in (stdlib_socket.AF_INET, stdlib_socket.AF_INET6, unix):
        raise ListenError(f"cannot listen on {number}: it is neither a TCP nor a unix socket")
    if socket.type != stdlib_socket.SOCK_STREAM:
        raise ListenError(f"cannot listen on {number}: it is not a stream socket (SOCK_STREAM)")
    with contextlib.suppress(OSError):
        socket.getpeername()
        raise ListenError(f"cannot listen on {number}: it is connected to a peer")
    # `listen` would give an unbound TCP socket a port that the caller did not choose.
    bound = socket.getsockname()
    if not bound or (isinstance(bound, tuple) and bound[1] == 0):
        raise ListenError(f"cannot listen on {number}: it is not bound; call its bind() first")
    try:
        if not socket.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_ACCEPTCONN):
            socket.listen(_BACKLOG)
    except OSError as error:
        raise ListenError(f"cannot listen on {address_of(bound)}: {error.strerror}") from None


def unix_socket_file(path: str) -> Callable[[], None]:
    """Return a function that removes the file of a socket that listens at `path`.

    Call `unix_socket_file` while the socket is open. If the file was replaced since, for example by another
    server's socket, the function does not remove it.
    """
    try:
        ours = os.lstat(path)
    except OSError:
        return lambda: None  # an abstract address of Linux has no file

    def remove() -> None:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.lstat(path), ours):
                os.unlink(path)

    return remove


def address_of(sockaddr: object) -> Address:
    """Return a socket's address as a value."""
    if isinstance(sockaddr, tuple):
        host: str = sockaddr[0]
        if ":" in host:
            # "fe80::1%eth0": the zone is this machine's, not the peer's. "::ffff:192.0.2.1": an IPv4 peer of
            # a dual-stack socket (RFC 4291 §2.5.5.2).
            host = host.partition("%")[0]
            if "." in host:
                host = host.removeprefix(_MAPPED)
        return Address(host, sockaddr[1])
    path = sockaddr if isinstance(sockaddr, str) else ""
    # A client may bind its end to any name, such as "192.0.2.1", and must not pass for that address.
    return Address(path if not path or path.startswith(("/", ".")) else f"./{path}")
