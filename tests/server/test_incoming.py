"""Sockets before they are connections: accepting, TLS, heads, refusals, and a system that has run out."""

from __future__ import annotations

import errno
import gc
import logging
import resource
import socket as stdlib_socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing

from tests.server.serving import echo_app, serving, until
from wsframework.config import Limits, Timeouts
from wsframework.request import Address, Response
from wsframework.server import Server
from wsframework.server.accepting import HubListener
from wsframework.server.core import Core
from wsframework.server.http import Head
from wsframework.server.hub import Hub
from wsframework.server.incoming import Incoming
from wsframework.server.pollers import READ, WRITE

REQUEST = b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n"


class Desk:
    """A listener in a hub, clients for it, and a server that decides nothing by itself."""

    def __init__(self, core: Core, hub: Hub, tls: ssl.SSLContext | None = None) -> None:
        self.core = core
        self.heads: list[tuple[Incoming, Head]] = []
        self.listener = stdlib_socket.create_server(("127.0.0.1", 0))
        self.pollee = HubListener(self.listener, hub, core, self.take, tls, shared=False)
        self.address = self.listener.getsockname()

    @property
    def waiting(self) -> set[Incoming]:
        return {incoming for incoming in self.core.waiting if isinstance(incoming, Incoming)}

    def take(self, incoming: Incoming, head: Head) -> None:
        self.heads.append((incoming, head))

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(*self.address[:2])


@pytest.fixture
async def core_and_hub() -> AsyncIterator[tuple[Core, Hub]]:
    core = Core(
        limits=Limits(head_bytes=1000),
        timeouts=Timeouts(handshake=0.1, close=0.1),
        secure=False,
        observers=(),
    )
    hub = Hub()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        nursery.start_soon(core.timers.run)
        with trio.fail_after(15):
            yield core, hub
        nursery.cancel_scope.cancel()
    hub.close()


@pytest.fixture
async def desk(core_and_hub: tuple[Core, Hub]) -> AsyncIterator[Desk]:
    desk = Desk(*core_and_hub)
    yield desk
    if desk.listener.fileno() >= 0:
        desk.pollee.close()


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
        await until(lambda: desk.heads)
        ((incoming, head),) = desk.heads
        assert (head.target, head.trailing) == ("/page", b"behind")
        assert incoming.remote == Address(*client.socket.getsockname())
        assert incoming.local == Address(*desk.address)
        assert not incoming.secure
        assert not desk.waiting
        incoming.answer(Response("hello"))
        answer = await receive_all(client)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"hello")
        assert desk.core.admission.open == 1
    await until(lambda: not desk.core.admission.open)


async def test_head_is_answered_without_a_body(desk: Desk) -> None:
    async with await desk.connect() as client:
        await client.send_all(REQUEST.replace(b"GET", b"HEAD"))
        await until(lambda: desk.heads)
        desk.heads[0][0].answer(Response("hello"))
        answer = await receive_all(client)
    assert b"Content-Length: 5\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_what_a_client_sends_while_it_waits_stays_in_the_kernel(desk: Desk) -> None:
    async with await desk.connect() as client:
        await client.send_all(REQUEST)
        await until(lambda: desk.heads)
        incoming, head = desk.heads[0]
        await client.send_all(b"more and more")
        await trio.sleep(0.02)
        assert head.trailing == b""
        assert not incoming.gone
        incoming.answer(Response("hello"))
        assert (await receive_all(client)).endswith(b"hello")


async def test_a_client_that_resets_while_it_waits_is_gone(desk: Desk) -> None:
    client = await desk.connect()
    await client.send_all(REQUEST)
    await until(lambda: desk.heads)
    incoming, _ = desk.heads[0]
    await client.send_all(b"unread, so that closing is a reset on their side too")
    client.socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.socket.close()
    await until(lambda: incoming.gone)
    assert desk.core.admission.open == 1, "its request is still being decided about"
    for _ in range(2):  # whatever the host does now, it departs once
        incoming.abort()
        assert desk.core.admission.open == 0


@pytest.mark.parametrize("said", [b"", b"GET / HT"])
async def test_a_client_that_leaves_is_counted_out_and_not_logged(
    desk: Desk, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    caplog.set_level(logging.INFO)
    async with await desk.connect() as client:
        await client.send_all(said)
        await until(lambda: desk.core.admission.open)
    await until(lambda: not desk.core.admission.open)
    assert not desk.waiting
    assert caplog.records == []


async def test_a_head_that_is_none_is_refused(desk: Desk) -> None:
    async with await desk.connect() as client:
        await client.send_all(b"what?\r\n\r\n")
        assert (await receive_all(client)).startswith(b"HTTP/1.1 400 ")
    assert desk.heads == []


async def test_time_is_up_for_a_silent_client_and_for_a_slow_one(desk: Desk) -> None:
    async with await desk.connect() as silent, await desk.connect() as slow:
        await slow.send_all(b"GET")
        assert await receive_all(silent) == b""
        assert (await receive_all(slow)).startswith(b"HTTP/1.1 408 ")
    await until(lambda: not desk.core.admission.open)


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
    monkeypatch.setattr(desk.core.admission, "admit", lambda remote: False)
    async with await desk.connect() as told:
        assert (await receive_all(told)).startswith(b"HTTP/1.1 503 ")
        async with await desk.connect() as left:
            assert await receive_all(left) == b""
    assert desk.core.admission.open == 0


async def test_it_accepts_a_crowd(desk: Desk) -> None:
    sockets = [stdlib_socket.create_connection(desk.address) for _ in range(100)]
    await until(lambda: desk.core.admission.open == 100)
    for socket in sockets:
        socket.close()
    await until(lambda: not desk.core.admission.open)


# A system that has run out


class Poor:
    """A listener whose `accept` fails as the test says, then works."""

    def __init__(self, listener: stdlib_socket.socket, *errors: int) -> None:
        self._listener = listener
        self._errors = list(errors)
        self.calls = 0

    def accept(self) -> Any:
        self.calls += 1
        if self._errors:
            number = self._errors.pop(0)
            raise OSError(number, "as the system says") if number else MemoryError
        return self._listener.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)


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


# Time is up, or is it?


async def test_what_came_in_time_and_waits_in_the_kernel_counts(desk: Desk) -> None:
    async with await desk.connect() as client:
        await until(lambda: desk.waiting)
        await client.send_all(REQUEST)
        time.sleep(0.2)  # noqa: ASYNC251 - twice the time for a handshake
        await until(lambda: desk.heads)


async def begun(desk: Desk) -> tuple[stdlib_socket.socket, Incoming]:
    """Return a client whose bytes are in the kernel before the hub runs again."""
    desk.core.timeouts = Timeouts(handshake=10)
    client = stdlib_socket.create_connection(desk.address, timeout=5)
    await until(lambda: desk.waiting)
    (incoming,) = desk.waiting
    return client, incoming


async def test_the_rest_of_a_head_that_waited_for_us_gets_its_time(desk: Desk) -> None:
    client, incoming = await begun(desk)
    with client:
        client.send(REQUEST[:10])
        incoming._time_out()
        assert desk.waiting
        client.send(REQUEST[10:])
        incoming._read_what_waits()
        assert desk.heads


async def test_time_is_extended_once(desk: Desk) -> None:
    client, incoming = await begun(desk)
    with client:
        client.send(b"G")
        incoming._time_out()
        assert desk.waiting
        client.send(b"E")
        incoming._time_out()
        assert not desk.waiting
        await until(lambda: not incoming._hub._dirty)
        assert client.recv(100).startswith(b"HTTP/1.1 408 ")


async def test_a_head_that_waits_in_the_kernel_is_read_before_draining(desk: Desk) -> None:
    client, incoming = await begun(desk)
    with client:
        client.send(REQUEST)
        incoming.drain()
        assert desk.heads


# Leaving while the application decides


async def deciding(desk: Desk, client: trio.SocketStream, request: bytes) -> tuple[Incoming, list[Incoming]]:
    await client.send_all(request)
    await until(lambda: desk.heads)
    incoming, _ = desk.heads[0]
    left: list[Incoming] = []
    incoming.on_left = lambda: left.append(incoming)
    return incoming, left


def reset(client: trio.SocketStream) -> None:
    client.socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.socket.close()


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("leave", [lambda client: client.socket.close(), reset], ids=["FIN", "RST"])
async def test_who_leaves_during_a_get_is_reported_once(
    desk: Desk, method: bytes, leave: Callable[[trio.SocketStream], None]
) -> None:
    client = await desk.connect()
    incoming, left = await deciding(desk, client, REQUEST.replace(b"GET", method))
    await trio.sleep(0.02)
    assert left == []
    leave(client)
    await until(lambda: left)
    await trio.sleep(0.02)
    assert left == [incoming]
    assert incoming.gone
    assert desk.core.admission.open == 1, "its request is still being decided about"
    incoming.abort()
    assert desk.core.admission.open == 0


@pytest.mark.parametrize("leave", [lambda client: client.socket.close(), reset], ids=["FIN", "RST"])
async def test_who_leaves_during_a_post_is_not_reported_and_costs_no_time(
    desk: Desk, leave: Callable[[trio.SocketStream], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await desk.connect()
    incoming, left = await deciding(desk, client, REQUEST.replace(b"GET", b"POST") + b"a body")
    await client.send_all(b"more of it")
    leave(client)
    calls: list[int] = []
    on_ready = Incoming.on_ready

    def count(incoming: Incoming, events: int, now: float) -> None:
        calls.append(events)
        on_ready(incoming, events, now)

    with monkeypatch.context() as patch:
        patch.setattr(Incoming, "on_ready", count)
        await trio.sleep(0.05)
    assert len(calls) < 5
    assert left == []
    assert not incoming.gone
    incoming.answer(Response("done"))
    await until(lambda: not desk.core.admission.open)


async def test_a_client_that_closed_one_direction_gets_the_answer_to_its_post(desk: Desk) -> None:
    async with await desk.connect() as client:
        incoming, _ = await deciding(desk, client, REQUEST.replace(b"GET", b"POST"))
        await client.send_eof()
        await trio.sleep(0.02)
        incoming.answer(Response("done"))
        assert (await receive_all(client)).endswith(b"done")


async def test_frames_that_came_before_the_end_are_no_leaving(desk: Desk) -> None:
    async with await desk.connect() as client:
        incoming, left = await deciding(desk, client, REQUEST)
        await client.send_all(b"early")
        await client.send_eof()
        await trio.sleep(0.02)
        assert left == []
        assert not incoming.gone


# TLS


def hello(context: ssl.SSLContext) -> bytes:
    """Return the first flight of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


async def get(server: Server, context: ssl.SSLContext) -> bytes:
    stream = trio.SSLStream(
        await trio.open_tcp_stream("127.0.0.1", server.port),
        context,
        server_hostname="localhost",
        https_compatible=True,
    )
    async with stream:
        await stream.send_all(REQUEST)
        return bytes(await stream.receive_some())


@pytest.mark.parametrize("transport", ["hub", "stream"])
async def test_handshakes_that_are_held_open_are_bounded_and_shut_nobody_out(
    transport: Any, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    first = hello(contexts[1])
    async with serving(echo_app(Limits(tls_handshakes=5)), ssl=contexts[0], transport=transport) as server:
        held = []
        for _ in range(20):
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            await stream.send_all(first)
            held.append(stream)
        await until(lambda: server.statistics().connections == 5)
        for _ in range(10):
            assert (await get(server, contexts[1])).startswith(b"HTTP/1.1 200")
        assert server.statistics().connections <= 5
        for stream in held:
            await stream.aclose()


async def test_a_handshake_that_has_what_it_needs_is_not_given_up(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], core_and_hub: tuple[Core, Hub]
) -> None:
    core, hub = core_and_hub
    desk = Desk(core, hub, contexts[0])
    async with await desk.connect() as tcp:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = contexts[1].wrap_bio(incoming, outgoing, server_hostname="localhost")
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
        await tcp.send_all(outgoing.read())
        while True:
            incoming.write(await tcp.receive_some())
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
        (waiting,) = desk.waiting
        client.write(REQUEST)
        await tcp.send_all(outgoing.read())
        waiting.make_room()
        assert desk.heads
        waiting.make_room()
        assert not waiting.gone
    desk.pollee.close()


async def test_a_silent_tls_client_costs_no_tls(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], core_and_hub: tuple[Core, Hub]
) -> None:
    core, hub = core_and_hub
    wrapped: list[object] = []

    class Context:
        def wrap_socket(self, socket: Any, **options: Any) -> Any:
            wrapped.append(socket)
            return contexts[0].wrap_socket(socket, **options)

    desk = Desk(core, hub, Context())  # type: ignore[arg-type]
    async with await desk.connect() as client:
        await until(lambda: desk.waiting)
    await until(lambda: not desk.waiting)
    assert wrapped == []
    async with await desk.connect() as client:
        await client.send_all(b"\x16")
        await until(lambda: wrapped)
    await until(lambda: not desk.waiting)
    assert not core.admission._handshakes
    assert core.admission.open == 0
    desk.pollee.close()


@pytest.mark.parametrize("end", ["timeout", "close", "nonsense"])
async def test_a_handshake_that_fails_leaves_nothing_to_the_collector(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], core_and_hub: tuple[Core, Hub], end: str
) -> None:
    core, hub = core_and_hub
    desk = Desk(core, hub, contexts[0])
    first = hello(contexts[1])
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(found, ssl.SSLSocket) for found in gc.get_objects())
        for _ in range(5):
            client = await desk.connect()
            await client.send_all(b"no TLS at all" if end == "nonsense" else first)
            await until(lambda: desk.waiting or end == "nonsense")
            if end == "timeout":
                await receive_all(client)
            await client.aclose()
            await until(lambda: not desk.waiting)
        after = sum(isinstance(found, ssl.SSLSocket) for found in gc.get_objects())
    finally:
        gc.enable()
    assert after == before
    assert not core.admission._handshakes
    desk.pollee.close()


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
    assert desk.core.admission.open == 0


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
    assert desk.core.admission.open == 0
