"""nginx and HAProxy in front: the client's own address and scheme arrive, whatever a client claims."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.proxies.fronts import CLIENT, UPGRADE, Upstream, behind, haproxy_text, whoami_app
from tests.proxies.running import free_port, haproxy, nginx
from wsframework import App, Limits, Request

CHAINS = [("nginx",), ("haproxy",), ("nginx", "haproxy"), ("haproxy", "nginx"), ("nginx", "nginx")]

FORGED = [
    {"X_Forwarded_For": "6.6.6.6"},
    {"X_Forwarded_For": "127.0.0.1"},
    {"X_Forwarded_For": "6.6.6.6, 127.0.0.1, 127.0.0.1"},
    {"X_Forwarded_For": "unknown,"},
    {"X_Forwarded_For": "6.6.6.6, unix:"},
    {"X_Forwarded_Proto": "http"},
    {"X_Forwarded_Host": "evil.example"},
    {"Forwarded": "for=6.6.6.6;proto=http;host=evil.example"},
    {"Forwarded": 'for="'},
    {"X_Real_IP": "6.6.6.6"},
]


@pytest.mark.parametrize("upstream", ["tcp", "unix"])
@pytest.mark.parametrize("chain", CHAINS, ids="-".join)
async def test_the_client_is_known_and_cannot_be_forged(
    tmp_path: Path, chain: tuple[str, ...], upstream: str
) -> None:
    async with behind(whoami_app(), tmp_path, upstream, *chain, between=upstream) as front:
        assert await front.answer() == f"{CLIENT} True chat.example"
        for fields in FORGED:
            assert await front.answer(**fields) == f"{CLIENT} True chat.example", fields
            own = {"Origin": f"https://chat.example:{front.port}"}
            assert await front.answer(**own, **fields) == f"{CLIENT} True chat.example", fields
            assert await front.answer(Origin="https://evil.example", **fields) == 403
            assert await front.answer(Origin=f"http://chat.example:{front.port}", **fields) == 403


@pytest.mark.parametrize("chain", CHAINS[:2], ids="-".join)
async def test_clients_are_counted_one_by_one(tmp_path: Path, chain: tuple[str, ...]) -> None:
    app = whoami_app(Limits(connections_per_address=1))
    async with behind(app, tmp_path, "unix", *chain) as front, front.stay("127.0.0.9"):
        assert await front.answer("127.0.0.9") == 503
        assert await front.answer("127.0.0.9", X_Forwarded_For="6.6.6.6") == 503
        async with front.stay("127.0.0.10"):
            assert await front.answer("127.0.0.11") == "127.0.0.11 True chat.example"


@pytest.mark.parametrize("chain", CHAINS[:2], ids="-".join)
async def test_a_proxy_that_is_not_trusted_is_the_client(tmp_path: Path, chain: tuple[str, ...]) -> None:
    app = whoami_app()
    app.proxies = App(trusted_proxies="10.0.0.0/8").proxies
    async with behind(app, tmp_path, "tcp", *chain) as front:
        answer = await front.answer(X_Forwarded_For="6.6.6.6")
        assert str(answer).startswith("127.0.0.1:")
        assert str(answer).endswith(" False chat.example")


WRITES = {
    "nginx-overwrites": "proxy_set_header X-Forwarded-For $remote_addr;",
    "nginx-appends": "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    "haproxy-overwrites": "http-request set-header X-Forwarded-For %[src]",
    "haproxy-appends": "http-request add-header X-Forwarded-For %[src]",
}


@pytest.mark.parametrize("how", WRITES)
async def test_a_client_on_a_unix_socket_of_the_proxy_cannot_claim_an_address(
    tmp_path: Path, nursery: trio.Nursery, how: str
) -> None:
    # An entry for such a client is skipped if unix is trusted, so there only overwriting helps.
    app = App(trusted_proxies=["127.0.0.1", *(["unix"] if how.endswith("overwrites") else [])])

    @app.http("/whoami")
    async def whoami(request: Request) -> str:
        return request.remote.host

    server = await nursery.start(app.serve, "127.0.0.1", 0)
    port, path, upstream = free_port(), tmp_path / "front.sock", Upstream(server.port)
    if how.startswith("nginx"):
        text = (
            f"server {{ listen 127.0.0.1:{port}; listen unix:{path};"
            f"location / {{ proxy_pass http://{upstream.nginx}; {UPGRADE} {WRITES[how]} }} }}\n"
        )
        front = nginx(tmp_path, port, text)
    else:
        text = haproxy_text(port, path, upstream, tmp_path, outer=False)
        front = haproxy(tmp_path, port, text.replace("option forwardfor", WRITES[how]))
    async with front, await trio.open_unix_socket(path) as client:
        await client.send_all(
            b"GET /whoami HTTP/1.1\r\nHost: chat.example\r\nConnection: close\r\n"
            b"X-Forwarded-For: 6.6.6.6\r\n\r\n"
        )
        answer = b"".join([piece async for piece in client])
    assert answer.endswith(b"127.0.0.1"), answer
