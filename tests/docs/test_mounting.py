from __future__ import annotations

import gc

import pytest
import trio

from tests.docs.conftest import Follow
from tests.docs.following import exercises
from wsframework.testing import connect, request, serve


@exercises("howto/mounting.md", "shop.py")
async def test_a_view_of_the_framework_pushes_into_a_room(follow: Follow) -> None:
    app = follow("howto/mounting.md").load("shop.py").app
    async with serve(app), connect(app, "/sales") as client:
        answer = await request(app, "POST", "/sell", body='{"what": "tea"}')
        assert answer.text == '{"sold":"tea"}'
        assert await client.receive() == "sold: tea"
        assert (await request(app, "GET", "/sell")).status == 405
        assert (await request(app, "GET", "/elsewhere")).status == 404


@exercises("howto/mounting.md", "website.py")
async def test_files_are_served_beside_a_websocket(follow: Follow) -> None:
    folder = follow("howto/mounting.md")
    for name, text in [("static/style.css", "p {}"), ("pages/index.html", "<p>hello")]:
        (folder.path / name).parent.mkdir()
        (folder.path / name).write_text(text)
    app = folder.load("website.py").app
    async with serve(app):
        assert (await request(app, "GET", "/static/style.css")).text == "p {}"
        assert (await request(app, "GET", "/")).text == "<p>hello"
        async with connect(app, "/echo") as client:
            await client.send("hi")
            assert await client.receive() == "hi"


# Starlette closes no generator that it streams from; the collector does.
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
@exercises("howto/mounting.md", "ticker.py")
async def test_events_are_streamed_until_the_client_leaves(follow: Follow) -> None:
    app = follow("howto/mounting.md").load("ticker.py").app
    async with serve(app) as server, server.open_stream() as stream:
        await stream.send_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        with trio.fail_after(60):
            while b"data: 1" not in received:
                received += bytes(await stream.receive_some())
    assert b"text/event-stream" in received
    gc.collect()
