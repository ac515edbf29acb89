"""Plain requests that a mounted application answers, on the wire."""

from __future__ import annotations

import contextlib
import logging
import re

import pytest
import trio

from tests.mounting.stage import (
    Plain,
    application,
    body,
    connected,
    echo,
    mounted_at,
    new_app,
    start,
)
from tests.server.plain import Contexts, get, post
from tests.waiting import until
from wsframework import Accept, App, Request, Response
from wsframework.mounting.worlds import Receive, Scope, Send
from wsframework.testing import request
from wsframework.wire import build_request

UPGRADE = build_request("x", "/ws", "dGhlIHNhbXBsZSBub25jZQ==")


async def test_one_connection_asks_mounted_ours_mounted_and_then_upgrades(
    kind: str, contexts: Contexts
) -> None:
    async with mounted_at("/", Plain(), kind, contexts) as served, served.connect() as client:
        for path, answer in ("/x", b"mounted"), ("/ours", b"ours"), ("/y", b"mounted"), ("/ours", b"ours"):
            await client.send(get(path))
            assert await client.answer() == (200, answer)
        await client.send(UPGRADE)
        assert (await client.head())[0] == 101


async def test_pipelined_requests_are_answered_one_after_the_other(kind: str, contexts: Contexts) -> None:
    async with mounted_at("/", Plain(), kind, contexts) as served, served.connect() as client:
        requests = [get("/a"), post("/b", "unread"), get("/ours"), post("/c", "x" * 5000), get("/d"), UPGRADE]
        await client.send(b"".join(requests))
        for answer in b"mounted", b"mounted", b"ours", b"mounted", b"mounted":
            assert await client.answer() == (200, answer)
        assert (await client.head())[0] == 101


async def test_the_client_that_leaves_is_told_to_the_application(kind: str, contexts: Contexts) -> None:
    seen: list[str] = []

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"first", more=True))
        assert (await receive())["more_body"] is False
        seen.append((await receive())["type"])
        seen.append((await receive())["type"])

    async with mounted_at("/", application(waiting), kind, contexts) as served:
        async with served.connect() as client:
            await client.send(get("/"))
            assert (await client.head())[0] == 200
        await until(lambda: len(seen) == 2)
        assert seen == ["http.disconnect"] * 2


# Guards and what comes before


async def test_hosts_guards_and_origins_come_first(kind: str, contexts: Contexts) -> None:
    plain, open_ = Plain(), Plain(b"open")
    app = new_app(allowed_hosts=["localhost"], origins=["https://friend.example"])
    app.mount("/", plain)
    app.mount("/open", open_, guarded=False, origins=["https://other.example"])

    @app.guard
    async def guard(request: Request) -> Response | None:
        if request.headers.get("x-key") == "1":
            return None
        return Response("who?", 401)

    async with connected(app, kind, contexts) as client:
        for path, fields, status in [
            ("/", ["X-Key: 1"], 200),
            ("/", [], 401),
            ("/open", [], 200),
            ("/opening", [], 401),
            ("/", ["X-Key: 1", "Origin: https://friend.example"], 200),
            ("/", ["X-Key: 1", "Origin: https://evil.example"], 403),
            ("/open", ["Origin: https://other.example"], 200),
            ("/open", ["Origin: https://friend.example"], 403),
        ]:
            await client.send(get(path, *fields, "Content-Length: 0", method="POST"))
            assert (await client.answer())[0] == status, (path, fields)
        await client.send(get("/", "X-Key: 1").replace(b"localhost", b"evil.example"))
        assert (await client.answer())[0] == 421
        assert len(plain.scopes) == 2
        assert len(open_.scopes) == 2


async def test_guards_may_read_the_body_and_add_fields(kind: str, contexts: Contexts) -> None:
    app = new_app()
    app.mount("/", application(echo))

    @app.guard
    async def guard(request: Request) -> Accept[None] | None:
        assert await request.body() == b"signed"
        return Accept(headers={"X-Signed": "yes"})

    async with connected(app, kind, contexts) as client:
        await client.send(post("/", "signed"))
        _, fields = await client.head()
        assert fields["x-signed"] == "yes"
        assert await client.content(fields) == b"signed"


@pytest.mark.parametrize("own", [(), ((b"x-Content-type-OPTIONS", b""),)], ids=["unsaid", "said"])
async def test_browsers_may_not_guess_the_type_unless_the_application_says_so(
    own: tuple[tuple[bytes, bytes], ...], kind: str, contexts: Contexts
) -> None:
    async def typeless(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, *own))
        await send(body(b"<script>"))

    async with (
        mounted_at("/", application(typeless), kind, contexts) as served,
        served.connect() as client,
    ):
        await client.send(get("/"))
        _, fields = await client.head()
        assert fields["x-content-type-options"] == ("" if own else "nosniff")


# Mistakes of the application


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    pass


async def crash(scope: Scope, receive: Receive, send: Send) -> None:
    raise ZeroDivisionError("a secret")


async def late_crash(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    raise ZeroDivisionError("a secret")


async def injection(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, (b"x-a", b"1\r\nSet-Cookie: evil=1")))
    await send(body())


async def injection_by_name(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, (b"x-a: 1\r\nx-b", b"1")))
    await send(body())


async def swallowed_injection(scope: Scope, receive: Receive, send: Send) -> None:
    with contextlib.suppress(ValueError):
        await injection(scope, receive, send)


async def not_a_status(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(101))
    await send(body())


async def trailers(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(trailers=True))
    await send(body())


async def two_lengths(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, (b"content-length", b"1"), (b"content-length", b"2")))
    await send(body())


async def short(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, (b"content-length", b"10")))
    await send(body(b"short"))


async def body_first(scope: Scope, receive: Receive, send: Send) -> None:
    await send(body(b"x"))


async def pushed(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.push", "path": "/", "headers": []})


async def leave_the_program(scope: Scope, receive: Receive, send: Send) -> None:
    raise SystemExit


@pytest.mark.parametrize(
    "handler",
    [
        nothing,
        crash,
        late_crash,
        injection,
        injection_by_name,
        swallowed_injection,
        not_a_status,
        trailers,
        two_lengths,
        short,
        body_first,
        pushed,
        leave_the_program,
    ],
)
@pytest.mark.parametrize("kind", ["hub", "stream"])
async def test_a_mistake_before_the_answer_is_a_500_and_recorded(
    kind: str, contexts: Contexts, handler: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        mounted_at("/", application(handler), kind, contexts) as served,  # type: ignore[arg-type]
        served.connect() as client,
        served.connect() as other,
    ):
        await client.send(get("/"))
        status, fields = await client.head()
        assert status == 500
        assert b"secret" not in await client.content(fields)
        assert "set-cookie" not in fields
        await client.send(get("/ours"))
        assert await client.answer() == (200, b"ours")
        await other.send(get("/ours"))
        assert await other.answer() == (200, b"ours")
    (found,) = [found for found in caplog.records if found.levelno >= logging.ERROR]
    assert found.getMessage().startswith("handler.crashed")
    assert found.exc_info


@pytest.mark.parametrize("size", [None, 10])
async def test_a_mistake_in_the_answer_cuts_the_connection(
    kind: str, contexts: Contexts, size: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def middle(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, *([] if size is None else [(b"content-length", b"%d" % size)])))
        await send(body(b"begun", more=True))
        if size is not None:
            await send(body(b"longer than said"))
        raise ZeroDivisionError

    async with mounted_at("/", application(middle), kind, contexts) as served:
        async with served.connect() as client:
            await client.send(get("/"))
            assert (await client.head())[0] == 200
            rest = await client.rest()
            assert rest == (b"begun" if size else b"5\r\nbegun\r\n")
        async with served.connect() as client:
            await client.send(get("/ours"))
            assert await client.answer() == (200, b"ours")
    (found,) = [found for found in caplog.records if found.levelno >= logging.ERROR]
    assert re.match(r"handler\.crashed .*handler=.?mount /", found.getMessage())


async def test_a_client_that_leaves_is_no_mistake_of_the_application(
    kind: str, contexts: Contexts, caplog: pytest.LogCaptureFixture
) -> None:
    ended = trio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send(start())
            while True:
                await send(body(bytes(1000), more=True))
                await trio.sleep(0.001)
        except OSError as error:
            raise RuntimeError("as frameworks do") from error
        finally:
            ended.set()

    async with mounted_at("/", application(endless), kind, contexts) as served:
        async with served.connect() as client:
            await client.send(get("/"))
            await client.head()
        await ended.wait()
        await trio.testing.wait_all_tasks_blocked()
    assert not [found for found in caplog.records if found.levelno >= logging.ERROR]


async def test_mounts_in_memory_are_like_those_on_sockets() -> None:
    app: App = new_app()
    app.mount("/api", application(echo))
    assert (await request(app, "POST", "/api/x", body="hello")).text == "hello"
    assert (await request(app, "GET", "/elsewhere")).status == 404


async def leave_a_nursery_open(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
    else:
        await send(start())
        await send(body(b"begun", more=True))
    await trio.open_nursery().__aenter__()


@pytest.mark.parametrize("kind", ["hub", "stream"])
async def test_a_task_that_is_damaged_ends_one_connection(
    kind: str, contexts: Contexts, caplog: pytest.LogCaptureFixture
) -> None:
    async with mounted_at("/", application(leave_a_nursery_open), kind, contexts) as served:
        async with served.connect() as page, served.connect() as other:
            await page.send(get("/"))
            assert (await page.head())[0] == 200
            assert await page.rest() == b"5\r\nbegun\r\n"
            await other.send(get("/ours"))
            assert await other.answer() == (200, b"ours")
        async with served.connect() as client:
            await client.send(UPGRADE.replace(b"/ws", b"/elsewhere"))
            assert (await client.head())[0] == 101
            assert (await client.exactly(4))[2:] == (1011).to_bytes(2, "big")
    crashed = [found for found in caplog.records if found.getMessage().startswith("handler.crashed")]
    assert len(crashed) == 2


async def test_a_client_that_says_close_gets_a_last_answer(kind: str, contexts: Contexts) -> None:
    async with mounted_at("/", Plain(), kind, contexts) as served, served.connect() as client:
        await client.send(get("/", "Connection: close") + get("/"))
        _, fields = await client.head()
        assert fields["connection"] == "close"
        assert await client.content(fields) == b"mounted"
        assert await client.at_end()
