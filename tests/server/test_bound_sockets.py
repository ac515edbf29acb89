"""Sockets that the caller has bound."""

from __future__ import annotations

import functools
import socket as stdlib_socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.server.conftest import Sockets
from wsframework import App
from wsframework.errors import ConfigurationError, ListenError
from wsframework.request import Request
from wsframework.server.listeners import (
    listen_on,
)


def bound_tcp() -> stdlib_socket.socket:
    socket = stdlib_socket.socket()
    socket.bind(("127.0.0.1", 0))
    return socket


def test_a_bound_socket_is_made_to_listen(opened: Sockets) -> None:
    socket = bound_tcp()
    opened.append(socket)
    assert listen_on([socket]) == [socket]
    with stdlib_socket.create_connection(socket.getsockname()):
        pass


@pytest.mark.parametrize("name", ["socket", "s"])
def test_a_bound_unix_socket_is_made_to_listen(
    name: str, tmp_path: Path, opened: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    socket = stdlib_socket.socket(stdlib_socket.AF_UNIX)
    opened.append(socket)
    socket.bind(name)
    listen_on([socket])
    with stdlib_socket.socket(stdlib_socket.AF_UNIX) as client:
        client.connect(socket.getsockname())


def test_a_socket_that_listens_keeps_its_backlog(opened: Sockets, monkeypatch: pytest.MonkeyPatch) -> None:
    socket = bound_tcp()
    opened.append(socket)
    socket.listen(7)
    calls: list[int] = []
    monkeypatch.setattr(stdlib_socket.socket, "listen", lambda self, backlog: calls.append(backlog))
    listen_on([socket])
    assert calls == []


def closed_socket() -> stdlib_socket.socket:
    socket = bound_tcp()
    socket.close()
    return socket


def datagram_socket() -> stdlib_socket.socket:
    socket = stdlib_socket.socket(type=stdlib_socket.SOCK_DGRAM)
    socket.bind(("127.0.0.1", 0))
    return socket


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (closed_socket, "closed"),
        (datagram_socket, "not a stream socket"),
        (stdlib_socket.socket, r"not bound; call its bind\(\) first"),
        (lambda: stdlib_socket.socket(stdlib_socket.AF_UNIX), "not bound"),
    ],
    ids=["closed", "datagram", "unbound", "unbound unix"],
)
def test_a_socket_that_cannot_listen_is_refused_and_stays_the_callers(
    make: Callable[[], stdlib_socket.socket], message: str, opened: Sockets
) -> None:
    socket = make()
    opened.append(socket)
    number = socket.fileno()
    with pytest.raises(ListenError, match=message):
        listen_on([socket])
    assert socket.fileno() == number


def test_a_connected_socket_is_refused(opened: Sockets) -> None:
    listener = bound_tcp()
    listener.listen()
    opened += [*stdlib_socket.socketpair(), listener, stdlib_socket.create_connection(listener.getsockname())]
    for socket in (opened[0], opened[-1]):
        with pytest.raises(ListenError, match="connected to a peer"):
            listen_on([socket])


def test_two_bound_sockets_of_which_one_cannot_listen_name_the_address(opened: Sockets) -> None:
    first, second = stdlib_socket.socket(), stdlib_socket.socket()
    opened += [first, second]
    for socket in (first, second):
        socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEADDR, 1)
    first.bind(("127.0.0.1", 0))
    second.bind(first.getsockname())
    with pytest.raises(ListenError, match=f"127.0.0.1:{first.getsockname()[1]}"):
        listen_on([first, second])


@pytest.mark.parametrize("sockets", [(), [], ["3"], [3]])
def test_what_is_no_list_of_sockets_is_a_mistake_of_the_configuration(sockets: Any) -> None:
    with pytest.raises(ConfigurationError, match="sockets"):
        listen_on(sockets)


def test_a_single_socket_without_a_list_says_what_to_write(opened: Sockets) -> None:
    opened.append(bound_tcp())
    bare: Any = opened[0]
    with pytest.raises(ConfigurationError, match=r"write sockets=\[socket\]"):
        listen_on(bare)


async def test_an_app_serves_a_bound_socket_and_closes_it_at_the_end() -> None:
    socket, app = bound_tcp(), App()

    @app.http("/")
    async def page(request: Request) -> str:
        return "served"

    port = socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        server = await nursery.start(functools.partial(app.serve, sockets=[socket]))
        assert server.port == port
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while data := await stream.receive_some(1000):
                answer += data
        assert answer.endswith(b"served")
        nursery.cancel_scope.cancel()
    assert socket.fileno() == -1


async def test_the_file_of_a_shared_unix_socket_stays_when_one_server_stops(tmp_path: Path) -> None:
    path, app = tmp_path / "shared.sock", App()
    with stdlib_socket.socket(stdlib_socket.AF_UNIX) as ours:
        ours.bind(str(path))
        ours.listen()
        async with trio.open_nursery() as nursery:
            await nursery.start(functools.partial(app.serve, sockets=[ours.dup()]))
            nursery.cancel_scope.cancel()
        async with await trio.open_unix_socket(path):
            pass


async def test_sockets_and_a_unix_path_exclude_each_other(opened: Sockets) -> None:
    opened.append(bound_tcp())
    with pytest.raises(ConfigurationError, match="either sockets or unix_path"):
        await App().serve(sockets=opened, unix_path="/nowhere")
    with pytest.raises(ConfigurationError, match="sockets is empty"):
        await App().serve(sockets=[])
