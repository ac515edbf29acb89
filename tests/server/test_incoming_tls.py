"""Sockets over TLS, before they are connections."""

from __future__ import annotations

import errno
import gc
import socket as stdlib_socket
import ssl
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing

from tests.server.desk import REQUEST, Desk, receive_all
from tests.server.serving import echo_app, serving
from tests.waiting import until
from wsframework.config import Limits
from wsframework.server import Server
from wsframework.server.core import Core
from wsframework.server.hub import Hub
from wsframework.server.pollers import READ, WRITE
from wsframework.server.tls_socket import TLSSocket


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
        def wrap_bio(self, incoming: Any, outgoing: Any, **options: Any) -> Any:
            wrapped.append(incoming)
            return contexts[0].wrap_bio(incoming, outgoing, **options)

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
        before = sum(isinstance(found, ssl.SSLObject | TLSSocket) for found in gc.get_objects())
        for _ in range(5):
            client = await desk.connect()
            await client.send_all(b"no TLS at all" if end == "nonsense" else first)
            await until(lambda: desk.waiting or end == "nonsense")
            if end == "timeout":
                await receive_all(client)
            await client.aclose()
            await until(lambda: not desk.waiting)
        after = sum(isinstance(found, ssl.SSLObject | TLSSocket) for found in gc.get_objects())
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
            raise ssl.SSLWantReadError if asked else ssl.SSLWantWriteError

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
            assert asked == [WRITE]
            incoming.on_ready(WRITE, trio.current_time())
        # No longer for room, which there is nearly always: the hub would have no rest.
        assert asked == [WRITE, READ]


async def test_a_socket_that_is_dead_on_arrival_is_closed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Context:
        def wrap_bio(self, incoming: object, outgoing: object, **_: object) -> None:
            raise OSError(errno.ENOTCONN, "not connected")

    desk.pollee._tls = Context()  # type: ignore[assignment]
    async with await desk.connect() as client:
        assert await receive_all(client) == b""
    assert desk.core.admission.open == 0


async def test_a_tls_socket_that_was_reset_before_it_is_accepted_is_closed_by_us(desk: Desk) -> None:
    class Context:
        def wrap_bio(self, incoming: object, outgoing: object, **_: object) -> None:
            raise OSError(errno.ECONNRESET, "reset")

    desk.pollee._tls = Context()  # type: ignore[assignment]
    client = stdlib_socket.create_connection(desk.listener.getsockname())
    client.send(b"hello")
    client.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert desk.core.admission.open == 0
