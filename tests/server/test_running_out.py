"""Accepting where the system has run out of something."""

from __future__ import annotations

import errno
import logging
import resource
import socket as stdlib_socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing

from tests.server.desk import REQUEST, Desk, Poor, receive_all
from tests.server.serving import echo_app, serving
from tests.waiting import until


async def test_it_accepts_a_crowd(desk: Desk) -> None:
    sockets = [stdlib_socket.create_connection(desk.address) for _ in range(100)]
    await until(lambda: desk.core.admission.open == 100)
    for socket in sockets:
        socket.close()
    await until(lambda: not desk.core.admission.open)


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.ENOBUFS, errno.EINVAL, errno.EBADF, 0])
async def test_where_accepting_fails_it_pauses_says_so_and_goes_on(
    desk: Desk, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    desk.pollee._listener = poor = Poor(desk.listener, number, number)  # type: ignore[assignment]
    async with await desk.connect():
        await until(lambda: caplog.records)
        assert desk.core.admission.open == 0
        await until(lambda: desk.core.admission.open == 1)
        assert poor.calls < 10
    (entry,) = caplog.records
    assert entry.levelno == logging.ERROR
    assert entry.getMessage().startswith("server.out_of_resources")


async def test_a_listener_that_closes_in_that_pause_stays_closed(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.pollee._listener = Poor(desk.listener, errno.ENOMEM, errno.ENOMEM)  # type: ignore[assignment]
    async with await desk.connect():
        await until(lambda: caplog.records)
        desk.pollee.close()
        await trio.sleep(0.15)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETUNREACH])
async def test_a_connection_that_is_gone_before_it_is_accepted_is_passed_over(
    desk: Desk, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    desk.pollee._listener = Poor(desk.listener, number)  # type: ignore[assignment]
    async with await desk.connect():
        await until(lambda: desk.core.admission.open == 1)
    assert caplog.records == []


async def test_a_listener_that_only_fails_does_not_take_the_processor(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.pollee._listener = poor = Poor(desk.listener, *[errno.EPERM] * 10_000)  # type: ignore[assignment]
    async with await desk.connect():
        await trio.sleep(0.25)
    assert poor.calls <= 5 * 64
    assert len(caplog.records) == 1


async def test_it_pauses_without_a_descriptor_and_without_a_spare_one(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    errors = [errno.EMFILE] * 5
    desk.pollee._listener = poor = Poor(desk.listener, *errors)  # type: ignore[assignment]
    async with await desk.connect():
        await until(lambda: desk.core.admission.open == 1)
        assert len(desk.pollee._spare._kept) == 4
    assert poor.calls < 10
    assert len(caplog.records) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM])
@pytest.mark.parametrize("full", [False, True], ids=["admitted", "refused"])
async def test_a_socket_that_the_hub_cannot_watch_is_closed_and_counted_out(
    desk: Desk,
    number: int,
    full: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(fd: int, pollee: object, events: int) -> None:
        raise OSError(number, "as the system says")

    if full:
        monkeypatch.setattr(desk.core.admission, "admit", lambda remote: False)
    with monkeypatch.context() as patch:
        patch.setattr(desk.pollee._hub, "add", fail)
        for _ in range(3):
            async with await desk.connect() as client:
                assert await receive_all(client) == b""
    assert (desk.core.admission.open, desk.core.admission._refusing) == (0, 0)
    assert not desk.waiting
    events = [entry.__dict__["event"] for entry in caplog.records]
    assert events == ["connection.refused"] * full + ["server.out_of_resources"]
    async with await desk.connect() as client:
        await client.send_all(REQUEST)
        await until(lambda: desk.heads or full)


async def test_who_has_connected_before_the_listener_closes_is_served(desk: Desk) -> None:
    sockets = [stdlib_socket.create_connection(desk.address) for _ in range(100)]
    desk.pollee.close()
    await until(lambda: desk.core.admission.open == 100)
    for socket in sockets:
        socket.send(REQUEST)
    await until(lambda: len(desk.heads) == 100)
    for socket in sockets:
        socket.close()


@contextmanager
def without_descriptors() -> Iterator[None]:
    """Let nobody in this process open another one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The lowest number that is free is the one that `accept` would take.
    with stdlib_socket.socket() as probe:
        lowest = probe.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("transport", ["hub", "stream"])
async def test_a_server_out_of_descriptors_says_503_and_serves_on_when_there_are_some_again(
    transport: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(echo_app(), transport=transport) as server:
        clients = [trio.SocketStream(trio.socket.socket()) for _ in range(30)]
        with without_descriptors():
            # A few that never leave do not use up what there is for telling the others.
            for client in clients[:10]:
                await client.socket.connect(("127.0.0.1", server.port))
            for client in clients[10:]:
                await client.socket.connect(("127.0.0.1", server.port))
                with suppress(trio.BrokenResourceError):
                    await client.send_all(REQUEST)
                assert (await receive_all(client)).startswith(b"HTTP/1.1 503 ")
        assert server.statistics().refused == 30
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(REQUEST)
            assert (await receive_all(stream)).endswith(b"a page")
        for client in clients:
            await client.aclose()
        await until(lambda: not server.statistics().connections)
    events = [entry.getMessage().split()[0] for entry in caplog.records]
    assert sorted(events) == ["connection.refused", "server.out_of_resources"]


async def test_a_crowd_that_comes_in_one_turn_hears_503_one_and_all() -> None:
    async with serving(echo_app(), transport="hub") as server:
        sockets = [stdlib_socket.socket() for _ in range(40)]
        with without_descriptors():
            # Without a checkpoint in between, so that the server finds all of them at once.
            for socket in sockets:
                socket.connect(("127.0.0.1", server.port))
            for socket in sockets:
                socket.setblocking(False)
                client = trio.SocketStream(trio.socket.from_stdlib_socket(socket))
                assert (await receive_all(client)).startswith(b"HTTP/1.1 503 ")
        for socket in sockets:
            socket.close()


@pytest.mark.parametrize("transport", ["hub", "stream"])
async def test_over_tls_a_server_out_of_descriptors_just_leaves(
    transport: Any, contexts: tuple[ssl.SSLContext, ssl.SSLContext], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(echo_app(), transport=transport, ssl=contexts[0]) as server:
        clients = [trio.SocketStream(trio.socket.socket()) for _ in range(10)]
        with without_descriptors():
            for client in clients:
                await client.socket.connect(("127.0.0.1", server.port))
                assert await receive_all(client) == b""
        for client in clients:
            await client.aclose()
    assert len(caplog.records) == 2


@pytest.mark.parametrize("transport", ["hub", "stream"])
async def test_an_accepted_socket_that_fails_at_once_ends_nothing(
    transport: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(echo_app(), transport=transport) as server:
        real = stdlib_socket.socket.getsockname

        def fail(socket: stdlib_socket.socket) -> Any:
            if socket.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_ACCEPTCONN):
                return real(socket)
            raise OSError(errno.ENOTCONN, "not connected")

        client = await trio.open_tcp_stream("127.0.0.1", server.port)
        with monkeypatch.context() as patch:
            patch.setattr(stdlib_socket.socket, "getsockname", fail)
            async with client:
                assert await receive_all(client) in (b"", b"<reset>")
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(REQUEST)
            assert (await receive_all(stream)).endswith(b"a page")
    assert caplog.records == []
