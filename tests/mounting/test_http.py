"""Plain requests that a mounted application answers, on the wire."""

from __future__ import annotations

import contextlib
import logging
import re

import attrs
import pytest
import trio

from tests.mounting.stage import (
    LASTING,
    Plain,
    application,
    body,
    connected,
    mounted_at,
    new_app,
    start,
)
from tests.server.plain import Contexts, get, port, post
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


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body, piece by piece, as it comes."""
    await send(start(200, (b"content-type", b"text/plain")))
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message["more_body"]
        await send(body(message["body"], more=more))


async def test_a_body_and_its_answer_are_streamed_at_the_same_time(kind: str, contexts: Contexts) -> None:
    async with mounted_at("/", application(echo), kind, contexts) as served, served.connect() as client:
        await client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
        for piece in b"one", b"two", b"three":
            await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            if piece == b"one":
                status, fields = await client.head()
                assert (status, fields["transfer-encoding"]) == (200, "chunked")
            assert await client.chunk() == piece
        await client.send(b"0\r\n\r\n")
        assert await client.chunk() == b""
        await client.send(get("/ours"))
        assert await client.answer() == (200, b"ours")


async def test_a_large_body_is_echoed_whole(kind: str, contexts: Contexts) -> None:
    data = bytes(range(256)) * 12_000
    async with mounted_at("/", application(echo), kind, contexts) as served, served.connect() as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, post("/", data))
            assert await client.answer() == (200, data)
        await client.send(get("/ours"))
        assert await client.answer() == (200, b"ours")


async def test_an_application_that_does_not_read_holds_its_client_back(kind: str, contexts: Contexts) -> None:
    read, sent = trio.Event(), 0

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await read.wait()
        await echo(scope, receive, send)

    async with mounted_at("/", application(slow), kind, contexts) as served, served.connect() as client:
        piece = bytes(64 * 1024)
        await client.send(get("/", "Content-Length: 100000000", method="POST"))

        async def flood() -> None:
            nonlocal sent
            while True:
                await client.send(piece)
                sent += len(piece)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            before = -1
            while before != sent:  # what the kernel takes on both ends
                before = sent
                await trio.sleep(0.2)
            assert sent < 50_000_000
            nursery.cancel_scope.cancel()


async def test_a_client_that_does_not_read_holds_the_application_back(kind: str, contexts: Contexts) -> None:
    sent, ended = 0, trio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        try:
            await send(start())
            while True:
                await send(body(bytes(64 * 1024), more=True))
                sent += 1
        finally:
            ended.set()

    async with mounted_at("/", application(endless), kind, contexts) as served:
        async with served.connect() as client:
            await client.send(get("/"))
            before = -1
            while before != sent:
                before = sent
                await trio.sleep(0.2)
            assert sent < 800
        await ended.wait()  # the client has left


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


async def test_an_application_that_does_not_listen_is_cancelled_when_its_client_has_left(
    kind: str, contexts: Contexts
) -> None:
    ended = trio.Event()

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with mounted_at("/", application(deaf), kind, contexts) as served:
        async with served.connect() as client:
            await client.send(get("/"))
            await trio.testing.wait_all_tasks_blocked()
        await ended.wait()


async def test_what_follows_the_answer_does_not_delay_the_next_request(kind: str, contexts: Contexts) -> None:
    over, seen = trio.Event(), list[str]()

    async def background(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"done"))
        seen.append((await receive())["type"])
        await over.wait()
        seen.append("over")

    async with mounted_at("/", application(background), kind, contexts) as served:
        async with served.connect() as client:
            for _ in range(2):
                await client.send(get("/"))
                assert await client.answer() == (200, b"done")
        over.set()
        await until(lambda: len(seen) == 4)
        assert sorted(seen) == ["http.disconnect"] * 2 + ["over"] * 2


@pytest.mark.parametrize(
    ("version", "fields", "sizes", "framing"),
    [
        ("1.1", [], [3], "content-length"),
        ("1.1", [], [3, 4], "chunked"),
        ("1.1", [(b"Content-Length", b"7")], [3, 4], "content-length"),
        ("1.1", [(b"connection", b"close")], [3, 4], "chunked, close"),
        ("1.1", [(b"transfer-encoding", b"chunked"), (b"keep-alive", b"x")], [3, 4], "chunked"),
        ("1.0", [], [3, 4], "end"),
        ("1.0", [(b"content-length", b"7")], [3, 4], "content-length, close"),
    ],
)
async def test_an_answer_is_framed_by_the_server(
    kind: str,
    contexts: Contexts,
    version: str,
    fields: list[tuple[bytes, bytes]],
    sizes: list[int],
    framing: str,
) -> None:
    async def pieces(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["http_version"] == version
        await send(start(200, (b"x-own", b"1"), *fields))
        for size in sizes[:-1]:
            await send(body(b"x" * size, more=True))
        await send(body(b"x" * sizes[-1]))

    content = b"x" * sum(sizes)
    async with mounted_at("/", application(pieces), kind, contexts) as served, served.connect() as client:
        await client.send(get("/", version=version))
        status, head = await client.head()
        assert (status, head["x-own"]) == (200, "1")
        assert "date" in head
        assert "keep-alive" not in head
        if framing == "end":
            assert not {"content-length", "transfer-encoding"} & set(head)
            assert await client.rest() == content
            return
        assert await client.content(head) == content
        assert ("transfer-encoding" in head) is framing.startswith("chunked")
        assert ("content-length" in head) is framing.startswith("content-length")
        assert (head.get("connection") == "close") is framing.endswith("close")
        if framing.endswith("close"):
            assert await client.at_end()


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_an_answer_without_content_has_none(
    kind: str, contexts: Contexts, method: str, status: int
) -> None:
    async def talking(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(status, (b"content-length", b"5")))
        await send(body(b"12", more=True))
        await send(body(b"345"))

    async with mounted_at("/", application(talking), kind, contexts) as served, served.connect() as client:
        await client.send(get("/", method=method) + get("/ours"))
        answered, fields = await client.head()
        assert answered == status
        assert fields.get("content-length") == (None if status == 204 else "5")
        assert "transfer-encoding" not in fields
        assert await client.answer() == (200, b"ours")


async def test_100_continue_comes_when_the_application_asks_for_the_body(
    kind: str, contexts: Contexts
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/read":
            await echo(scope, receive, send)
        else:
            await send(start(403))
            await send(body(b"no"))

    expecting = get("/read", "Content-Length: 5", "Expect: 100-continue", method="POST")
    async with mounted_at("/", application(app), kind, contexts) as served, served.connect() as client:
        await client.send(expecting)
        assert (await client.head())[0] == 100
        await client.send(b"hello" + get("/ours"))
        assert await client.answer() == (200, b"hello")
        assert await client.answer() == (200, b"ours")
        await client.send(expecting.replace(b"/read", b"/no"))
        assert await client.answer() == (403, b"no")
        assert await client.at_end()  # the body may follow, or not


async def test_a_body_that_was_not_read_is_dropped_or_ends_the_connection(
    kind: str, contexts: Contexts
) -> None:
    async with mounted_at("/", Plain(), kind, contexts) as served:
        async with served.connect() as client:
            await client.send(post("/", "x" * 60_000), get("/ours"))
            assert await client.answer() == (200, b"mounted")
            assert await client.answer() == (200, b"ours")
        async with served.connect() as client:
            await client.send(get("/", "Content-Length: 1000000", method="POST") + b"x" * 1000)
            assert await client.answer() == (200, b"mounted")
            assert await client.at_end()


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


# Bad bodies


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/", "Content-Length: 2001", method="POST"), 413),
        (get("/", "Transfer-Encoding: chunked", method="POST") + b"800\r\n" + bytes(2048) + b"\r\n", 413),
        (get("/", "Transfer-Encoding: chunked", method="POST") + b"5\r\nabcdeX", 400),
    ],
)
async def test_a_body_that_is_wrong_is_refused_for_the_application(
    kind: str, contexts: Contexts, request_: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request" and message["more_body"]:
            pass
        seen.append(message["type"])
        await send(start())
        await send(body(b"never"))

    app = new_app()
    app.mount("/", application(read), body_bytes=2000)
    async with connected(app, kind, contexts) as client:
        await client.send(request_)
        assert (await client.answer())[0] == status
        assert await client.at_end()
    assert seen == ["http.disconnect"]
    assert not [found for found in caplog.records if found.levelno >= logging.ERROR]


async def test_a_body_that_stops_coming_gets_a_408(kind: str, contexts: Contexts) -> None:
    app = new_app(attrs.evolve(LASTING, body=0.3))
    app.mount("/", application(echo))
    async with connected(app, kind, contexts) as client:
        with trio.move_on_after(60):
            await client.send(get("/", "Content-Length: 1000", method="POST"))
            for _ in range(5):
                await client.send(b"x")
                await trio.sleep(0.05)
            # The echo has begun.
            assert (await client.head())[0] == 200
            rest = await client.rest()
            assert not rest.endswith(b"0\r\n\r\n")
    app = new_app(attrs.evolve(LASTING, body=0.3))

    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] == "http.request":
            pass

    app.mount("/", application(read))
    async with connected(app, kind, contexts) as client:
        await client.send(get("/", "Content-Length: 1000", method="POST"))
        assert (await client.answer())[0] == 408


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


# Stopping


async def test_the_drain_waits_for_answers_and_closes_idle_connections_at_once(
    kind: str, contexts: Contexts
) -> None:
    go_on = trio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"be", more=True))
        await go_on.wait()
        await send(body(b"gun"))

    app = new_app(attrs.evolve(LASTING, drain=30.0))
    app.mount("/", application(slow))
    async with app.running(), port(kind, contexts, app) as served:
        async with served.connect() as client, served.connect() as idle:
            await idle.send(get("/ours"))
            assert await idle.answer() == (200, b"ours")
            await client.send(get("/"))
            _, fields = await client.head()
            assert await client.chunk() == b"be"
            served.server.stop()
            assert await idle.at_end()
            assert not served.server.stopped
            go_on.set()
            assert await client.content(fields) == b"gun"
            assert await client.at_end()
        await served.server.wait_stopped()


async def test_the_end_of_the_drain_cancels_what_still_answers(kind: str, contexts: Contexts) -> None:
    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/begun":
            await send(start())
            await send(body(b"be", more=True))
        if scope["path"] == "/after":
            await send(start())
            await send(body(b"answered"))
        await trio.sleep_forever()

    app = new_app()
    app.mount("/", application(endless))
    async with app.running(), port(kind, contexts, app) as served:
        async with served.connect() as begun, served.connect() as silent, served.connect() as after:
            await begun.send(get("/begun"))
            _, fields = await begun.head()
            assert await begun.chunk() == b"be"
            await silent.send(get("/silent"))
            await after.send(get("/after"))
            assert await after.answer() == (200, b"answered")
            served.server.stop()
            assert (await silent.answer())[0] == 503
            assert fields["transfer-encoding"] == "chunked"
            assert await begun.rest() == b""
        await served.server.wait_stopped()


async def test_mounts_in_memory_are_like_those_on_sockets() -> None:
    app: App = new_app()
    app.mount("/api", application(echo))
    assert (await request(app, "POST", "/api/x", body="hello")).text == "hello"
    assert (await request(app, "GET", "/elsewhere")).status == 404
