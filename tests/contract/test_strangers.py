"""What clients that keep no rule can do to the others: nothing."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from typing import Any

import pytest
import trio
import trio_websocket

from tests.contract.differences import Difference
from tests.contract.hosts import Host, Served, new_app
from tests.contract.lending import lending, setting
from tests.waiting import until
from wsframework import App, Connection, Limits, Timeouts
from wsframework.wire import Opcode, encode_frame

OPENING = {
    "Host": b"localhost",
    "Connection": b"Upgrade",
    "Upgrade": b"websocket",
    "Sec-WebSocket-Version": b"13",
    "Sec-WebSocket-Key": b"dGhlIHNhbXBsZSBub25jZQ==",
}

ZEROS = bytes(4)
"""A masking key that changes nothing."""

STREAM_LOST = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


def opening(path: str = "/", **fields: bytes) -> bytes:
    """Return a handshake with these fields in place of its own; a name's underscores are hyphens."""
    named = {name.lower(): value for name, value in OPENING.items()}
    named |= {name.lower().replace("_", "-"): value for name, value in fields.items()}
    lines = [b"%s: %s" % (name.encode(), value) for name, value in named.items()]
    return b"\r\n".join([b"GET %s HTTP/1.1" % path.encode(), *lines, b"", b""])


def echo_app(limits: Limits | None = None) -> App:
    app = new_app(limits=limits)

    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    @app.websocket("/close")
    async def close(ws: Connection) -> None:
        await ws.aclose(4000)

    return app


async def attack(served: Served, *parts: bytes, then: str = "read") -> bytes:
    """Send bytes, and return what comes back within a moment."""
    answer = b""
    with contextlib.suppress(*STREAM_LOST):
        async with await served.open_stream() as stream:
            for part in parts[:-1]:
                await stream.send_all(part)
                await trio.sleep(0.01)
            await stream.send_all(parts[-1])
            if then == "reset" and isinstance(stream, trio.SocketStream):
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif then == "read":
                with trio.move_on_after(0.3):
                    while data := await stream.receive_some():
                        answer += data
            else:
                await trio.aclose_forcefully(stream)
    return answer


async def end_it(host: Host, app: App, *heads: bytes, then: str = "read") -> None:
    """Serve until one of these requests ends the server."""
    async with host.serve(app) as served:
        for head in heads:
            await attack(served, head, then=then)
        await trio.sleep(5)


BAD_FIELDS = {
    "host": opening(Host=b"\xe9"),
    "host in broken punycode": opening(Host=b"xn--a."),
    "connection": opening(Connection=b"Upgrade, \xe9"),
    "subprotocol": opening(Sec_WebSocket_Protocol=b"\xe9"),
    "extension": opening(Sec_WebSocket_Extensions=b"permessage-deflate; \xe9"),
}
"""What trio-websocket's parser raises something for that trio-websocket does not expect."""

BAD_HEADS = {
    "upgrade": opening(Upgrade=b"\xe9"),
    "key": opening(Sec_WebSocket_Key=b"\xe9"),
    "version": opening(Sec_WebSocket_Version=b"\xe9"),
    "origin": opening(Origin=b"\xe9"),
    "no host": opening().replace(b"host: localhost\r\n", b""),
    "two hosts": opening().replace(b"host: localhost\r\n", b"host: a\r\nhost: b\r\n"),
    "a host that is too long a name": opening(Host=b"a" * 300),
    "a method": opening().replace(b"GET", b"BREW"),
    "http/1.0": opening().replace(b"1.1", b"1.0"),
    "a target": opening().replace(b"GET /", b"GET \xff"),
    "no http": b"\x16\x03\x01\x02\x00\x01\x00" * 20,
    "two requests": opening() + opening(),
    "a body": opening(Content_Length=b"5") + b"hello",
    "nothing": b"",
}


@pytest.mark.parametrize("head", BAD_FIELDS.values(), ids=BAD_FIELDS)
async def test_a_head_with_odd_bytes_in_its_fields_ends_that_connection_only(host: Host, head: bytes) -> None:
    app = echo_app()
    if host.differs(Difference.ENDS_WITH_A_BAD_HEAD):
        with pytest.raises(UnicodeError):
            await end_it(host, app, head)
        return
    async with host.serve(app) as served, served.connect() as neighbour:
        answer = await attack(served, head)
        assert not answer or answer.startswith((b"HTTP/1.1 101", b"HTTP/1.1 4"))
        await neighbour.send("still here")
        assert await neighbour.receive() == "still here"


async def test_a_head_that_is_no_head_ends_that_connection_only(host: Host) -> None:
    answers: dict[str, bytes] = {}

    async def send(served: Served, name: str) -> None:
        answers[name] = await attack(served, BAD_HEADS[name])

    async with host.serve(echo_app()) as served, served.connect() as neighbour:
        async with trio.open_nursery() as nursery:
            for name in BAD_HEADS:
                nursery.start_soon(send, served, name)
        await neighbour.send("still here")
        assert await neighbour.receive() == "still here"
    for name, answer in answers.items():
        assert not answer or answer.startswith((b"HTTP/1.1 101", b"HTTP/1.1 4", b"HTTP/1.1 5")), name


async def test_a_refused_client_that_resets_ends_that_connection_only(host: Host) -> None:
    app = echo_app()
    refused = b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    if host.differs(Difference.ENDS_WITH_A_BAD_HEAD):
        with pytest.raises(trio_websocket.ConnectionClosed):
            await end_it(host, app, *[refused] * 20, then="reset")
        return
    async with host.serve(app) as served, served.connect() as neighbour:
        for _ in range(20):
            await attack(served, refused, then="reset")
        await neighbour.send("still here")
        assert await neighbour.receive() == "still here"


CLOSE = encode_frame(Opcode.CLOSE, b"\x03\xe8", masking_key=ZEROS)
AFTER_THE_OPENING: dict[str, tuple[Any, ...]] = {
    "a large message behind our close": (
        "/close",
        encode_frame(Opcode.BINARY, bytes(2000), masking_key=ZEROS),
        CLOSE,
    ),
    "a ping behind our close": ("/close", encode_frame(Opcode.PING, b"x", masking_key=ZEROS), CLOSE),
    "a ping behind its close": ("/", CLOSE, encode_frame(Opcode.PING, b"x", masking_key=ZEROS)),
    "two closes": ("/", CLOSE, CLOSE),
    "garbage behind our close": ("/close", b"\xff" * 100),
    "garbage": ("/", b"\xff" * 100),
    "no mask": ("/", encode_frame(Opcode.TEXT, b"x")),
    "no utf-8": ("/", encode_frame(Opcode.TEXT, b"\xff", masking_key=ZEROS)),
    "a control frame that is too long": ("/", b"\x89\xfe\x00\x7e\0\0\0\0" + bytes(126)),
    "a close of one byte": ("/", encode_frame(Opcode.CLOSE, b"\x03", masking_key=ZEROS)),
    "a message past the limit": ("/", encode_frame(Opcode.TEXT, b"x" * 1001, masking_key=ZEROS)),
    "a message of 2**62 bytes": ("/", b"\x82\xff" + (1 << 62).to_bytes(8) + bytes(4)),
    "half a frame": ("/", encode_frame(Opcode.TEXT, b"x" * 500, masking_key=ZEROS)[:100]),
}


@pytest.mark.parametrize("then", ["read", "leave", "reset"])
async def test_bytes_that_break_the_protocol_end_that_connection_only(host: Host, then: str) -> None:
    async with host.serve(echo_app(Limits(message_bytes=1000))) as served, served.connect() as neighbour:
        async with trio.open_nursery() as nursery:
            for path, *frames in AFTER_THE_OPENING.values():
                slowly = [opening(path), *frames]
                nursery.start_soon(attack_and, served, slowly, then)
                nursery.start_soon(attack_and, served, [b"".join(slowly)], then)
        await neighbour.send("still here")
        assert await neighbour.receive() == "still here"


async def attack_and(served: Served, parts: list[bytes], then: str) -> None:
    await attack(served, *parts, then=then)


@pytest.mark.parametrize("seed", range(4))
async def test_random_bytes_end_that_connection_only(host: Host, seed: int) -> None:
    rng = random.Random(seed)
    async with host.serve(echo_app(Limits(message_bytes=1000))) as served, served.connect() as neighbour:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                parts = [opening(rng.choice(["/", "/close", "/nowhere"])), *_noise(rng)]
                nursery.start_soon(attack_and, served, parts, rng.choice(["read", "leave", "reset"]))
        await neighbour.send("still here")
        assert await neighbour.receive() == "still here"


def _noise(rng: random.Random) -> list[bytes]:
    parts = []
    for _ in range(rng.randrange(1, 5)):
        if rng.random() < 0.5:
            parts.append(rng.randbytes(rng.randrange(1, 200)))
        else:
            opcode = rng.choice(list(Opcode))
            size = rng.choice([0, 1, 2, 125])
            frame = encode_frame(opcode, rng.randbytes(size), masking_key=ZEROS)
            parts.append(bytes([frame[0] ^ rng.choice([0, 0, 0, 0x80, 0x40, 0x10])]) + frame[1:])
    return parts


async def test_frames_that_do_not_wait_for_the_answer_are_received(host: Host) -> None:
    early = encode_frame(Opcode.TEXT, b"early", masking_key=ZEROS)
    async with host.serve(echo_app()) as served:
        together = await attack(served, opening() + early + CLOSE)
        apart = await attack(served, opening(), early, CLOSE)
    for answer in (together, apart):
        assert answer.startswith(b"HTTP/1.1 101")
        assert answer.endswith(encode_frame(Opcode.TEXT, b"early") + encode_frame(Opcode.CLOSE, b"\x03\xe8"))


async def test_connections_are_counted_before_their_request_comes(host: Host) -> None:
    app = echo_app(Limits(connections=1))
    async with host.serve(app) as served, await served.open_stream() as silent:
        if isinstance(silent, trio.SSLStream):
            await silent.do_handshake()
        await trio.sleep(0.05)
        answer = await attack(served, opening(), CLOSE)
    assert answer.startswith(b"HTTP/1.1 101") is host.differs(Difference.COUNTS_NO_HANDSHAKES)


async def test_open_connections_are_counted(host: Host) -> None:
    async with lending(host, new_app(limits=Limits(connections=1))) as lender, lender.connect():
        assert not (await attack(lender.served, opening())).startswith(b"HTTP/1.1 101")
    if host.name.startswith("native-unix"):
        return  # there are no addresses
    async with lending(host, new_app(limits=Limits(connections_per_address=1))) as lender, lender.connect():
        assert not (await attack(lender.served, opening())).startswith(b"HTTP/1.1 101")


async def test_a_request_that_does_not_come_in_time_is_408(host: Host) -> None:
    app = App(timeouts=Timeouts(handshake=0.1, close=0.3, drain=0.3))
    patience = 0.3 if host.differs(Difference.COUNTS_NO_HANDSHAKES) else 30
    answer = b""
    async with host.serve(app) as served, await served.open_stream() as stream:
        with contextlib.suppress(*STREAM_LOST), trio.move_on_after(patience):
            await stream.send_all(b"GET / HTTP/1.1\r\n")
            while data := await stream.receive_some():
                answer += data
    if host.differs(Difference.COUNTS_NO_HANDSHAKES):
        assert answer == b""
    else:
        assert answer.startswith(b"HTTP/1.1 408")


async def test_a_request_that_is_under_way_when_the_server_stops_is_answered(host: Host) -> None:
    async with host.serve(echo_app()) as served, await served.open_stream() as stream:
        await stream.send_all(opening()[:20])
        await trio.sleep(0.05)
        served.stop()
        await trio.sleep(0.05)
        answer = b""
        with contextlib.suppress(*STREAM_LOST), trio.fail_after(30):
            await stream.send_all(opening()[20:])
            while data := await stream.receive_some():
                answer += data
    assert (answer == b"") is host.differs(Difference.DROPS_HANDSHAKES)


async def test_a_handler_that_never_receives_ends_with_a_client_that_resets_behind_a_full_inbox(
    host: Host,
) -> None:
    app = new_app(limits=Limits(unread_bytes=1000))
    ended = trio.Event()

    @app.websocket("/")
    async def sleep(ws: Connection) -> None:
        with setting(ended):
            await trio.sleep_forever()

    async with host.serve(app) as served:
        async with served.connect() as client:
            for _ in range(30):
                await client.send("y" * 500)
            await client.reset()
        with trio.fail_after(30):
            await ended.wait()


async def test_cancelled_pings_leave_no_task(host: Host) -> None:
    async with lending(host) as lender, lender.connect() as (ws, client):
        client.gate.hold_writes()
        tasks = trio.lowlevel.current_statistics().tasks_living
        for _ in range(20):
            with trio.move_on_after(0.001):
                await ws.ping()
        await until(lambda: trio.lowlevel.current_statistics().tasks_living <= tasks)
        client.gate.release()


async def test_a_head_that_is_hard_to_read_costs_the_others_nothing(host: Host) -> None:
    hard = opening(X=b" " * 15_000 + b"\x0b")
    async with host.serve(echo_app()) as served:
        started = time.process_time()
        await attack(served, hard)
        seconds = time.process_time() - started
    assert (seconds > 0.25) is host.differs(Difference.STANDS_STILL_FOR_A_HEAD)
