"""Connections that begin with a header of the PROXY protocol, on both transports, with TLS and without."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import attrs
import pytest
import trio

from tests.server.serving import QUICK, serving
from tests.test_proxy_protocol import TLS, block, ipv4
from tests.waiting import until
from wsframework import App, Connection, Limits, Observer, Request, Server
from wsframework.errors import ConfigurationError
from wsframework.request import Address

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]

TEXT = b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n"
BLOCK = block(ipv4("203.0.113.9", 56324))
LOCAL = block(command=0x20, family=0)
UNKNOWN = b"PROXY UNKNOWN\r\n"
REQUEST = b"GET /page HTTP/1.1\r\nHost: localhost\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
FORGED = b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n"


class Accepts(Observer):
    def __init__(self) -> None:
        self.accepted: list[Address] = []
        self.refused: list[Address] = []

    def connection_accepted(self, remote: Address, local: Address, tls: str | None) -> None:
        self.accepted.append(remote)

    def connection_refused(self, remote: Address) -> None:
        self.refused.append(remote)


@attrs.frozen
class Port:
    """A server behind proxies, and how to reach it."""

    server: Server
    client_tls: ssl.SSLContext | None
    observer: Accepts

    @asynccontextmanager
    async def connect(self, preface: bytes, pieces: int = 0) -> AsyncIterator[trio.abc.Stream]:
        """Connect as a proxy does: a header first, and then what its client sends."""
        tcp = await trio.open_tcp_stream("127.0.0.1", self.server.port)
        async with tcp:
            step = pieces or len(preface) or 1
            for place in range(0, len(preface), step):
                await tcp.send_all(preface[place : place + step])
                await trio.sleep(0.001 if pieces else 0)
            if self.client_tls is None:
                yield tcp
            else:
                yield trio.SSLStream(tcp, self.client_tls, server_hostname="localhost", https_compatible=True)

    async def ask(self, preface: bytes, fields: bytes = b"", pieces: int = 0) -> str:
        """Return the answer's body, its status if it has another one than 200, or nothing."""
        answer = b""
        try:
            async with self.connect(preface, pieces) as stream:
                await stream.send_all(REQUEST + fields + b"\r\n")
                while data := await stream.receive_some():
                    answer += data
        except trio.BrokenResourceError:
            pass
        head, _, body = answer.decode().partition("\r\n\r\n")
        return body if head.startswith("HTTP/1.1 200 ") else "".join(head.split()[1:2])


@pytest.fixture(params=["hub", "stream"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["plain", "tls"])
def secure(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "tls")


def proxied_app(
    limits: Limits | None = None,
    *,
    trusted: tuple[str, ...] = ("127.0.0.1", "10.0.0.0/8"),
    handshake: float = 5.0,
) -> App:
    app = App(limits=limits, timeouts=attrs.evolve(QUICK, handshake=handshake), trusted_proxies=trusted)

    @app.http("/page")
    async def page(request: Request) -> str:
        remote = request.remote
        return f"{'a proxy' if remote.host == '127.0.0.1' else remote} {request.secure}"

    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    return app


@asynccontextmanager
async def port(
    contexts: Contexts, transport: str, secure: bool, app: App | None = None
) -> AsyncIterator[Port]:
    app = app or proxied_app()
    observer = app.observe(Accepts())
    choice: Literal["hub", "stream"] = "hub" if transport == "hub" else "stream"
    tls = contexts[0] if secure else None
    async with serving(app, transport=choice, proxy_protocol=True, ssl=tls) as server:
        yield Port(server, contexts[1] if secure else None, observer)
        await until(lambda: server.statistics().connections == 0)


@pytest.mark.parametrize("pieces", [0, 1, 5])
@pytest.mark.parametrize("header", [TEXT, BLOCK], ids=["v1", "v2"])
async def test_the_client_is_the_one_that_the_header_names(
    contexts: Contexts, transport: str, secure: bool, header: bytes, pieces: int
) -> None:
    async with port(contexts, transport, secure) as front:
        assert await front.ask(header, pieces=pieces) == f"203.0.113.9:56324 {secure}"
        assert front.observer.accepted == [Address("203.0.113.9", 56324)]


async def test_header_and_request_may_come_together(contexts: Contexts, transport: str) -> None:
    async with port(contexts, transport, False) as front:
        for header in (TEXT, BLOCK):
            assert (
                await front.ask(header + REQUEST + b"Connection: close\r\n\r\n") == "203.0.113.9:56324 False"
            )


async def test_tls_that_the_proxy_has_ended_counts(contexts: Contexts, transport: str) -> None:
    async with port(contexts, transport, False) as front:
        assert await front.ask(block(ipv4("203.0.113.9", 7), TLS)) == "203.0.113.9:7 True"


@pytest.mark.parametrize(
    ("header", "answer"),
    [
        # The client's own fields are nothing that a trusted proxy says.
        (TEXT, "203.0.113.9:56324 plain"),
        (BLOCK, "203.0.113.9:56324 plain"),
        (UNKNOWN, "unknown plain"),
        (block(family=0), "unknown plain"),
        (block(bytes(216), family=0x31), "unknown plain"),
        # Another proxy, behind one that passes on bytes.
        (b"PROXY TCP4 10.0.0.7 192.0.2.1 5 443\r\n", "6.6.6.6 https"),
        (block(ipv4("10.0.0.7", 5)), "6.6.6.6 https"),
        # The proxy itself, or a client of HAProxy on a unix socket.
        (LOCAL, "a proxy plain"),
        (block(ipv4("10.0.0.7", 5), TLS, command=0x20), "a proxy plain"),
    ],
)
@pytest.mark.parametrize("unix_too", [False, True])
async def test_fields_are_read_of_a_trusted_proxy_only(
    contexts: Contexts, transport: str, secure: bool, header: bytes, answer: str, unix_too: bool
) -> None:
    trusted = ("127.0.0.1", "10.0.0.0/8", *(["unix"] if unix_too else []))
    async with port(contexts, transport, secure, proxied_app(trusted=trusted)) as front:
        expected = answer.replace("https", "True").replace("plain", str(secure))
        assert await front.ask(header, FORGED) == expected


@pytest.mark.parametrize("forged", [TEXT, BLOCK, UNKNOWN, LOCAL])
async def test_a_second_header_is_the_clients_own_and_no_request(
    contexts: Contexts, transport: str, forged: bytes
) -> None:
    async with port(contexts, transport, False) as front:
        assert await front.ask(b"PROXY TCP4 198.51.100.1 192.0.2.1 5 443\r\n" + forged) == "400"
        assert front.observer.accepted == [Address("198.51.100.1", 5)]


async def test_the_proxys_own_connection_is_its_own(contexts: Contexts, transport: str, secure: bool) -> None:
    async with port(contexts, transport, secure) as front:
        assert await front.ask(LOCAL) == f"a proxy {secure}"


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"PROXY TCP4 x\r\n",
        b"PROXY " + b"x" * 200,
        block(ipv4("203.0.113.9", 7), command=0x2F),
        block(length=60_000),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["missing", "line", "long-line", "command", "long-block", "tls-first"],
)
async def test_a_connection_without_a_right_header_is_closed_without_an_answer(
    contexts: Contexts, transport: str, header: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with port(contexts, transport, False) as front:
        for _ in range(3):
            assert await front.ask(header) == ""
        assert front.observer.accepted == []
        assert await front.ask(TEXT) == "203.0.113.9:56324 False"
    (entry,) = [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert entry.__dict__["event"] == "proxy.refused"


async def test_a_peer_that_is_no_trusted_proxy_is_refused(
    contexts: Contexts, transport: str, secure: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with port(contexts, transport, secure, proxied_app(trusted=("10.0.0.0/8", "unix"))) as front:
        for _ in range(3):
            assert await front.ask(TEXT) == ""
        statistics = front.server.statistics()
        assert (statistics.connections, statistics.accepted, statistics.refused) == (0, 3, 3)
    (entry,) = [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert entry.__dict__["event"] == "proxy.refused"
    assert "no" in entry.getMessage()
    assert "127.0.0.1" in entry.getMessage()


@pytest.mark.parametrize("sent", [b"", b"P", TEXT[:30], BLOCK[:14], BLOCK[:20], TEXT, BLOCK])
@pytest.mark.parametrize("leaves", [False, True])
async def test_a_client_that_goes_no_further_leaves_nothing_behind(
    contexts: Contexts,
    transport: str,
    secure: bool,
    sent: bytes,
    leaves: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # The time for the handshake bounds the header too.
    async with port(contexts, transport, secure, proxied_app(handshake=0.3)) as front:
        tcp = await trio.open_tcp_stream("127.0.0.1", front.server.port)
        async with tcp:
            if sent:
                await tcp.send_all(sent)
            if leaves:
                await tcp.send_eof()
            assert await tcp.receive_some() == b""
        await until(lambda: front.server.statistics().connections == 0)
    assert [entry for entry in caplog.records if entry.levelno >= logging.WARNING] == []


async def test_a_server_that_stops_does_not_wait_for_a_header(contexts: Contexts, transport: str) -> None:
    async with (
        port(contexts, transport, False) as front,
        front.connect(TEXT[:20]) as half,
        front.connect(b"") as silent,
    ):
        await until(lambda: front.server.statistics().connections == 2)
        front.server.stop()
        assert await half.receive_some() == b""
        assert await silent.receive_some() == b""


async def test_clients_are_counted_and_not_the_proxy(
    contexts: Contexts, transport: str, secure: bool
) -> None:
    app = proxied_app(Limits(connections_per_address=1))
    async with port(contexts, transport, secure, app) as front:
        async with front.connect(TEXT) as first:
            await first.send_all(UPGRADE)
            assert b" 101 " in await first.receive_some()
            # Over TLS an answer would cost a handshake.
            for header in (TEXT, BLOCK):
                assert await front.ask(header) == ("" if secure else "503")
            assert front.observer.refused == [Address("203.0.113.9", 56324)] * 2
            assert await front.ask(LOCAL) == f"a proxy {secure}"
            assert await front.ask(UNKNOWN) == f"unknown {secure}"
            assert await front.ask(block(ipv4("198.51.100.1", 1))) == f"198.51.100.1:1 {secure}"
        await until(lambda: front.server.statistics().connections == 0)
        for _ in range(2):
            assert await front.ask(TEXT) == f"203.0.113.9:56324 {secure}"
            await until(lambda: front.server.statistics().connections == 0)


async def test_a_server_that_asks_for_headers_needs_proxies_to_trust() -> None:
    with pytest.raises(ConfigurationError, match="--trusted-proxy"):
        await App().serve("127.0.0.1", 0, proxy_protocol=True)
