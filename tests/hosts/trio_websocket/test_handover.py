from __future__ import annotations

import logging

import pytest
import trio
import trio.testing
import trio_websocket

from tests.hosts.trio_websocket.stage import KEY, ask, echo_app, frame, opened, plainly, told
from wsframework.hosts.trio_websocket.handover import socket_of, take_over
from wsframework.wire import build_request


async def handed_over(data: bytes, later: bytes = b"") -> tuple[bytes, bytes]:
    """Send a request to a server that takes its connection over; what had been read, and what then is."""
    results: list[tuple[bytes, bytes]] = []
    done = trio.Event()

    async def handler(request: trio_websocket.WebSocketRequest) -> None:
        taken = await take_over(request)
        rest = b""
        while part := await taken.stream.receive_some():
            rest += part
        results.append((taken.received, rest))
        done.set()

    async with plainly(handler) as (port, _):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(data)
            if later:
                await trio.sleep(0.05)
                await stream.send_all(later)
        with trio.fail_after(30):
            await done.wait()
    return results[0]


async def test_the_head_is_what_the_client_sent_in_other_words() -> None:
    request = build_request(
        "www.example:80",
        "/a%20b?c=%ff",
        KEY,
        subprotocols=["chat", "superchat"],
        extensions='permessage-deflate; client_max_window_bits, x-quoted; a="b"',
        origin="http://www.example",
        headers=[("X-Latin", "grüße"), ("X-Twice", "1"), ("X-Twice", "2")],
    )
    received, rest = await handed_over(request)
    first, *lines = received.decode("latin-1").split("\r\n")
    assert first == "GET /a%20b?c=%ff HTTP/1.1"
    sent = request.decode("latin-1").split("\r\n")[1:]
    assert sorted(line.lower() for line in lines) == sorted(line.lower() for line in sent)
    assert rest == b""


@pytest.mark.parametrize(
    ("host", "told_as"),
    [
        ("xn--bcher-kva.example:8000", b"xn--bcher-kva.example:8000"),
        ("127.0.0.1:8000", b"127.0.0.1:8000"),
        ("[::1]:8000", b"[::1]:8000"),
        ("a" * 200, b"a" * 200),
        ("", b""),
    ],
)
async def test_the_host_is_what_the_client_sent(host: str, told_as: bytes) -> None:
    received, _ = await handed_over(build_request(host, "/", KEY))
    assert b"\r\nhost: " + told_as + b"\r\n" in received


async def test_a_host_that_cannot_be_written_again_is_written_as_no_host_name() -> None:
    received, _ = await handed_over(build_request(f"xn--bcher-kva.{'a' * 70}", "/", KEY))
    assert b"\r\nhost: b\xc3\xbccher." + b"a" * 70 + b"\r\n" in received


async def test_what_came_behind_the_head_is_kept() -> None:
    request = build_request("localhost", "/", KEY)
    assert await handed_over(request + b"early") == ((await handed_over(request))[0] + b"early", b"")
    received, rest = await handed_over(request, b"late")
    assert (received + rest).endswith(b"\r\n\r\nlate")


async def test_an_http_1_0_request_is_told_as_one() -> None:
    received, _ = await handed_over(build_request("localhost", "/", KEY).replace(b"1.1", b"1.0"))
    assert received.startswith(b"GET / HTTP/1.0\r\n")


async def test_frames_that_do_not_wait_are_received_in_order() -> None:
    async with plainly(echo_app()) as (port, _), await ask(port, frame("1"), frame("2")) as stream:
        await stream.send_all(frame("3"))
        answer = b""
        with trio.fail_after(30):
            while not answer.endswith(told("3")):
                answer += await stream.receive_some()
        assert answer.endswith(told("1") + told("2") + told("3"))


async def test_a_request_that_was_answered_before_is_a_mistake_that_ends_one_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = echo_app()

    async def accept_first(request: trio_websocket.WebSocketRequest) -> None:
        if request.path == "/accepted":
            await request.accept()
        await app(request)

    async with plainly(accept_first) as (port, _), opened(port) as neighbour:
        async with opened(port, "/accepted"):
            pass
        await neighbour.send_all(frame("still here"))
        assert await neighbour.receive_some() == told("still here")
    [logged] = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert "accepted or rejected already" in logged.getMessage()


def test_a_stream_without_a_socket_is_refused() -> None:
    with pytest.raises(TypeError, match="MemorySendStream"):
        socket_of(trio.testing.MemorySendStream())
