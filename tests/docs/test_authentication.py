from __future__ import annotations

import json
import re

import pytest
import trio

from tests.docs.conftest import Follow
from tests.docs.following import close_of, exercises, refusal
from tests.docs.snippets import DOCS, snippets
from tests.examples.conftest import connect
from wsframework import CloseFrame
from wsframework.testing import serve

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
async def test_a_session_in_a_cookie_opens_the_connection_from_the_servers_own_pages(
    follow: Follow, nursery: trio.Nursery
) -> None:
    folder = follow(PAGE)
    url = await folder.serve(nursery, "cookie.py")
    own = url.replace("ws://", "http://")
    async with serve(folder.load("cookie.py").app) as server:
        assert (await server.request("POST", "/login")).status == 401
        answer = await server.request("POST", "/login", {"Authorization": "Basic YWRhOmFkYQ=="})
        gone = (await server.request("POST", "/logout")).headers["set-cookie"]
    session = answer.headers["set-cookie"].partition(";")[0]
    assert gone.startswith("__Host-session=; Expires=Thu, 01 Jan 1970")
    (field,) = re.findall(r"`Set-Cookie: ([^`]+)`", (DOCS / PAGE).read_text())
    assert field == answer.headers["set-cookie"].replace("Max-Age=86400; ", "")
    async with connect(f"{url}/club", headers={"Cookie": f"theme=dark; {session}", "Origin": own}) as ws:
        assert await ws.get_message() == "Hello, Ada."
    for cookie in ("", "__Host-session=another", "theme=dark", '__Host-session="', "session=id-of-a-session"):
        assert await close_of(f"{url}/club", headers={"Cookie": cookie}) == (4401, "please log in")
    foreign = {"Cookie": session, "Origin": "https://evil.example"}
    assert await refusal(f"{url}/club", headers=foreign) == 403


@exercises(PAGE, "expiry.py")
async def test_a_connection_ends_with_its_token(
    follow: Follow, autojump_clock: trio.testing.MockClock
) -> None:
    headers = {"Authorization": "Bearer token-of-ada"}
    app = follow(PAGE).load("expiry.py").app
    async with serve(app) as server, server.connect("/club", headers=headers) as client:
        started = trio.current_time()
        await client.send("hello")
        assert await client.receive() == "hello"
        await trio.sleep(3000)
        await client.send("still here")
        assert await client.receive() == "still here"
        await trio.sleep(700)
        assert (await client.wait_closed()).code == 4401
        assert trio.current_time() - started < 3710
        assert (await server.request("GET", "/club")).status == 426
        async with server.connect("/club") as client:
            assert await client.wait_closed() == CloseFrame(4401, "the token is not valid")
