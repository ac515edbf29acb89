"""HAProxy passes on bytes and announces each client with the PROXY protocol, of both versions."""

from __future__ import annotations

import logging
import ssl
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.proxies.fronts import CLIENT, whoami_app
from tests.proxies.running import answer_to, connect_through, free_port, haproxy, issue_certificate
from wsframework import Limits

CHECKS = "check check-send-proxy inter 50ms"


def haproxy_text(port: int, bind: str, server: str) -> str:
    return f"""
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
listen chat
    bind 127.0.0.1:{port} {bind}
    server app {server} {CHECKS}
"""


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("upstream", ["tcp", "unix"])
@pytest.mark.parametrize("tls", ["none", "at the server", "at the proxy"])
async def test_the_client_arrives_through_bytes(
    tmp_path: Path,
    nursery: trio.Nursery,
    version: str,
    upstream: str,
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
    if upstream == "unix":
        path = tmp_path / "app.sock"
        server = await nursery.start(partial(serve, unix_path=str(path)))
        where = f"unix@{path}"
    else:
        server = await nursery.start(serve, "127.0.0.1", 0)
        where = f"127.0.0.1:{server.port}"
    bind = f"ssl crt {tmp_path}/haproxy.pem" if tls == "at the proxy" else ""
    # Only version 2 can say that the client's connection was TLS.
    version = f"{version}-ssl" if bind and version.endswith("v2") else version
    secure = tls == "at the server" or version.endswith("-ssl")
    port = free_port()
    async with haproxy(tmp_path, port, haproxy_text(port, bind, f"{where} {version}")):
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
    # HAProxy has checked the server's health all the time.
    assert server.statistics().accepted > 5
    unexpected = [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert {entry.__dict__["event"] for entry in unexpected} <= {"connection.refused"}
