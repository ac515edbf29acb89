"""The certificate of a TLS client: on every host whose server ends TLS."""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio
import trio_websocket
import trustme

from wsframework import App, Certificate, Connection, Reject, Request
from wsframework.certificates import read_certificate
from wsframework.hosts.trio_websocket import serve_websocket
from wsframework.server import TransportChoice
from wsframework.server import serve as server_serve
from wsframework.testing import Client, ClientSettings, open_client, serve
from wsframework.testing.memory import memory_pair

AUTHORITY = trustme.CA()
ADA = AUTHORITY.issue_cert("ada@club.example", common_name="Ada", organization_name="Club")


@functools.cache
def server_context(mode: ssl.VerifyMode) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    if mode is not ssl.CERT_NONE:
        AUTHORITY.configure_trust(context)
        context.verify_mode = mode
    return context


@functools.cache
def client_context(certificate: trustme.LeafCert | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


# Hosts

Open = Callable[[], Any]
Host = Callable[[App, ssl.SSLContext], AbstractAsyncContextManager[Open]]


@asynccontextmanager
async def on_port(start: Callable[..., Any]) -> AsyncIterator[Open]:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(start)
        yield functools.partial(trio.open_tcp_stream, "127.0.0.1", server.port)
        nursery.cancel_scope.cancel()


def native(transport: TransportChoice) -> Host:
    @asynccontextmanager
    async def host(app: App, context: ssl.SSLContext) -> AsyncIterator[Open]:
        start = functools.partial(
            server_serve,
            app.decide,
            host="127.0.0.1",
            port=0,
            ssl=context,
            limits=app.limits,
            timeouts=app.timeouts,
            keepalive=app.keepalive,
            transport=transport,
        )
        async with on_port(start) as open_stream:
            yield open_stream

    return host


def behind_trio_websocket(function: Callable[..., Any]) -> Host:
    @asynccontextmanager
    async def host(app: App, context: ssl.SSLContext) -> AsyncIterator[Open]:
        async with on_port(functools.partial(function, app, "127.0.0.1", 0, context)) as open_stream:
            yield open_stream

    return host


@asynccontextmanager
async def in_memory(app: App, context: ssl.SSLContext) -> AsyncIterator[Open]:
    async with serve(app) as server:

        def pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
            ours, theirs = memory_pair()
            return ours, trio.SSLStream(theirs, context, server_side=True, https_compatible=True)

        async def open_stream() -> trio.abc.Stream:
            return server.open_stream(pair)

        yield open_stream


HOSTS: dict[str, Host] = {
    "hub": native("hub"),
    "stream": native("stream"),
    "memory": in_memory,
    "trio-websocket": behind_trio_websocket(serve_websocket),
    "trio-websocket-plain": behind_trio_websocket(trio_websocket.serve_websocket),
}


@pytest.fixture(params=list(HOSTS))
def host(request: pytest.FixtureRequest) -> Host:
    return HOSTS[request.param]


def secured(stream: trio.abc.Stream, certificate: trustme.LeafCert | None) -> trio.SSLStream[trio.abc.Stream]:
    context = client_context(certificate)
    return trio.SSLStream(stream, context, server_hostname="127.0.0.1", https_compatible=True)


@asynccontextmanager
async def connect(open_stream: Open, certificate: trustme.LeafCert | None) -> AsyncIterator[Client]:
    stream = secured(await open_stream(), certificate)
    async with open_client(stream, "127.0.0.1", "/", settings=ClientSettings(deadline=5)) as client:
        yield client


def club(seen: list[Certificate | None]) -> App:
    app = App()

    async def member(request: Request) -> str:
        seen.append(request.peer_certificate)
        if request.peer_certificate is None:
            raise Reject(401, "show a certificate")
        return request.peer_certificate.subject["commonName"]

    @app.websocket("/", given={"name": member})
    async def talk(ws: Connection, name: str) -> None:
        await ws.send(f"Hello, {name}.")
        async for _ in ws:
            seen.append(ws.request.peer_certificate)
            await ws.send("seen")
        # Who has read it once may read it for as long as the request is there.
        seen.append(ws.request.peer_certificate)

    return app


DER = ssl.PEM_cert_to_DER_cert(ADA.cert_chain_pems[0].bytes().decode())


@pytest.mark.parametrize("mode", [ssl.CERT_REQUIRED, ssl.CERT_OPTIONAL])
async def test_a_guard_and_the_handler_see_the_clients_certificate(host: Host, mode: ssl.VerifyMode) -> None:
    seen: list[Certificate | None] = []
    async with host(club(seen), server_context(mode)) as open_stream:
        async with connect(open_stream, ADA) as client:
            assert await client.receive() == "Hello, Ada."
            await client.send("look")
            assert await client.receive() == "seen"
        with trio.fail_after(30):
            while len(seen) < 3:  # noqa: ASYNC110
                await trio.sleep(0.01)
    first = seen[0]
    assert first is not None
    assert all(each is first for each in seen)
    assert first.der == DER
    assert (first.subject["commonName"], first.subject["organizationName"]) == ("Ada", "Club")
    assert first.fields["subjectAltName"] == (("email", "ada@club.example"),)


async def test_a_client_without_a_certificate_is_told_apart_where_one_is_optional(host: Host) -> None:
    seen: list[Certificate | None] = []
    async with host(club(seen), server_context(ssl.CERT_OPTIONAL)) as open_stream:
        with pytest.raises(trio_websocket.ConnectionRejected) as caught:
            async with connect(open_stream, None):
                pass
        assert caught.value.status_code == 401
        async with connect(open_stream, ADA) as client:
            assert await client.receive() == "Hello, Ada."
    assert seen[0] is None


async def test_where_no_certificate_is_asked_for_there_is_none(host: Host) -> None:
    seen: list[Certificate | None] = []
    async with host(club(seen), server_context(ssl.CERT_NONE)) as open_stream:
        with pytest.raises(trio_websocket.ConnectionRejected):
            async with connect(open_stream, ADA):
                pass
    assert seen == [None]


async def ask(open_stream: Open, certificate: trustme.LeafCert | None) -> bytes:
    """Ask for a page, and return all that is answered."""
    async with secured(await open_stream(), certificate) as stream:
        with trio.fail_after(30):
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            return b"".join([bytes(data) async for data in stream])


EVE = trustme.CA().issue_cert("eve@evil.example", common_name="Eve")


@pytest.mark.parametrize("stranger", [None, EVE], ids=["none", "foreign"])
@pytest.mark.parametrize("name", [name for name in HOSTS if name != "trio-websocket-plain"])
async def test_a_client_without_the_certificate_that_is_required_gets_no_answer(
    name: str, stranger: trustme.LeafCert | None
) -> None:
    seen: list[Certificate | None] = []
    async with HOSTS[name](club(seen), server_context(ssl.CERT_REQUIRED)) as open_stream:
        # With TLS 1.3 the client's own handshake succeeds; it reads an alert, or the end.
        with contextlib.suppress(trio.BrokenResourceError):
            assert await ask(open_stream, stranger) == b""
        async with connect(open_stream, ADA) as client:
            assert await client.receive() == "Hello, Ada."
    assert {None if each is None else each.der for each in seen} == {DER}


async def test_a_page_sees_the_certificate_too() -> None:
    app = App()

    @app.http("/")
    async def page(request: Request) -> str:
        assert request.peer_certificate is not None
        return request.peer_certificate.subject["commonName"]

    async with native("hub")(app, server_context(ssl.CERT_REQUIRED)) as open_stream:
        assert (await ask(open_stream, ADA)).endswith(b"\r\n\r\nAda")


async def test_the_first_look_after_the_end_says_that_it_is_too_late() -> None:
    app = App()
    errors: list[str] = []

    @app.websocket("/")
    async def late(ws: Connection) -> None:
        async for _ in ws:
            pass
        await ws.aclose()
        try:
            assert ws.request.peer_certificate
        except RuntimeError as error:
            errors.append(str(error))

    async with native("hub")(app, server_context(ssl.CERT_REQUIRED)) as open_stream:
        async with connect(open_stream, ADA):
            pass
        with trio.fail_after(30):
            while not errors:  # noqa: ASYNC110
                await trio.sleep(0.01)
    assert "read request.peer_certificate while it is open, in a guard for example" in errors[0]


# Without a network


class FakeEnd:
    def __init__(self, der: bytes | None, version: str | None = "TLSv1.3") -> None:
        self._der = der
        self._version = version
        self.calls = 0

    def version(self) -> str | None:
        return self._version

    def getpeercert(self, binary_form: bool, /) -> dict[str, Any] | bytes | None:
        self.calls += 1
        return self._der if binary_form or self._der is None else {"subject": ((("commonName", "Ada"),),)}


@pytest.mark.parametrize("der", [b"ada", None])
def test_the_certificate_is_read_once_and_only_when_it_is_asked_for(der: bytes | None) -> None:
    end = FakeEnd(der)
    request = Request("/", peer_certificate=end)
    assert end.calls == 0
    first = request.peer_certificate
    assert (first is None) is (der is None)
    assert end.calls == 2
    assert request.peer_certificate is first
    assert end.calls == 2


def test_a_request_of_a_test_is_made_with_the_certificate_itself() -> None:
    certificate = Certificate(b"ada", {"subject": ((("commonName", "Ada"),), (("commonName", "Lovelace"),))})
    assert Request("/", peer_certificate=certificate).peer_certificate is certificate
    assert Request("/").peer_certificate is None
    assert certificate.subject == {"commonName": "Lovelace"}
    assert Certificate(b"ada").subject == {}


def test_certificates_are_compared_by_their_bytes() -> None:
    assert Certificate(b"ada", {"a": 1}) == Certificate(b"ada")
    assert {Certificate(b"ada"): 1}[Certificate(b"ada", {"a": 1})] == 1
    assert "ada" not in repr(Certificate(b"ada"))


def test_the_end_of_a_connection_that_is_over_is_not_asked() -> None:
    end = FakeEnd(b"ada", None)
    with pytest.raises(RuntimeError, match="its certificate is gone"):
        read_certificate(end)
    assert end.calls == 0
