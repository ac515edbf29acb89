"""Sockets before they are connections: accepting, TLS, heads, refusals, and a system that has run out."""

from __future__ import annotations

import errno
import logging
import resource
import socket as stdlib_socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from tests.server.serving import echo_app, serving, until
from wsframework.config import Limits, Timeouts
from wsframework.request import Address, Response
from wsframework.server.admission import Admission
from wsframework.server.http import Head
from wsframework.server.hub import READ, WRITE, Hub
from wsframework.server.incoming import Incoming, ListenerPollee
from wsframework.timers import Timers

REQUEST = b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n"


class Host:
    """A server that decides nothing by itself."""

    def __init__(self) -> None:
        self.timers = Timers()
        self.limits = Limits(head_bytes=1000)
        self.timeouts = Timeouts(handshake=0.1, close=0.1)
        self.admission = Admission(self.limits)
        self.heads: list[tuple[Incoming, Head]] = []

    def head_complete(self, incoming: Incoming, head: Head) -> None:
        self.heads.append((incoming, head))

    def fail(self, error: BaseException) -> None:
        raise error


class Desk:
    """A listener in a hub, and clients for it."""

    def __init__(self, host: Host, hub: Hub, tls: ssl.SSLContext | None = None) -> None:
        self.host = host
        self.waiting: set[Incoming] = set()
        self.listener = stdlib_socket.create_server(("127.0.0.1", 0))
        self.pollee = ListenerPollee(self.listener, hub, host, tls, self.waiting)
        self.address = self.listener.getsockname()

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(*self.address[:2])


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    host, hub = Host(), Hub()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        nursery.start_soon(host.timers.run)
        desk = Desk(host, hub)
        with trio.fail_after(5):
            yield desk
        desk.pollee.close()
        nursery.cancel_scope.cancel()
    hub.close()


async def receive_all(stream: trio.SocketStream) -> bytes:
    data = bytearray()
    try:
        while piece := await stream.receive_some():
            data += piece
    except trio.BrokenResourceError:
        data += b"<reset>"
    return bytes(data)


async def test_a_whole_head_goes_to_the_host_and_its_answer_to_the_client(desk: Desk) -> None:
    async with await desk.connect() as client:
        await client.send_all(REQUEST[:10])
        await until(lambda: desk.waiting)
        await client.send_all(REQUEST[10:] + b"behind")
        await until(lambda: desk.host.heads)
        ((incoming, head),) = desk.host.heads
        assert (head.target, head.trailing) == ("/page", b"behind")
        assert incoming.remote == Address(*client.socket.getsockname())
        assert incoming.local == Address(*desk.address)
        assert not incoming.secure
        assert not desk.waiting
        incoming.answer(Response("hello"))
        answer = await receive_all(client)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"hello")
        assert desk.host.admission.open == 1
    await until(lambda: not desk.host.admission.open)


async def test_head_is_answered_without_a_body(desk: Desk) -> None:
    async with await desk.connect() as client:
        await client.send_all(REQUEST.replace(b"GET", b"HEAD"))
        await until(lambda: desk.host.heads)
        desk.host.heads[0][0].answer(Response("hello"))
        answer = await receive_all(client)
    assert b"Content-Length: 5\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_what_a_client_sends_while_it_waits_stays_in_the_kernel(desk: Desk) -> None:
    async with await desk.connect() as client:
        await client.send_all(REQUEST)
        await until(lambda: desk.host.heads)
        incoming, head = desk.host.heads[0]
        await client.send_all(b"more and more")
        await trio.sleep(0.02)
        assert head.trailing == b""
        assert not incoming.gone
        incoming.answer(Response("hello"))
        assert (await receive_all(client)).endswith(b"hello")


async def test_a_client_that_resets_while_it_waits_is_gone(desk: Desk) -> None:
    client = await desk.connect()
    await client.send_all(REQUEST)
    await until(lambda: desk.host.heads)
    incoming, _ = desk.host.heads[0]
    await client.send_all(b"unread, so that closing is a reset on their side too")
    client.socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.socket.close()
    await until(lambda: incoming.gone)
    assert desk.host.admission.open == 1, "its request is still being decided about"
    for _ in range(2):  # whatever the host does now, it departs once
        incoming.abort()
        assert desk.host.admission.open == 0


@pytest.mark.parametrize("said", [b"", b"GET / HT"])
async def test_a_client_that_leaves_is_counted_out_and_not_logged(
    desk: Desk, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    caplog.set_level(logging.INFO)
    async with await desk.connect() as client:
        await client.send_all(said)
        await until(lambda: desk.host.admission.open)
    await until(lambda: not desk.host.admission.open)
    assert not desk.waiting
    assert caplog.records == []


async def test_a_head_that_is_none_is_refused(desk: Desk) -> None:
    async with await desk.connect() as client:
        await client.send_all(b"what?\r\n\r\n")
        assert (await receive_all(client)).startswith(b"HTTP/1.1 400 ")
    assert desk.host.heads == []


async def test_time_is_up_for_a_silent_client_and_for_a_slow_one(desk: Desk) -> None:
    async with await desk.connect() as silent, await desk.connect() as slow:
        await slow.send_all(b"GET")
        assert await receive_all(silent) == b""
        assert (await receive_all(slow)).startswith(b"HTTP/1.1 408 ")
    await until(lambda: not desk.host.admission.open)


async def test_draining_answers_who_has_begun_and_leaves_the_others(desk: Desk) -> None:
    async with await desk.connect() as silent, await desk.connect() as begun:
        await begun.send_all(b"GET")
        await until(lambda: len(desk.waiting) == 2)
        await trio.sleep(0.01)
        for incoming in list(desk.waiting):
            incoming.drain()
        assert not desk.waiting
        assert await receive_all(silent) == b""
        assert (await receive_all(begun)).startswith(b"HTTP/1.1 503 ")


async def test_who_is_not_admitted_is_told_so_while_there_are_few_of_them(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsframework.server.admission._REFUSALS_AT_ONCE", 1)
    monkeypatch.setattr(desk.host.admission, "admit", lambda remote: False)
    async with await desk.connect() as told:
        assert (await receive_all(told)).startswith(b"HTTP/1.1 503 ")
        async with await desk.connect() as left:
            assert await receive_all(left) == b""
    assert desk.host.admission.open == 0


async def test_it_accepts_a_crowd(desk: Desk) -> None:
    sockets = [stdlib_socket.create_connection(desk.address) for _ in range(100)]
    await until(lambda: desk.host.admission.open == 100)
    for socket in sockets:
        socket.close()
    await until(lambda: not desk.host.admission.open)


# A system that has run out


class Poor:
    """A listener whose `accept` fails as the test says, then works."""

    def __init__(self, listener: stdlib_socket.socket, *errors: int) -> None:
        self._listener = listener
        self._errors = list(errors)

    def accept(self) -> Any:
        if self._errors:
            number = self._errors.pop(0)
            raise OSError(number, "as the system says")
        return self._listener.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)


async def test_without_descriptors_it_pauses_says_so_once_and_goes_on(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.pollee._listener = Poor(desk.listener, errno.EMFILE)  # type: ignore[assignment]
    async with await desk.connect():
        await until(lambda: caplog.records)
        assert desk.host.admission.open == 0
        await until(lambda: desk.host.admission.open == 1)
    (entry,) = caplog.records
    assert entry.levelno == logging.ERROR
    assert entry.getMessage().startswith("server.out_of_resources")


async def test_a_listener_that_closes_in_that_pause_stays_closed(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.pollee._listener = Poor(desk.listener, errno.ENOMEM)  # type: ignore[assignment]
    async with await desk.connect():
        await until(lambda: caplog.records)
        desk.pollee.close()
        await trio.sleep(0.15)
    assert len(caplog.records) == 1


async def test_a_connection_that_is_gone_before_it_is_accepted_is_passed_over(desk: Desk) -> None:
    desk.pollee._listener = Poor(desk.listener, errno.ECONNABORTED)  # type: ignore[assignment]
    async with await desk.connect():
        await until(lambda: desk.host.admission.open == 1)


@pytest.mark.parametrize("transport", ["hub", "stream"])
async def test_a_server_out_of_descriptors_serves_on_when_there_are_some_again(
    transport: Any, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with serving(echo_app(), transport=transport) as server:
        clients = [stdlib_socket.socket() for _ in range(5)]
        try:
            # The lowest number that is free is the one that `accept` would take.
            with stdlib_socket.socket() as probe:
                lowest = probe.fileno()
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            for client in clients:
                client.connect(("127.0.0.1", server.port))
            await until(lambda: caplog.records)
            assert server.statistics().accepted == 0
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await until(lambda: server.statistics().accepted == 5)
        for client in clients:
            client.close()
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(REQUEST)
            assert (await receive_all(stream)).endswith(b"a page")
    assert {entry.getMessage().split()[0] for entry in caplog.records} == {"server.out_of_resources"}


# TLS


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


async def test_a_tls_client_over_the_limit_is_left_without_a_handshake(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with (
        serving(echo_app(Limits(connections=1)), ssl=contexts[0]) as server,
        await trio.open_tcp_stream("127.0.0.1", server.port),
    ):
        await until(lambda: server.statistics().connections == 1)
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as over:
            assert await receive_all(over) == b""


async def test_a_tls_handshake_whose_answer_does_not_fit_goes_on_when_there_is_room(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A socket that wants to write before it can read."""

        def recv(self, size: int) -> bytes:
            raise ssl.SSLWantWriteError

        def __getattr__(self, name: str) -> Any:
            return getattr(socket, name)

    async with await desk.connect() as client:
        await client.send_all(b"GET")
        await until(lambda: desk.waiting)
        (incoming,) = desk.waiting
        socket = incoming._socket
        asked: list[int] = []
        with monkeypatch.context() as patch:
            patch.setattr(incoming, "_socket", Full())
            patch.setattr(incoming._hub, "ask", lambda fd, events: asked.append(events))
            incoming.on_ready(READ, trio.current_time())
        assert asked == [READ | WRITE]


async def test_a_socket_that_is_dead_on_arrival_is_closed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Context:
        def wrap_socket(self, socket: object, **_: object) -> None:
            raise OSError(errno.ENOTCONN, "not connected")

    desk.pollee._tls = Context()  # type: ignore[assignment]
    async with await desk.connect() as client:
        assert await receive_all(client) == b""
    assert desk.host.admission.open == 0


async def test_a_tls_socket_that_was_reset_before_it_is_accepted_is_closed_by_us(desk: Desk) -> None:
    # Python's wrap_socket would leave that to the garbage collector, and it warns.
    wrapped: list[object] = []

    class Context:
        def wrap_socket(self, socket: object, **_: object) -> None:
            wrapped.append(socket)
            raise OSError(errno.ECONNRESET, "reset")

    desk.pollee._tls = Context()  # type: ignore[assignment]
    client = stdlib_socket.create_connection(desk.listener.getsockname())
    client.send(b"hello")
    client.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert wrapped == []
    assert desk.host.admission.open == 0
