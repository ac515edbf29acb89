"""Behind a proxy: the client that it names is the client, if the proxy is trusted."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import pytest
import trio
import trio_websocket

from tests.contract.differences import Difference
from tests.contract.hosts import Host, Served, new_app
from wsframework import App, Connection, Limits, Observer, Request

TRUSTED = ("127.0.0.1", "unix")
"""Whoever connects in these tests."""

Fields = Iterable[tuple[str, str]]


def whoami_app(*, trusted: Iterable[str] = TRUSTED, limits: Limits | None = None) -> App:
    app = new_app(limits=limits, trusted_proxies=trusted)

    @app.websocket("/")
    async def whoami(ws: Connection) -> None:
        await ws.send(f"{ws.request.remote} {ws.request.secure}")
        async for message in ws:
            await ws.send(message)

    @app.http("/page")
    async def page(request: Request) -> str:
        return str(request.remote)

    return app


def named(address: str, *more: tuple[str, str]) -> Fields:
    return [("X-Forwarded-For", address), *more]


async def status_of(served: Served, fields: Fields, origin: str | None = None) -> int:
    """Return how a client fares that leaves again at once."""
    try:
        async with served.connect(headers=fields, origin=origin):
            return 101
    except trio_websocket.ConnectionRejected as rejected:
        return rejected.status_code


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_client_and_the_scheme_are_what_the_proxy_says(host: Host, scheme: str) -> None:
    fields = named("6.6.6.6, 203.0.113.9:7, 127.0.0.1", ("X-Forwarded-Proto", scheme))
    async with host.serve(whoami_app()) as served, served.connect(headers=fields) as client:
        assert await client.receive() == f"203.0.113.9:7 {scheme == 'https'}"


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8", "::1")])
async def test_what_a_stranger_says_of_itself_is_ignored(host: Host, trusted: tuple[str, ...]) -> None:
    app = whoami_app(trusted=trusted, limits=Limits(connections_per_address=1000))
    fields = named(
        "203.0.113.9",
        ("X-Forwarded-Proto", "gopher"),
        ("X-Forwarded-Host", "evil.example"),
        ("Forwarded", "for=203.0.113.9;host=evil.example"),
    )
    async with host.serve(app) as served:
        async with served.connect() as client:
            honest = str(await client.receive()).rpartition(":")
        async with served.connect(headers=fields) as client:
            assert str(await client.receive()).rpartition(":")[0] == honest[0]


async def test_a_field_that_was_not_named_is_not_read(host: Host) -> None:
    app = whoami_app()
    fields = [("Forwarded", "for=203.0.113.9;proto=https"), ("X-Forwarded-Host", "evil.example")]
    async with host.serve(app) as served, served.connect(headers=fields) as client:
        assert "203.0.113.9" not in str(await client.receive())


async def test_forwarded_and_the_forwarded_host_count_when_named(host: Host) -> None:
    app = whoami_app()
    app.proxies = app.proxies.extended((), ["forwarded"])
    fields = [("Forwarded", "for=6.6.6.6"), ("Forwarded", 'for="[2001:db8::1]:7";proto=https;host=a.example')]
    async with (
        host.serve(app) as served,
        served.connect(headers=fields, origin="https://a.example") as client,
    ):
        assert await client.receive() == "[2001:db8::1]:7 True"
    app = whoami_app()
    app.proxies = app.proxies.extended((), ["x-forwarded-host"])
    async with host.serve(app) as served:
        inside = [("X-Forwarded-Host", "a.example")]
        assert await status_of(served, inside, "https://a.example") == 101
        assert await status_of(served, inside, f"https://{served.authority}") == 403
        assert await status_of(served, [("X-Forwarded-Host", "a@b")]) == 400


async def test_an_origin_is_compared_with_the_scheme_that_the_client_used(host: Host) -> None:
    async with host.serve(whoami_app()) as served:
        secure = named("203.0.113.9", ("X-Forwarded-Proto", "https"))
        assert await status_of(served, secure, f"https://{served.authority}") == 101
        # A page that was changed on its way, of a site that has TLS.
        assert await status_of(served, secure, f"http://{served.authority}") == 403
        plain = named("203.0.113.9", ("X-Forwarded-Proto", "http"))
        assert await status_of(served, plain, f"http://{served.authority}") == 101


@pytest.mark.parametrize("origin", [None, "https://evil.example"])
async def test_connections_are_counted_for_the_client_and_not_for_the_proxy(
    host: Host, origin: str | None
) -> None:
    app = whoami_app(limits=Limits(connections_per_address=1, ipv6_prefix_bits=64))
    async with host.serve(app) as served:
        # As long as one is there, others of the same network are too many; refused ones leave no trace.
        async with served.connect(headers=named("203.0.113.9")) as client:
            for _ in range(3):
                assert await status_of(served, named("203.0.113.9:5")) == 503
                assert await status_of(served, named("198.51.100.1"), origin) == (403 if origin else 101)
                await gone(served, "198.51.100.1")
            async with served.connect(headers=named("2001:db8::1")):
                assert await status_of(served, named("[2001:db8::2]:5")) == 503
                # The proxy's own, such as its health checks.
                async with served.connect(), served.connect():
                    pass
            await client.send("still here")
            await client.receive()
            assert await client.receive() == "still here"
        await gone(served, "203.0.113.9")
        if not host.differs(Difference.SPEAKS_NO_HTTP):
            for _ in range(3):
                assert (await page(served, "203.0.113.9")).endswith(b"203.0.113.9")
                await gone(served, "203.0.113.9")


async def gone(served: Served, address: str) -> None:
    """Wait until a client's connections are over, as its own next one shows."""
    for _ in range(500):
        if await status_of(served, named(address)) == 101:
            return
        await trio.sleep(0.01)
    raise AssertionError(f"{address} still counts")


async def page(served: Served, address: str) -> bytes:
    return await served.get("/page", f"X-Forwarded-For: {address}")


async def test_the_log_and_observers_are_told_of_the_client(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    class Watch(Observer):
        def __init__(self) -> None:
            self.refused: list[str] = []

        def connection_refused(self, remote: object) -> None:
            self.refused.append(str(remote))

    app = whoami_app(limits=Limits(connections_per_address=1))
    watch = app.observe(Watch())
    with caplog.at_level(logging.DEBUG, "wsframework"):
        async with host.serve(app) as served, served.connect(headers=named("203.0.113.9")) as client:
            await client.receive()
            assert await status_of(served, named("203.0.113.9")) == 503
    fields = {
        entry.__dict__["event"]: entry.__dict__["fields"]
        for entry in caplog.records
        if "fields" in entry.__dict__
    }
    for event in ("handshake.received", "connection.opened", "connection.closed", "connection.refused"):
        assert str(fields[event]["remote"]) == "203.0.113.9"
    assert watch.refused == ["203.0.113.9"]
    assert str(fields["request.forwarded"]["proxy"]) != "203.0.113.9"
