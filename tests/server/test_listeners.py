"""Listening sockets: every address of a host on one port, clear errors, and unix sockets' files."""

from __future__ import annotations

import errno
import os
import socket as stdlib_socket
import stat
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.server.conftest import Sockets
from wsframework.errors import ListenError
from wsframework.request import Address
from wsframework.server import listeners
from wsframework.server.listeners import (
    address_of,
    is_loopback_only,
    open_tcp_listeners,
    open_unix_listener,
    unix_socket_file,
)


def names(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Let every name stand for these addresses."""

    async def getaddrinfo(host: str, port: int, **_: object) -> list[Any]:
        return [
            (
                stdlib_socket.AF_INET6 if ":" in address else stdlib_socket.AF_INET,
                stdlib_socket.SOCK_STREAM,
                0,
                "",
                (address, port + offset, 0, 0) if ":" in address else (address, port + offset),
            )
            for address, offset in addresses
        ]

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)


# TCP


@pytest.mark.parametrize(
    ("host", "addresses", "expected"),
    [
        ("my-machine", ["127.0.1.1"], True),
        ("ip6-loopback", ["::1"], True),
        ("both", ["::1", "127.0.0.1"], True),
        ("one.of.them", ["127.0.0.1", "192.0.2.1"], False),
        ("192.0.2.1", ["192.0.2.1"], False),
        ("", [], False),
        (None, [], False),
    ],
)
def test_a_name_is_for_this_machine_only_when_all_its_addresses_are(
    monkeypatch: pytest.MonkeyPatch, host: str | None, addresses: list[str], expected: bool
) -> None:
    found = [(stdlib_socket.AF_INET, stdlib_socket.SOCK_STREAM, 0, "", (each, 0)) for each in addresses]
    monkeypatch.setattr(stdlib_socket, "getaddrinfo", lambda *_, **__: found)
    assert is_loopback_only(host) is expected


def test_a_name_that_does_not_exist_is_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise stdlib_socket.gaierror

    monkeypatch.setattr(stdlib_socket, "getaddrinfo", fail)
    assert is_loopback_only("localhost")
    assert not is_loopback_only("nowhere.invalid")


async def test_port_0_is_a_port_of_the_systems_choice(opened: Sockets) -> None:
    opened += await open_tcp_listeners("127.0.0.1", 0)
    (listener,) = opened
    assert listener.getsockname()[0] == "127.0.0.1"
    assert listener.getsockname()[1] > 1024
    assert listener.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_ACCEPTCONN)


async def test_all_addresses_of_a_host_share_the_port_that_was_chosen(opened: Sockets) -> None:
    opened += await open_tcp_listeners(None, 0)
    assert {listener.family for listener in opened} == {stdlib_socket.AF_INET, stdlib_socket.AF_INET6}
    assert len({listener.getsockname()[1] for listener in opened}) == 1


async def test_an_address_that_is_listed_twice_is_bound_once(
    opened: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, ("127.0.0.1", 0), ("127.0.0.1", 0))
    opened += await open_tcp_listeners("twice.invalid", 0)
    assert len(opened) == 1


async def test_another_port_is_tried_when_the_chosen_one_is_taken_on_a_second_address(
    opened: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, ("127.0.0.1", 0), ("::1", 0))
    bind = listeners._bind
    attempts = 0

    def unlucky(family: int, sockaddr: tuple[object, ...]) -> stdlib_socket.socket:
        nonlocal attempts
        attempts += family == stdlib_socket.AF_INET6
        if family == stdlib_socket.AF_INET6 and attempts < 3:
            raise OSError(errno.EADDRINUSE, "taken")
        return bind(family, sockaddr)

    monkeypatch.setattr(listeners, "_bind", unlucky)
    opened += await open_tcp_listeners("both.invalid", 0)
    assert attempts == 3
    assert len(opened) == 2


async def test_it_gives_up_when_no_port_is_free_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, ("127.0.0.1", 0))

    def bind(family: int, sockaddr: tuple[object, ...]) -> stdlib_socket.socket:
        raise OSError(errno.EADDRINUSE, "taken")

    monkeypatch.setattr(listeners, "_bind", bind)
    with pytest.raises(ListenError, match="the port is in use"):
        await open_tcp_listeners("unlucky.invalid", 0)


async def test_a_machine_without_ipv6_listens_on_ipv4(
    opened: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, ("::1", 0), ("127.0.0.1", 0))
    bind = listeners._bind

    def without_ipv6(family: int, sockaddr: tuple[object, ...]) -> stdlib_socket.socket:
        if family == stdlib_socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "not supported")
        return bind(family, sockaddr)

    monkeypatch.setattr(listeners, "_bind", without_ipv6)
    opened += await open_tcp_listeners("both.invalid", 0)
    assert [listener.getsockname()[0] for listener in opened] == ["127.0.0.1"]


async def test_a_host_without_any_usable_address_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, ("::1", 0), ("::2", 0))

    def bind(family: int, sockaddr: tuple[object, ...]) -> stdlib_socket.socket:
        raise OSError(errno.EADDRNOTAVAIL, "not available")

    monkeypatch.setattr(listeners, "_bind", bind)
    with pytest.raises(ListenError, match="no address of this host is usable"):
        await open_tcp_listeners("nowhere.invalid", 0)


async def test_when_one_address_fails_the_others_are_closed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, ("127.0.0.1", 0), ("127.0.0.2", 0))
    bind = listeners._bind
    made: Sockets = []

    def second_fails(family: int, sockaddr: tuple[object, ...]) -> stdlib_socket.socket:
        if made:
            raise OSError(errno.ENOMEM, "no memory")
        made.append(bind(family, sockaddr))
        return made[0]

    monkeypatch.setattr(listeners, "_bind", second_fails)
    with pytest.raises(ListenError, match="no memory"):
        await open_tcp_listeners("both.invalid", 0)
    assert made[0].fileno() == -1


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EADDRINUSE, "cannot listen on 127.0.0.1:80: the port is in use"),
        (errno.EACCES, "cannot listen on 127.0.0.1:80: not allowed; ports below 1024 need privileges"),
        (errno.EADDRNOTAVAIL, "cannot listen on 127.0.0.1:80: the address is not one of this machine's"),
        (errno.ENOBUFS, "cannot listen on 127.0.0.1:80: as the system says"),
    ],
)
async def test_errors_say_what_was_wrong_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    def bind(family: int, sockaddr: tuple[object, ...]) -> stdlib_socket.socket:
        raise OSError(number, "as the system says")

    monkeypatch.setattr(listeners, "_bind", bind)
    with pytest.raises(ListenError) as caught:
        await open_tcp_listeners("127.0.0.1", 80)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("port", [-1, 65536])
async def test_a_port_that_is_none_is_an_error(port: int) -> None:
    with pytest.raises(ListenError, match="from 0 to 65535"):
        await open_tcp_listeners("127.0.0.1", port)


async def test_an_unknown_name_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: object, **__: object) -> None:
        raise stdlib_socket.gaierror(stdlib_socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(ListenError, match=r"nowhere\.invalid.*unknown name"):
        await open_tcp_listeners("nowhere.invalid", 0)


async def test_a_port_in_use_is_found_out_for_real(opened: Sockets) -> None:
    opened += await open_tcp_listeners("127.0.0.1", 0)
    port = opened[0].getsockname()[1]
    with pytest.raises(ListenError, match=f"127.0.0.1:{port}: the port is in use"):
        await open_tcp_listeners("127.0.0.1", port)


async def test_a_server_that_restarts_gets_its_port_again_at_once(opened: Sockets) -> None:
    (first,) = await open_tcp_listeners("127.0.0.1", 0)
    address = first.getsockname()
    client = stdlib_socket.create_connection(address)
    accepted, _ = first.accept()
    accepted.close()  # we close first, so TIME_WAIT is ours
    client.close()
    first.close()
    opened += await open_tcp_listeners(*address)
    assert opened[0].getsockname() == address


async def test_two_colons_listen_on_ipv4_and_ipv6_with_one_socket(opened: Sockets) -> None:
    opened += await open_tcp_listeners("::", 0)
    (listener,) = opened
    port = listener.getsockname()[1]
    for host in ("127.0.0.1", "::1"):
        with stdlib_socket.create_connection((host, port)):
            accepted, peer = listener.accept()
        accepted.close()
        assert address_of(peer).host == host


async def test_a_single_ipv6_address_is_for_ipv6_only(opened: Sockets) -> None:
    opened += await open_tcp_listeners("::1", 0)
    assert opened[0].getsockopt(stdlib_socket.IPPROTO_IPV6, stdlib_socket.IPV6_V6ONLY)


# Unix sockets


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.mark.parametrize("mode", [0o660, 0o600, 0o777])
def test_a_unix_socket_has_its_permissions_before_it_listens(
    tmp_path: Path, opened: Sockets, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.fspath(tmp_path / "socket")
    listen, seen = stdlib_socket.socket.listen, []

    def noting_listen(self: stdlib_socket.socket, backlog: int) -> None:
        seen.append(mode_of(path))
        listen(self, backlog)

    monkeypatch.setattr(stdlib_socket.socket, "listen", noting_listen)
    opened.append(open_unix_listener(path, mode))
    assert seen == [mode]


def test_the_file_of_a_dead_server_leaves_its_permissions_to_the_next(
    tmp_path: Path, opened: Sockets
) -> None:
    path = os.fspath(tmp_path / "socket")
    open_unix_listener(path, 0o640).close()
    opened.append(open_unix_listener(path))
    assert mode_of(path) == 0o640
    opened.pop().close()
    opened.append(open_unix_listener(path, 0o600))
    assert mode_of(path) == 0o600


def test_a_unix_socket_is_bound_and_its_file_removed(tmp_path: Path, opened: Sockets) -> None:
    path = os.fspath(tmp_path / "socket")
    opened.append(open_unix_listener(path))
    with stdlib_socket.socket(stdlib_socket.AF_UNIX) as client:
        client.connect(path)
    remove = unix_socket_file(path)
    remove()
    assert not os.path.exists(path)
    remove()  # and again: no matter


def test_a_file_that_has_taken_the_place_of_ours_is_not_removed(tmp_path: Path, opened: Sockets) -> None:
    path = os.fspath(tmp_path / "socket")
    opened.append(open_unix_listener(path))
    remove = unix_socket_file(path)
    os.unlink(path)
    opened.append(open_unix_listener(path))
    remove()
    assert os.path.exists(path)


def test_a_socket_without_a_file_has_nothing_to_remove() -> None:
    unix_socket_file("")()


def test_a_file_that_a_dead_server_left_is_replaced(tmp_path: Path, opened: Sockets) -> None:
    path = os.fspath(tmp_path / "socket")
    open_unix_listener(path).close()
    assert os.path.exists(path)
    opened.append(open_unix_listener(path))


def test_a_living_servers_file_is_left_alone(tmp_path: Path, opened: Sockets) -> None:
    path = os.fspath(tmp_path / "socket")
    opened.append(open_unix_listener(path))
    with pytest.raises(ListenError, match="another server listens there"):
        open_unix_listener(path)
    with stdlib_socket.socket(stdlib_socket.AF_UNIX) as client:
        client.connect(path)


def test_another_kind_of_socket_is_left_alone(tmp_path: Path, opened: Sockets) -> None:
    path = os.fspath(tmp_path / "socket")
    opened.append(stdlib_socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_DGRAM))
    opened[0].bind(path)
    with pytest.raises(ListenError, match="belongs to another program"):
        open_unix_listener(path)
    assert os.path.exists(path)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(ListenError, match="the file there is not a socket"):
        open_unix_listener(os.fspath(path))
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("path", "message"), [("missing/socket", "No such file or directory"), ("x" * 200, "path too long")]
)
def test_a_path_that_cannot_be_bound_is_an_error(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(ListenError, match=f"cannot listen on {tmp_path}/{path}: .*{message}"):
        open_unix_listener(os.fspath(tmp_path / path))


def test_an_empty_path_is_an_error_and_no_name_that_the_system_chooses() -> None:
    with pytest.raises(ListenError, match="its path is empty"):
        open_unix_listener("")


# Addresses


@pytest.mark.parametrize(
    ("sockaddr", "address"),
    [
        (("127.0.0.1", 80), Address("127.0.0.1", 80)),
        (("::1", 80, 0, 0), Address("::1", 80)),
        (("fe80::1%eth0", 80, 0, 2), Address("fe80::1", 80)),
        (("::ffff:192.0.2.1", 80, 0, 0), Address("192.0.2.1", 80)),
        ("/run/socket", Address("/run/socket")),
        ("socket", Address("./socket")),
        ("../socket", Address("../socket")),
        # A client may bind its end of a unix socket to this name.
        ("192.0.2.1", Address("./192.0.2.1")),
        ("", Address("")),
        (b"\0abstract", Address("")),
        (None, Address("")),
    ],
)
def test_a_sockets_address_is_a_value(sockaddr: object, address: Address) -> None:
    assert address_of(sockaddr) == address
