"""Sockets before they are connections: accepting, TLS, heads, refusals, and a system that has run out."""

from __future__ import annotations

import logging
import socket as stdlib_socket
import time
from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.server.desk import REQUEST, Desk, receive_all
from tests.waiting import until
from wsframework.config import Timeouts
from wsframework.request import Address, Response
from wsframework.server.incoming import Incoming


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
    client = stdlib_socket.create_connection(desk.address, timeout=30)
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


@pytest.mark.parametrize("with_the_head", [False, True])
async def test_frames_that_came_before_the_end_are_no_leaving(desk: Desk, with_the_head: bool) -> None:
    async with await desk.connect() as client:
        incoming, left = await deciding(desk, client, REQUEST + b"early" * with_the_head)
        if not with_the_head:
            await client.send_all(b"early")
        await client.send_eof()
        await trio.sleep(0.02)
        assert left == []
        assert not incoming.gone
