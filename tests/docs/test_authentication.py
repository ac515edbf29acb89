from __future__ import annotations

import functools
import json
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trustme
from trio_websocket import ConnectionRejected

from tests.docs.conftest import Follow
from tests.docs.following import close_of, exercises, refusal
from tests.docs.snippets import DOCS, snippets
from tests.examples.conftest import connect
from wsframework import CloseFrame, Connection
from wsframework.testing import open_client, serve

PAGE = "howto/authentication.md"


@exercises(PAGE, "header.py", "client.py")
async def test_a_token_in_the_header_opens_the_connection(
    follow: Follow, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = follow(PAGE)
    url = await folder.serve(nursery, "header.py")
    with trio.fail_after(10):
        await folder.load("client.py").main(f"{url}/club")
    assert capsys.readouterr().out == "Ada: hello\n"
    for headers in (
        None,
        {"Authorization": "Bearer another"},
        {"Authorization": "Basic token-of-ada"},
        {"Authorization": "Bearer"},
    ):
        assert await refusal(f"{url}/club", headers=headers) == 401


@exercises(PAGE, "subprotocol.py")
async def test_a_token_among_the_subprotocols_opens_the_connection_and_is_not_sent_back(
    follow: Follow, nursery: trio.Nursery
) -> None:
    url = await follow(PAGE).serve(nursery, "subprotocol.py")
    (script,) = (block.text for block in snippets(DOCS / PAGE) if block.language == "js")
    offered = json.loads(script[script.index("[") : script.index("]") + 1])
    assert offered == ["club", "bearer.token-of-ada"]
    for names in (offered, offered[::-1]):
        async with connect(f"{url}/club", subprotocols=names) as ws:
            assert ws.subprotocol == "club"
            assert await ws.get_message() == "Hello, Ada."
    for names in (["club", "bearer.another"], ["club"]):
        assert await close_of(f"{url}/club", subprotocols=names) == (4401, "a valid token is required")
    foreign = {"Origin": "https://evil.example"}
    assert await refusal(f"{url}/club", offered, headers=foreign) == 403


@exercises(PAGE, "cookie.py")
async def test_a_session_in_a_cookie_opens_the_connection_from_the_servers_own_pages(follow: Follow) -> None:
    own, foreign = {"Origin": "http://localhost"}, {"Origin": "https://evil.example"}
    password = {"Authorization": "Basic YWRhOmxvdmVsYWNl"}
    async with serve(follow(PAGE).load("cookie.py").app) as server:
        assert (await server.request("POST", "/login", own)).status == 401
        assert (await server.request("POST", "/login", {**password, **foreign})).status == 403
        answer = await server.request("POST", "/login", {**password, **own})
        session = answer.headers["set-cookie"].partition(";")[0]
        (field,) = re.findall(r"`Set-Cookie: ([^`]+)`", (DOCS / PAGE).read_text())
        assert answer.headers["set-cookie"].replace("Max-Age=86400; ", "") == field.replace(
            "__Host-session=id-of-a-session", session
        )
        cookie = {"Cookie": f"theme=dark; {session}"}
        async with server.connect("/club", headers={**cookie, **own}) as client:
            assert await client.receive() == "Hello, Ada."
        with pytest.raises(ConnectionRejected) as caught:
            async with server.connect("/club", headers={**cookie, **foreign}):
                pass
        assert caught.value.status_code == 403
        assert (await server.request("POST", "/logout", {**cookie, **foreign})).status == 403
        gone = await server.request("POST", "/logout", {**cookie, **own})
        assert gone.headers["set-cookie"].startswith("__Host-session=; Expires=Thu, 01 Jan 1970")
        for wrong in ("", "__Host-session=another", "theme=dark", '__Host-session="', session):
            async with server.connect("/club", headers={"Cookie": wrong}) as client:
                assert await client.wait_closed() == CloseFrame(4401, "please log in")


@exercises(PAGE, "first_message.py")
async def test_a_token_in_the_first_message_is_as_good_as_one_before(
    follow: Follow, autojump_clock: trio.testing.MockClock
) -> None:
    async with serve(follow(PAGE).load("first_message.py").app) as server:
        async with server.connect("/club") as client:
            await client.send("token-of-ada")
            assert await client.receive() == "Hello, Ada."
            await trio.sleep(60)
            await client.send("hello")
            assert await client.receive() == "Ada: hello"
        for wrong in ("token-of-eve", b"token-of-ada", ""):
            async with server.connect("/club") as client:
                await client.send(wrong)
                assert await client.wait_closed() == CloseFrame(4401, "the token is not valid")
        async with server.connect("/club", deadline=20) as client:
            started = trio.current_time()
            assert await client.wait_closed() == CloseFrame(4401, "no token came")
            assert 9 < trio.current_time() - started < 12


@exercises(PAGE, "certificate.py")
async def test_a_certificate_opens_the_connection(
    follow: Follow, nursery: trio.Nursery, tmp_path: Path
) -> None:
    authority = trustme.CA()
    own, devices = authority.issue_cert("127.0.0.1"), tmp_path / "devices.pem"
    chain, key = tmp_path / "fullchain.pem", tmp_path / "privkey.pem"
    authority.cert_pem.write_to_path(devices)
    key.write_bytes(own.private_key_pem.bytes())
    chain.write_bytes(b"".join(pem.bytes() for pem in own.cert_chain_pems))
    module = follow(PAGE).load("certificate.py")
    tls = module.context(str(chain), str(key), str(devices))
    server = await nursery.start(functools.partial(module.app.serve, "127.0.0.1", 0, ssl=tls))
    client = ssl.create_default_context()
    authority.configure_trust(client)
    authority.issue_cert("nameless").configure_cert(client)
    stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", server.port, ssl_context=client)
    with pytest.raises(ConnectionRejected) as caught:
        async with open_client(stream, "127.0.0.1", "/telemetry"):
            pass
    assert caught.value.status_code == 403
    authority.issue_cert("device", common_name="thermometer 7").configure_cert(client)
    stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", server.port, ssl_context=client)
    async with open_client(stream, "127.0.0.1", "/telemetry") as device:
        assert await device.receive() == "Hello, thermometer 7."


async def test_without_tls_there_is_no_certificate(follow: Follow) -> None:
    async with serve(follow(PAGE).load("certificate.py").app) as server:
        with pytest.raises(ConnectionRejected) as caught:
            async with server.connect("/telemetry"):
                pass
    assert caught.value.status_code == 403


ADA = {"Authorization": "Bearer token-of-ada"}


@exercises(PAGE, "expiry.py")
async def test_a_connection_ends_with_its_token(
    follow: Follow, autojump_clock: trio.testing.MockClock
) -> None:
    async with serve(follow(PAGE).load("expiry.py").app) as server:
        async with server.connect("/club", headers=ADA) as client:
            started = trio.current_time()
            await client.send("hello")
            assert await client.receive() == "hello"
            await trio.sleep(3000)
            await client.send("still here")
            assert await client.receive() == "still here"
            await trio.sleep(700)
            assert await client.wait_closed() == CloseFrame(4401, "the token has expired")
            assert trio.current_time() - started < 3710
        assert (await server.request("GET", "/club")).status == 426
        async with server.connect("/club") as client:
            assert await client.wait_closed() == CloseFrame(4401, "the token is not valid")


async def test_a_token_that_expires_before_the_handler_starts_is_expired_and_no_crash(
    follow: Follow, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = follow(PAGE).load("expiry.py")
    now = module.NOW
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: now))

    async def busy_server(ws: Connection) -> AsyncIterator[None]:
        nonlocal now
        now += 3601
        yield

    module.app.wrap(busy_server)
    async with serve(module.app) as server, server.connect("/club", headers=ADA) as client:
        assert await client.wait_closed() == CloseFrame(4401, "the token has expired")


async def test_a_new_token_of_the_same_user_keeps_the_connection_open(
    follow: Follow, autojump_clock: trio.testing.MockClock
) -> None:
    async with serve(follow(PAGE).load("expiry.py").app) as server:
        async with server.connect("/club", headers=ADA) as client:
            await client.send("renew next-token-of-ada")
            await trio.sleep(7000)
            await client.send("still here")
            assert await client.receive() == "still here"
            await trio.sleep(300)
            assert await client.wait_closed() == CloseFrame(4401, "the token has expired")
        for wrong in ("token-of-bob", "token-of-eve", ""):
            async with server.connect("/club", headers=ADA) as client:
                await client.send(f"renew {wrong}")
                assert await client.wait_closed() == CloseFrame(4401, "the new token is not valid")
