"""The same promises wherever a server listens: IPv6, unix sockets, TLS, several addresses at once."""

from __future__ import annotations

import logging
import os
import socket as stdlib_socket
import ssl
from pathlib import Path

import pytest
import trio
import trustme

from tests.promises.rawclient import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Client,
    End,
    close_frame,
    frame,
    open_socket,
    parse_answer,
    upgrade_request,
)
from tests.promises.stage import PATIENT, QUICK, Journal, Stage, new_app, tasks_alive, tasks_at_rest
from tests.waiting import until
from wsframework import App, Connection, Limits, ListenError, Request, Timeouts


def app_that_tells_where(timeouts: Timeouts = PATIENT) -> App:
    app = new_app(limits=Limits(message_bytes=16 * 1024 * 1024), timeouts=timeouts)

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await ws.send(f"{ws.request.remote} -> {ws.request.local}, secure: {ws.request.secure}")
        async for message in ws:
            await ws.send(message)

    @app.websocket("/sleeps")
    async def sleeps(ws: Connection) -> None:
        await trio.sleep_forever()

    @app.websocket("/leaves")
    async def leaves(ws: Connection) -> None:
        await ws.aclose(4000, "now")

    @app.http("/")
    async def page(request: Request) -> str:
        return "a page"

    return app


async def test_ipv6_is_served_and_reported_as_such(stage: Stage) -> None:
    server = await stage.serve(app_that_tells_where(), "::1")
    client = await stage.connect(server)
    port = client.socket.getsockname()[1]
    assert await client.next_text() == f"[::1]:{port} -> [::1]:{server.port}, secure: False"
    assert server.urls == (f"ws://[::1]:{server.port}",)
    await client.close_well()


async def test_every_interface_means_ipv4_and_ipv6_on_one_port(stage: Stage) -> None:
    server = await stage.serve(app_that_tells_where(), None)
    assert len({address.port for address in server.addresses}) == 1
    for host, local in (("127.0.0.1", "127.0.0.1"), ("127.0.0.2", "127.0.0.2"), ("::1", "[::1]")):
        client = Client(await open_socket(host, server.port))
        await client.upgrade()
        # Where the client has come to, and not where the listener is bound.
        assert f"-> {local}:{server.port}," in await client.next_text()
        await client.close_well()


async def test_a_port_in_use_is_one_clear_error(stage: Stage) -> None:
    server = await stage.serve(app_that_tells_where())
    with pytest.raises(ListenError, match=f"127.0.0.1:{server.port}.* in use"):
        await new_app().serve("127.0.0.1", server.port)


# Unix sockets


async def test_a_unix_socket_is_served_and_its_file_removed(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = await stage.serve(app_that_tells_where(), unix_path=str(path))
    client = await stage.connect(server)
    assert (await client.next_text()).endswith(f"-> {path}, secure: False")
    await client.send_text("hello")
    assert await client.next_text() == "hello"
    await client.close_well()
    answer = await stage.ask(server, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (answer.status, answer.body) == (200, b"a page")
    assert server.urls == ()
    stage.cancel(server)
    await stage.wait_ended(server)
    assert not path.exists()


async def test_the_file_of_a_dead_server_is_replaced(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with stdlib_socket.socket(stdlib_socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    server = await stage.serve(app_that_tells_where(), unix_path=str(path))
    await (await stage.connect(server)).next_text()


async def test_the_file_of_a_living_server_is_not_touched(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = await stage.serve(app_that_tells_where(), unix_path=str(path))
    with pytest.raises(ListenError, match="another server listens there"):
        await new_app().serve(unix_path=str(path))
    await (await stage.connect(server)).next_text()


async def test_a_file_that_is_no_socket_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ListenError, match="not a socket"):
        await new_app().serve(unix_path=str(path))
    assert path.read_text() == "data"


async def test_another_programs_datagram_socket_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with stdlib_socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(ListenError, match="another program"):
            await new_app().serve(unix_path=str(path))
        with stdlib_socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_DGRAM) as sender:
            sender.sendto(b"still here?", str(path))
        assert other.recv(100) == b"still here?"


async def test_a_unix_client_that_vanishes_is_missed(stage: Stage, tmp_path: Path) -> None:
    server = await stage.serve(app_that_tells_where(), unix_path=str(tmp_path / "socket"))
    client = await stage.connect(server, "/sleeps")
    client.vanish()
    await until(lambda: not server.statistics().connections)


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_tls_carries_messages_of_all_sizes_pings_and_a_proper_end(
    stage: Stage, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    server = await stage.serve(app_that_tells_where(), ssl=server_tls)
    assert server.urls == (f"wss://127.0.0.1:{server.port}",)
    client = await stage.connect(server, ssl=client_tls)
    assert (await client.next_text()).endswith("secure: True")
    for size in (0, 1, 125, 16 * 1024, 100_000, 3_000_000):
        message = bytes(range(256)) * (size // 256) + b"!" * (size % 256)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, frame(BINARY, message))
            assert (await client.next_frame()).payload == message
    await client.send(frame(PING, "alive?"))
    found = await client.next_frame()
    assert (found.opcode, found.payload) == (PONG, b"alive?")
    await client.send(close_frame(4000))
    assert [found.close_code for found in await client.read_to_end()] == [4000]
    assert client.end is End.FIN


async def test_tls_many_small_messages_in_few_records_are_all_seen(
    stage: Stage, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    # What OpenSSL has decrypted is not what the kernel says is readable.
    server = await stage.serve(app_that_tells_where(), ssl=server_tls)
    client = await stage.connect(server, ssl=client_tls)
    await client.next_frame()
    burst = b"".join(frame(TEXT, str(number)) for number in range(20_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, burst)
        for number in range(20_000):
            assert await client.next_text() == str(number)
    await client.send(close_frame())
    await client.read_to_end()


async def test_tls_a_held_back_client_is_let_go_on_though_nothing_new_arrives(
    stage: Stage, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    app = new_app(limits=Limits(unread_bytes=2000))
    received: list[str | bytes] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await ws.send("ready")
        async for message in ws:
            received.append(message)
            await trio.sleep(0.0001)

    server = await stage.serve(app, ssl=server_tls)
    client = await stage.connect(server, ssl=client_tls)
    await client.next_frame()
    messages = [f"{number} " + "x" * 500 for number in range(300)]
    await client.send(*(frame(TEXT, message) for message in messages))
    await until(lambda: len(received) == 300)
    assert received == messages


async def test_tls_ends_with_both_sides_messages_read_and_no_reset(
    stage: Stage, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    server = await stage.serve(app_that_tells_where(QUICK), ssl=server_tls)
    client = await stage.connect(server, "/leaves", ssl=client_tls)
    await client.send(frame(TEXT, "crossing your close" * 1000))
    close = await client.next_frame()
    assert (close.opcode, close.close_code, close.close_reason) == (CLOSE, 4000, "now")
    await client.send(close_frame(4000))
    assert await client.read_to_end() == []
    assert client.end is End.FIN
    await until(lambda: not server.statistics().connections)


async def test_plain_http_over_tls_is_answered_and_ended(
    stage: Stage, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    server = await stage.serve(app_that_tells_where(QUICK), ssl=server_tls)
    client = await stage.dial(server, ssl=client_tls)
    await client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    start = trio.current_time()
    answer = parse_answer(await client.read_all(), client.end)
    assert (answer.status, answer.body, answer.end) == (200, b"a page", End.FIN)
    assert trio.current_time() - start < 25
    await until(lambda: not server.statistics().connections)


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        upgrade_request(),
        b"\0" * 1000,
        b"\x16\x03\x01\xff\xff" + b"x" * 2000,
    ],
    ids=["http", "websocket", "zeros", "no hello"],
)
async def test_plain_bytes_at_a_tls_port_end_the_connection_and_nothing_else(
    stage: Stage,
    journal: Journal,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
    said: bytes,
) -> None:
    server = await stage.serve(app_that_tells_where(), ssl=server_tls)
    client = await stage.dial(server)
    await client.send(said)
    data = await client.read_all()
    assert not data.startswith(b"HTTP")
    await until(lambda: not server.statistics().connections)
    assert journal.events(least=logging.INFO) == ["server.listening"]
    await (await stage.connect(server, ssl=client_tls)).next_frame()


async def test_a_tls_handshake_that_fails_ends_the_connection_and_nothing_else(
    stage: Stage, journal: Journal, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    server = await stage.serve(app_that_tells_where(QUICK), ssl=server_tls)
    distrustful = ssl.create_default_context()  # it does not know our authority
    client = await stage.dial(server, ssl=distrustful)
    with pytest.raises(trio.BrokenResourceError):
        await client.send(b"GET")
    await until(lambda: not server.statistics().connections)
    assert journal.events(least=logging.INFO) == ["server.listening"]
    await (await stage.connect(server, ssl=client_tls)).next_frame()


async def test_a_tls_client_that_says_nothing_is_cut_at_the_handshake_deadline(
    stage: Stage, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    server = await stage.serve(app_that_tells_where(QUICK), ssl=server_tls)
    silent = await stage.dial(server)
    half = await stage.dial(server)
    await half.send(b"\x16\x03\x01\x02\x00\x01")  # the start of a ClientHello
    shaken = await stage.dial(server, ssl=client_tls)
    assert isinstance(shaken.stream, trio.SSLStream)
    await shaken.stream.do_handshake()  # TLS is up, and then no request
    await until(lambda: server.statistics().connections == 3)
    await until(lambda: not server.statistics().connections)
    for client in (silent, half):
        assert await client.read_all() == b""


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_tls_clients_that_vanish_at_any_stage_leave_nothing_behind(
    stage: Stage,
    journal: Journal,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
    reset: bool,
) -> None:
    server = await stage.serve(app_that_tells_where(), ssl=server_tls)
    before = await tasks_at_rest()
    early = await stage.dial(server)
    half = await stage.dial(server)
    await half.send(b"\x16\x03\x01\x02\x00\x01")
    shaken = await stage.dial(server, ssl=client_tls)
    assert isinstance(shaken.stream, trio.SSLStream)
    await shaken.stream.do_handshake()
    opened = await stage.connect(server, ssl=client_tls)
    sleeping = await stage.connect(server, "/sleeps", ssl=client_tls)
    await sleeping.send(*(frame(TEXT, "unread") for _ in range(100)))
    await until(lambda: server.statistics().connections == 5)
    await trio.sleep(0.02)
    for client in (early, half, shaken, opened, sleeping):
        # No close_notify: the TCP connection just ends.
        (client.reset if reset else client.vanish)()
    await until(lambda: tasks_alive() == before)
    assert server.statistics().connections == 0
    assert journal.events(least=logging.WARNING) == []


async def test_tls_over_a_unix_socket_works_too(
    stage: Stage, tmp_path: Path, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    server = await stage.serve(
        app_that_tells_where(), ssl=server_tls, unix_path=os.fspath(tmp_path / "socket")
    )
    client = await stage.connect(server, ssl=client_tls)
    assert (await client.next_text()).endswith("secure: True")


async def test_a_cancelled_tls_server_says_1001(
    stage: Stage, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    server = await stage.serve(app_that_tells_where(), ssl=server_tls)
    client = await stage.connect(server, "/sleeps", ssl=client_tls)
    stage.cancel(server)
    assert (await client.next_frame()).close_code == 1001
    await client.send(close_frame(1001))
    assert await client.read_to_end() == []
    client.vanish()
    await stage.wait_ended(server)
