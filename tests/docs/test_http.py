from __future__ import annotations

import hashlib
import hmac
import logging
import sys

import pytest
import trio

from tests.docs.conftest import Follow
from tests.docs.following import exercises
from wsframework.testing import connect, request, serve

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def sign(body: str, key: bytes = b"change me") -> dict[str, str]:
    return {"X-Signature": hmac.new(key, body.encode(), hashlib.sha256).hexdigest()}


@exercises("howto/http.md", "shop.py")
async def test_a_webhook_pushes_into_a_room_and_a_form_redirects(follow: Follow) -> None:
    app = follow("howto/http.md").load("shop.py").app
    async with serve(app) as server, connect(app, "/orders") as client:
        body = '{"count": 2, "what": "tea"}'
        answer = await request(app, "POST", "/webhook", JSON | sign(body), body=body)
        assert answer.status == 204
        assert await client.receive() == "2 of tea"
        for wrong, headers, status in [
            (body, JSON | sign(body, b"another"), 403),
            (body, JSON, 403),
            (body, sign(body), 415),
            ("[1]", JSON | sign("[1]"), 422),
            ("{", JSON | sign("{"), 400),
            ("x" * 1_100_000, JSON, 413),
        ]:
            assert (await request(app, "POST", "/webhook", headers, body=wrong)).status == status
        async with server.open_stream() as stream:  # no client in Python sends this
            await stream.send_all(b"POST /webhook HTTP/1.1\r\nHost: localhost\r\nX-Signature: \xe9\r\n\r\n")
            assert bytes(await stream.receive_some()).startswith(b"HTTP/1.1 403 ")
        greeted = await request(app, "POST", "/greet", FORM, body="name=Zo%C3%AB&x=1")
        assert (greeted.status, greeted.headers["location"]) == (303, "/hello?name=Zo%C3%AB")
        assert (await request(app, "GET", greeted.headers["location"])).text == "<h1>Hello, Zoë!</h1>"
        # What a browser encodes in a form is encoded in the URL too: "a&b#c" and a line break.
        greeted = await request(app, "POST", "/greet", FORM, body="name=a%26b%23c%0D%0A")
        assert (greeted.status, greeted.headers["location"]) == (303, "/hello?name=a%26b%23c%0D%0A")


@exercises("howto/http.md", "call.py")
async def test_the_webhook_is_called_by_another_program(follow: Follow, nursery: trio.Nursery) -> None:
    folder = follow("howto/http.md")
    url = (await folder.serve(nursery, "shop.py")).replace("ws:", "http:")
    called = await trio.run_process([sys.executable, folder.path / "call.py", url], capture_stdout=True)
    assert called.stdout == b"204\n"


@exercises("howto/http.md", "logged.py")
async def test_the_access_log_has_a_record_for_each_request(
    follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    app = follow("howto/http.md").load("logged.py").app
    caplog.set_level(logging.INFO, logger="wsframework")
    await request(app, "GET", "/hello")
    assert "request.answered method=GET path=/hello" in caplog.text
