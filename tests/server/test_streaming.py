"""Bodies and answers in pieces, on the wire, of applications that are mounted."""

from __future__ import annotations

import logging

import attrs
import pytest
import trio

from tests.mounting.stage import (
    LASTING,
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
from wsframework import ObservedFrame, Observer, Request
from wsframework.mounting.worlds import Receive, Scope, Send


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


async def test_a_client_that_takes_too_little_is_given_up(
    kind: str, contexts: Contexts, caplog: pytest.LogCaptureFixture
) -> None:
    ended = trio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send(start())
            while True:
                await send(body(bytes(64 * 1024), more=True))
        finally:
            ended.set()

    app = new_app(attrs.evolve(LASTING, http=0.3))
    app.mount("/", application(endless))
    async with connected(app, kind, contexts) as client:
        await client.send(get("/"))
        await ended.wait()  # though the client is still there
        await client.send(b"")
    assert not [found for found in caplog.records if found.levelno >= logging.ERROR]


async def test_a_client_that_reads_slowly_gets_all(kind: str, contexts: Contexts) -> None:
    data = bytes(20_000_000)

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(data[:1], more=True))
        await send(body(data[1:]))

    app = new_app(attrs.evolve(LASTING, http=1.0, close=1.0))
    app.mount("/", application(large))
    async with connected(app, kind, contexts) as client:
        await client.send(get("/"))
        _, fields = await client.head()
        await trio.sleep(0.5)
        assert await client.content(fields) == data


async def test_a_client_that_only_ends_its_own_direction_gets_its_answer(contexts: Contexts) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            seen.append(message["type"])
        await send(start())
        await send(body(b"answer", more=True))
        await trio.sleep(0.05)
        await send(body(b"ed"))

    for kind in "hub", "stream":
        async with mounted_at("/", application(app), kind, contexts) as served, served.connect() as client:
            await client.send(post("/", "body"))
            assert isinstance(client.stream, trio.SocketStream)
            await client.stream.send_eof()
            assert await client.answer() == (200, b"answered")
            assert await client.at_end()


async def test_a_body_that_ends_too_early_is_no_body(kind: str, contexts: Contexts) -> None:
    seen = list[str]()

    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "http.request":
            pass
        seen.append(message["type"])

    async with mounted_at("/", application(read), kind, contexts) as served:
        async with served.connect() as client:
            await client.send(get("/", "Content-Length: 1000", method="POST") + b"half")
            await trio.testing.wait_all_tasks_blocked()
        await until(lambda: seen == ["http.disconnect"])


async def test_an_observed_transport_takes_content_for_no_frames(contexts: Contexts) -> None:
    class Frames(Observer):
        def __init__(self) -> None:
            self.seen: list[ObservedFrame] = []

        def frame_sent(self, request: Request, frame: ObservedFrame) -> None:
            self.seen.append(frame)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-length", b"8")))
        await send(body(b"\x88\x02\x03\xe8\xff", more=True))
        await send(body(b"\x89\x8a\xff"))

    for kind in "hub", "hub-tls", "stream":
        served = new_app()
        frames = served.observe(Frames())
        served.mount("/", application(app))
        async with connected(served, kind, contexts) as client:
            await client.send(get("/"))
            assert await client.answer() == (200, b"\x88\x02\x03\xe8\xff\x89\x8a\xff")
        assert frames.seen == []


async def test_a_request_that_comes_while_an_answer_is_written_is_not_lost(
    kind: str, contexts: Contexts
) -> None:
    data = bytes(8_000_000)

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await trio.testing.wait_all_tasks_blocked()  # until the server reads
        await send(start(200, (b"content-length", b"%d" % len(data))))
        await send(body(data))

    async with mounted_at("/", application(large), kind, contexts) as served, served.connect() as client:
        await client.send(get("/"))
        assert (await client.head())[0] == 200
        await trio.testing.wait_all_tasks_blocked()
        await client.send(get("/ours"))
        assert await client.exactly(len(data)) == data
        assert await client.answer() == (200, b"ours")


async def test_an_application_may_take_its_time_to_read_what_a_client_has_left(contexts: Contexts) -> None:
    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await trio.sleep(1.0)  # longer than any grace in these tests
        await echo(scope, receive, send)

    data = bytes(40_000)  # more than is read with the head, and less than the kernel takes
    for kind in "hub", "stream":
        async with mounted_at("/", application(late), kind, contexts) as served, served.connect() as client:
            await client.send(post("/", data))
            assert isinstance(client.stream, trio.SocketStream)
            await client.stream.send_eof()
            assert await client.answer() == (200, data)


class Neighbour:
    """A task that counts how often it has had its turn."""

    turns = 0

    async def run(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.turns += 1


async def test_tiny_pieces_leave_others_their_turns(kind: str, contexts: Contexts) -> None:
    neighbour = Neighbour()
    most, turns = 0, [0, 0]

    async def busy(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal most
        await send(start())
        await send(body(b"go", more=True))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(neighbour.run)
            while (message := await receive())["more_body"]:
                most = max(most, len(message["body"]))
                turns[0] += 1
            before = neighbour.turns
            for _ in range(320):
                await send(body(b"x", more=True))
            turns[1] = neighbour.turns - before
            nursery.cancel_scope.cancel()
        await send(body(b""))

    async with mounted_at("/", application(busy), kind, contexts) as served, served.connect() as client:
        await client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
        await client.head()
        assert await client.chunk() == b"go"
        await client.send(b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n")
        while await client.chunk():
            pass
    assert most <= 2048 / 6 + 1
    assert turns[0] >= 14
    assert turns[1] >= 9
