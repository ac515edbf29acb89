"""Proxies that pass on bytes announce each client with the PROXY protocol: HAProxy in both versions, nginx in
version 1."""

from __future__ import annotations

import logging
import ssl
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.proxies.fronts import CLIENT, Upstream, whoami_app
from tests.proxies.running import (
    answer_to,
    connect_through,
    free_port,
    haproxy,
    issue_certificate,
    nginx,
)
from wsframework import App, Limits, Request

CHECKS = "check check-send-proxy inter 50ms"


def haproxy_text(port: int, upstream: Upstream, tls: str, how: str) -> str:
    return f"""
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
listen chat
    bind 127.0.0.1:{port} {tls and f"ssl crt {tls}/haproxy.pem"}
    server app {upstream.haproxy} {how} {CHECKS}
"""


def nginx_text(port: int, upstream: Upstream, tls: str) -> str:
    certificate = f"ssl_certificate {tls}/fullchain.pem; ssl_certificate_key {tls}/privkey.pem;"
    return (
        f"server {{ listen 127.0.0.1:{port} {tls and 'ssl'}; {tls and certificate}"
        f"proxy_pass {upstream.nginx}; proxy_protocol on; }}\n"
    )


def announcing(
    how: str, folder: Path, port: int, upstream: Upstream, tls: str
) -> AbstractAsyncContextManager[None]:
    """Run a proxy.

    Args:
        how: "nginx", or what HAProxy is told to send.
        folder: where its files are.
        port: where it listens.
        upstream: where the server is.
        tls: the folder with its certificate, or "" for no TLS.
    """
    if how == "nginx":
        return nginx(folder, port, nginx_text(port, upstream, tls), stream=True)
    return haproxy(folder, port, haproxy_text(port, upstream, tls, how))


@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2 proxy-v2-options crc32c", "nginx"])
@pytest.mark.parametrize("over", ["tcp", "unix"])
@pytest.mark.parametrize("tls", ["none", "at the server", "at the proxy"])
async def test_the_client_arrives_through_bytes(
    tmp_path: Path,
    nursery: trio.Nursery,
    how: str,
    over: str,
    tls: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    authority = issue_certificate(tmp_path)
    app = whoami_app(Limits(connections_per_address=1))
    context = None
    if tls == "at the server":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tmp_path / "haproxy.pem")
    serve = partial(app.serve, ssl=context, proxy_protocol=True)
    if over == "unix":
        upstream = Upstream(tmp_path / "app.sock")
        server = await nursery.start(partial(serve, unix_path=str(upstream.place)))
    else:
        server = await nursery.start(serve, "127.0.0.1", 0)
        upstream = Upstream(server.port)
    outside = str(tmp_path) if tls == "at the proxy" else ""
    # Only version 2 can say that the client's connection was TLS.
    how = how.replace("v2", "v2-ssl", 1) if outside else how
    secure = tls == "at the server" or "-ssl" in how
    port = free_port()
    async with announcing(how, tmp_path, port, upstream, outside):
        ca = None if tls == "none" else authority
        forged = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "gopher", "X-Forwarded-Host": "x"}
        # Addresses of their own: that the first connection is over may not be known yet.
        for client, fields in [("127.0.0.7", {}), ("127.0.0.8", forged)]:
            answer = str(await answer_to(port, ca, fields, client))
            assert answer.startswith(f"{client}:")
            assert answer.endswith(f" {secure} chat.example")
        async with connect_through(port, ca, {}, "/ws/stay", CLIENT):
            if tls != "at the server":
                assert await answer_to(port, ca, {}, CLIENT) == 503
            assert str(await answer_to(port, ca, {}, "127.0.0.10")).startswith("127.0.0.10:")
    if how != "nginx":
        # HAProxy has checked the server's health all the time.
        assert server.statistics().accepted > 5
    unexpected = [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert {entry.__dict__["event"] for entry in unexpected} <= {"connection.refused"}


@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2", "nginx"])
async def test_a_client_on_a_unix_socket_of_the_proxy_cannot_claim_an_address(
    tmp_path: Path, nursery: trio.Nursery, how: str
) -> None:
    app = App(trusted_proxies=["127.0.0.1", "unix"])

    @app.http("/whoami")
    async def whoami(request: Request) -> str:
        return f"{request.remote.host} {request.secure}"

    server = await nursery.start(partial(app.serve, "127.0.0.1", 0, proxy_protocol=True))
    port, path, upstream = free_port(), tmp_path / "front.sock", Upstream(server.port)
    if how == "nginx":
        listens = f"listen 127.0.0.1:{port}; listen unix:{path};"
        text = f"server {{ {listens} proxy_pass {upstream.nginx}; proxy_protocol on; }}\n"
        front = nginx(tmp_path, port, text, stream=True)
    else:
        text = haproxy_text(port, upstream, "", how).replace("    bind ", f"    bind unix@{path}\n    bind ")
        front = haproxy(tmp_path, port, text)
    async with front, await trio.open_unix_socket(path) as client:
        await client.send_all(
            b"GET /whoami HTTP/1.1\r\nHost: chat.example\r\n"
            b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\r\n"
        )
        answer = b"".join([piece async for piece in client])
    # HAProxy says of such a client in version 2 that it is the proxy itself.
    assert answer.endswith(b"\r\n\r\n127.0.0.1 False" if "v2" in how else b"\r\n\r\nunknown False")
