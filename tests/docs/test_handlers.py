from __future__ import annotations

from uuid import UUID

import pytest
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected

from tests.docs.conftest import Follow
from tests.docs.following import close_of, exercises, refusal
from tests.examples.conftest import connect
from wsframework import RouteError
from wsframework.routing import Template
from wsframework.testing import request, serve


@exercises("handlers.md", "handler.py")
async def test_the_first_handler_has_its_conversation_and_closes(
    follow: Follow, nursery: trio.Nursery
) -> None:
    url = await follow("handlers.md").serve(nursery, "handler.py")
    async with connect(f"{url}/greet/Ada") as ws:
        assert await ws.get_message() == "Hello, Ada. What do you do?"
        await ws.send_message("mathematics")
        assert await ws.get_message() == "Ada does mathematics. Goodbye."
        with pytest.raises(ConnectionClosed) as closed:
            await ws.get_message()
    assert closed.value.reason is not None
    assert closed.value.reason.code == 1000


@exercises("handlers.md", "sums.py")
@pytest.mark.parametrize(
    ("offered", "sent", "answer", "agreed"),
    [(["json", "text"], "[1, 2]", '{"sum": 13}', "json"), (["csv", "json"], "1 2", "13", "csv")],
)
async def test_the_table_of_subprotocols_is_true(
    follow: Follow, nursery: trio.Nursery, offered: list[str], sent: str, answer: str, agreed: str
) -> None:
    url = await follow("handlers.md").serve(nursery, "sums.py")
    async with connect(f"{url}/sum/10", subprotocols=offered) as ws:
        assert ws.subprotocol == agreed
        await ws.send_message(sent)
        assert await ws.get_message() == answer
    assert await refusal(f"{url}/sum/10", ["xml"]) == 400
    assert await refusal(f"{url}/sum/10") == 400
    assert await refusal(f"{url}/sum/ten", ["json"]) == 404


@exercises("handlers.md", "both_ways.py")
async def test_two_decorators_serve_with_and_without_a_subprotocol(
    follow: Follow, nursery: trio.Nursery
) -> None:
    url = await follow("handlers.md").serve(nursery, "both_ways.py")
    for offered, said in [
        (["chat"], "we speak chat"),
        (None, "we speak plainly"),
        (["x"], "we speak plainly"),
    ]:
        async with connect(f"{url}/ws/chat", subprotocols=offered) as ws:
            assert await ws.get_message() == said


def test_the_table_of_converters_is_true() -> None:
    key = "6f1c0d2e-0000-4000-8000-000000000001"
    for template, path, value in [
        ("/{name}", "/anything", "anything"),
        ("/{id:int}", "/42", 42),
        ("/{id:int}", "/-7", -7),
        ("/{x:float}", "/3.14", 3.14),
        ("/{x:float}", "/2", 2.0),
        ("/{key:uuid}", f"/{key}", UUID(key)),
        ("/{rest:path}", "/a/b", "a/b"),
        ("/files/{rest:path}", "/files/", ""),
    ]:
        assert Template.parse(template).match(path) == (value,)
    assert Template.parse("/{name}").match("/a/b") is None
    assert Template.parse("/files/{rest:path}").match("/files") is None
    with pytest.raises(RouteError):
        Template.parse("/{x:complex}")


@exercises("handlers.md", "stopwatch.py")
async def test_the_stopwatch_pushes_while_it_receives(follow: Follow, nursery: trio.Nursery) -> None:
    url = await follow("handlers.md").serve(nursery, "stopwatch.py")
    async with connect(f"{url}/stopwatch") as ws:
        await ws.send_message("one")
        messages = {await ws.get_message() for _ in range(4)}
    assert messages == {"0.0", "lap: one", "0.1", "0.2"}


@exercises("handlers.md", "members.py")
async def test_given_functions_and_origins_refuse_and_let_in(follow: Follow, nursery: trio.Nursery) -> None:
    url = await follow("handlers.md").serve(nursery, "members.py")
    token = {"Authorization": "Bearer token-of-ada"}
    assert await refusal(f"{url}/club") == 401
    assert await refusal(f"{url}/club", headers={"Origin": "https://evil.example"}) == 403
    assert await refusal(f"{url}/club", headers={**token, "Origin": "https://evil.example"}) == 403
    own = url.replace("ws://", "http://")
    for headers in ({"Origin": "https://club.example"}, {"Origin": own}, {}):
        async with connect(f"{url}/club", headers={**token, **headers}) as ws:
            assert await ws.get_message() == "Good evening, Ada."


@exercises("handlers.md", "session.py")
async def test_each_visit_renews_the_cookie(follow: Follow) -> None:
    app = follow("handlers.md").load("session.py").app
    cookie = {"Cookie": "__Host-session=id-of-a-session"}
    async with serve(app) as server:
        async with server.connect("/club", headers=cookie) as client:
            assert await client.receive() == "Hello, Ada."
            [renewed] = [
                value.decode()
                for name, value in client.websocket.handshake_headers
                if name.lower() == b"set-cookie"
            ]
        assert renewed.startswith("__Host-session=id-of-a-session; Max-Age=86400")
        with pytest.raises(ConnectionRejected):
            async with server.connect("/club"):
                pass


@exercises("handlers.md", "maintenance.py")
async def test_a_guard_closes_everything_but_the_health_check(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = follow("handlers.md").load("maintenance.py")
    async with serve(program.app) as server:
        async with server.connect("/echo") as client:
            await client.send("hello")
            assert await client.receive() == "hello"
        monkeypatch.setattr(program, "closed", True)
        with pytest.raises(ConnectionRejected) as refused:
            async with server.connect("/echo"):
                pass
        assert refused.value.status_code == 503
        assert (await server.request("GET", "/health")).text == "fine"


@exercises("handlers.md", "people.py")
async def test_plain_http_is_answered(follow: Follow) -> None:
    app = follow("handlers.md").load("people.py").app
    for method, path, status in [
        ("GET", "/health", 200),
        ("HEAD", "/health", 200),
        ("DELETE", "/people/ada", 200),
        ("POST", "/people/ada", 405),
        ("GET", "/nothing", 404),
        ("GET", "/ws", 426),
    ]:
        answer = await request(app, method, path)
        assert answer.status == status, (method, path)
        if status == 405:
            assert set(answer.headers["allow"].split(", ")) == {"DELETE", "GET", "HEAD"}
    assert (await request(app, "GET", "/people/ada")).json() == {"name": "ada", "method": "GET"}


@exercises("handlers.md", "around.py")
async def test_lifespan_and_wrapper_are_around_the_handler(follow: Follow) -> None:
    module = follow("handlers.md").load("around.py")
    async with serve(module.app) as server, server.connect("/hello") as client:
        assert await client.receive() == "hello"
        await client.wait_closed()
    assert module.log == ["pool opened", "/hello opened", "/hello closed after 1 messages", "pool closed"]


@exercises("handlers.md", "small.py")
async def test_a_message_that_is_too_big_is_1009(follow: Follow, nursery: trio.Nursery) -> None:
    url = await follow("handlers.md").serve(nursery, "small.py")
    async with connect(f"{url}/notes") as ws:
        await ws.send_message("x" * 1024)
        assert await ws.get_message() == "noted: 1024 characters"
    assert (await close_of(f"{url}/notes", "x" * 1025))[0] == 1009
