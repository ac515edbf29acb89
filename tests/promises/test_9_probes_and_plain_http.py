"""Promise 9: a probe leaves nothing behind, and plain HTTP gets a proper answer and a closed connection."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import pytest
import trio

from tests.promises.rawclient import (
    PING,
    PONG,
    TEXT,
    Answer,
    Client,
    End,
    close_frame,
    frame,
    parse_answer,
    upgrade_request,
)
from tests.promises.stage import PATIENT, QUICK, Journal, Stage, new_app, tasks_alive, tasks_at_rest
from tests.waiting import until
from wsframework import App, Connection, Reject, Request, Response


def site() -> App:
    app = new_app()

    @app.http("/health")
    async def health(request: Request) -> str:
        return "fine\n"

    @app.http("/items/{number:int}", methods=["GET", "DELETE"])
    async def item(request: Request, number: int) -> Response:
        return Response.json({"number": number, "query": dict(request.query)}, headers={"X-Kind": "item"})

    @app.http("/gone")
    async def gone(request: Request) -> Response:
        return Response(status=204)

    @app.websocket("/echo")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    return app


def request(target: str, method: str = "GET", *fields: str) -> str:
    return "\r\n".join(
        [f"{method} {target} HTTP/1.1", "Host: test.invalid", *fields, "Connection: close", "", ""]
    )


@pytest.mark.parametrize("leave", [Client.vanish, Client.reset], ids=["FIN", "RST"])
@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"], ids=len)
async def test_200_probes_leave_no_task_and_no_line_in_the_log(
    stage: Stage, journal: Journal, leave: Callable[[Client], None], said: bytes
) -> None:
    server = await stage.serve(site())
    before = await tasks_at_rest()
    for _ in range(200):
        client = await stage.dial(server)
        if said:
            await client.send(said)
        leave(client)
    await until(lambda: server.statistics().accepted == 200)
    await trio.sleep(0.1)
    assert tasks_alive() == before
    assert server.statistics().connections == 0
    assert journal.events(least=logging.INFO) == ["server.listening"]


async def test_probes_that_stay_cost_no_task_each_in_the_hub(stage: Stage) -> None:
    # Over Trio's streams, each needs a task that reads it.
    tasks_each = 1 if stage.transport == "stream" else 0
    server = await stage.serve(site())
    before = await tasks_at_rest()
    for _ in range(50):
        await stage.dial(server)
    await until(lambda: server.statistics().connections == 50)
    assert tasks_alive() == before + 50 * tasks_each


async def test_a_page_gets_200_its_body_and_the_end_of_the_connection(stage: Stage) -> None:
    server = await stage.serve(site())
    answer = await stage.ask(server, request("/health"))
    assert (answer.status, answer.body, answer.end) == (200, b"fine\n", End.FIN)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-length"] == "5"
    assert answer.headers["connection"] == "close"
    assert "date" in answer.headers
    answer = await stage.ask(server, request("/items/7?colour=red"))
    assert json.loads(answer.body) == {"number": 7, "query": {"colour": "red"}}
    assert answer.headers["x-kind"] == "item"


async def test_head_gets_the_fields_of_get_and_no_body(stage: Stage) -> None:
    server = await stage.serve(site())
    get = await stage.ask(server, request("/health"))
    head = await stage.ask(server, request("/health", "HEAD"))
    assert (head.status, head.body, head.end) == (200, b"", End.FIN)
    assert {**head.headers, "date": ""} == {**get.headers, "date": ""}
    for target, status in (("/nothing", 404), ("/echo", 426)):
        answer = await stage.ask(server, request(target, "HEAD"))
        assert (answer.status, answer.body) == (status, b"")
        assert int(answer.headers["content-length"]) > 0


async def test_an_answer_without_content_has_none(stage: Stage) -> None:
    server = await stage.serve(site())
    answer = await stage.ask(server, request("/gone"))
    assert (answer.status, answer.body) == (204, b"")
    assert "content-length" not in answer.headers


async def test_an_unknown_path_gets_404(stage: Stage) -> None:
    server = await stage.serve(site())
    for text in (request("/nothing"), request("/items/seven"), upgrade_request("/nothing").decode()):
        answer = await stage.ask(server, text)
        assert (answer.status, answer.end) == (404, End.FIN)
        assert answer.body


async def test_a_method_that_a_page_does_not_answer_gets_405_and_allow(stage: Stage) -> None:
    server = await stage.serve(site())
    answer = await stage.ask(server, request("/items/7", "PUT", "Content-Length: 0"))
    assert (answer.status, answer.end) == (405, End.FIN)
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "DELETE"}
    answer = await stage.ask(server, request("/echo", "POST", "Content-Length: 0"))
    assert answer.status == 405
    assert answer.headers["allow"] == "GET"


async def test_a_plain_get_of_a_websocket_gets_426_and_upgrade(stage: Stage) -> None:
    server = await stage.serve(site())
    answer = await stage.ask(server, request("/echo"))
    assert (answer.status, answer.end) == (426, End.FIN)
    assert answer.headers["upgrade"] == "websocket"
    assert answer.headers["sec-websocket-version"] == "13"
    assert "upgrade" in answer.headers["connection"].lower()


async def test_a_wrong_version_gets_426_with_the_right_one(stage: Stage) -> None:
    server = await stage.serve(site())
    text = upgrade_request("/echo").decode().replace("Version: 13", "Version: 12")
    answer = await stage.ask(server, text)
    assert (answer.status, answer.headers["sec-websocket-version"]) == (426, "13")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("hello\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET /health HTTP/1.1\r\nHost: a\r\nBad Name: b\r\n\r\n", 400),
        ("GET /he alth HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (request("/echo", "GET", "Upgrade: websocket"), 426),
        (request("/echo", "GET", "Upgrade: websocket", "Connection: Upgrade"), 426),
        (upgrade_request("/echo", b"short").decode(), 400),
        ("GET /health HTTP/1.0\r\n\r\n", 200),
        (request("http://test.invalid/health"), 200),
        (request("//health"), 404),
        (request("*", "OPTIONS"), 404),
        (request("test.invalid:80", "CONNECT"), 404),
        (request("http://test.invalid?no=path"), 404),
        # A host as in Host, which it replaces.
        (request("http://[::1/health"), 400),
        (request("/health%00%ff"), 404),
        ("\r\n" + request("/health"), 200),
        ("\r\n\r\n" + request("/health"), 400),
        (request("/health").replace("test.invalid", "x/y"), 400),
        (request("/health").replace("test.invalid", "a@x"), 400),
        (upgrade_request("/echo").decode().replace("test.invalid", "a@x"), 400),
        (upgrade_request("/echo", headers=[("Origin", "http://a"), ("Origin", "http://a")]).decode(), 400),
    ],
)
async def test_strange_requests_get_a_proper_answer_and_no_line_above_debug(
    stage: Stage, journal: Journal, text: str, status: int
) -> None:
    server = await stage.serve(site())
    answer = await stage.ask(server, text.encode("latin-1"))
    assert (answer.status, answer.end) == (status, End.FIN)
    assert journal.events(least=logging.INFO) == ["server.listening"]


async def test_a_body_that_nobody_reads_does_not_cost_the_client_its_answer(stage: Stage) -> None:
    server = await stage.serve(site())
    client = await stage.dial(server)
    size = 4 * 1024 * 1024
    await client.send(request("/nothing", "POST", f"Content-Length: {size}").encode(), bytes(size))
    answer = parse_answer(await client.read_all(), client.end)
    assert (answer.status, answer.end) == (404, End.FIN)


def guarded_app() -> App:
    app = new_app(timeouts=QUICK)

    @app.guard
    async def returns(request: Request) -> Response | None:
        if request.path == "/returns":
            return Response("who are you?\n", 401, {"WWW-Authenticate": 'Basic realm="chat"'})
        return None

    @app.guard
    async def raises(request: Request) -> None:
        if request.path == "/raises":
            raise Reject(401, "who are you?\n", {"WWW-Authenticate": 'Basic realm="chat"'})

    @app.websocket("/{way}")
    async def handler(ws: Connection, way: str) -> None:
        raise AssertionError("it must not begin")

    return app


@pytest.mark.parametrize("path", ["/returns", "/raises"])
async def test_a_guards_401_has_status_headers_and_body_and_then_tcp_ends(stage: Stage, path: str) -> None:
    server = await stage.serve(guarded_app())
    client = await stage.dial(server)
    # Frames too, from a client that was sure to get in.
    answer = await client.upgrade(path, behind=frame(TEXT, "hello") * 100)
    assert (answer.status, answer.body, client.end) == (401, b"who are you?\n", End.FIN)
    assert answer.headers["www-authenticate"] == 'Basic realm="chat"'
    assert answer.headers["content-type"].startswith("text/plain")
    # The client still keeps its side open, and the server's socket goes all the same.
    await until(lambda: not server.statistics().connections)


async def test_after_a_refusal_eof_comes_at_once_though_the_client_keeps_its_side_open(
    stage: Stage,
) -> None:
    server = await stage.serve(new_app())
    start = trio.current_time()
    answer = await stage.ask(server, upgrade_request("/nowhere"))
    assert (answer.status, answer.end) == (404, End.FIN)
    assert trio.current_time() - start < PATIENT.close / 2


async def test_frames_right_behind_the_upgrade_request_are_frames(stage: Stage) -> None:
    server = await stage.serve(site())
    torn = frame(TEXT, "a bird")
    client = await stage.connect(server, "/echo", behind=frame(TEXT, "early") + frame(PING, "p") + torn[:7])
    received = [await client.next_frame(), await client.next_frame()]
    assert {(found.opcode, found.payload) for found in received} == {(TEXT, b"early"), (PONG, b"p")}
    await client.send(torn[7:])
    assert await client.next_text() == "a bird"
    await client.close_well()


async def test_a_whole_conversation_right_behind_the_upgrade_request_is_answered(stage: Stage) -> None:
    server = await stage.serve(site())
    client = await stage.connect(server, "/echo", behind=frame(TEXT, "hello") + close_frame(1000))
    frames = await client.read_to_end()
    assert frames[0].text == "hello"
    assert [found.close_code for found in frames[1:]] == [1000]
    assert client.end is End.FIN


async def test_two_requests_on_one_connection_get_one_answer(stage: Stage) -> None:
    server = await stage.serve(site())
    answer: Answer = await stage.ask(server, request("/health") * 2)
    assert (answer.status, answer.body, answer.end) == (200, b"fine\n", End.FIN)
