"""Who is let in, to whom, and what the others are told."""

from __future__ import annotations

import contextlib

import pytest
import trio
import trio_websocket

from tests.contract.differences import Difference
from tests.contract.hosts import TIMEOUTS, Host, Served, new_app
from wsframework import App, Connection, Deflate, DeflateParameters, Limits, Reject, Request, Response


def named(name: str, app: App, path: str, subprotocols: tuple[str, ...] = ()) -> None:
    @app.websocket(path, subprotocols=subprotocols)
    async def handler(ws: Connection) -> None:
        await ws.send(f"{name}: {ws.subprotocol}")


async def refused(served: Served, path: str = "/", **handshake: object) -> trio_websocket.ConnectionRejected:
    with pytest.raises(trio_websocket.ConnectionRejected) as caught:
        async with served.connect(path, **handshake):  # type: ignore[arg-type]
            pass
    return caught.value


@pytest.mark.parametrize(
    ("offered", "answer"),
    [
        (["chat"], "chats: chat"),
        (["superchat"], "chats: superchat"),
        (["chat", "superchat"], "chats: chat"),
        (["superchat", "chat"], "chats: superchat"),
        (["json"], "json: json"),
        (["json", "chat"], "json: json"),
        (["unknown", "json"], "json: json"),
        (["unknown"], "any: None"),
        ([], "any: None"),
    ],
)
async def test_the_first_subprotocol_offered_that_has_a_handler_wins(
    host: Host, offered: list[str], answer: str
) -> None:
    app = new_app()
    named("chats", app, "/", ("chat", "superchat"))
    named("json", app, "/", ("json",))
    named("any", app, "/")
    async with host.serve(app) as served, served.connect(subprotocols=offered) as client:
        assert await client.receive() == answer
        assert str(client.subprotocol) == answer.partition(": ")[2]


@pytest.mark.parametrize("offered", [[], ["unknown"]])
async def test_without_a_subprotocol_that_fits_the_answer_names_those_that_do(
    host: Host, offered: list[str]
) -> None:
    app = new_app()
    named("chats", app, "/", ("chat", "superchat"))
    async with host.serve(app) as served:
        rejected = await refused(served, subprotocols=offered)
    assert rejected.status_code == 400
    assert b"chat, superchat" in (rejected.body or b"")


async def test_path_parameters_are_the_handlers_arguments(host: Host) -> None:
    app = new_app()

    @app.websocket("/rooms/{room}/{seat:int}")
    async def sit(ws: Connection, room: str, seat: int) -> None:
        await ws.send(f"{room!r} {seat!r} {ws.request.query['name']}")

    async with host.serve(app) as served, served.connect("/rooms/a%20b/7?name=J%C3%B6rg") as client:
        assert await client.receive() == "'a b' 7 Jörg"


async def test_an_unknown_path_is_404(host: Host) -> None:
    app = new_app()
    named("any", app, "/")
    async with host.serve(app) as served:
        rejected = await refused(served, "/nowhere")
    assert rejected.status_code == 404
    assert b"/nowhere" in (rejected.body or b"")


async def test_the_handler_sees_the_opening_handshake(host: Host) -> None:
    app = new_app()
    requests: list[Request] = []

    @app.websocket("/")
    async def look(ws: Connection) -> None:
        requests.append(ws.request)

    async with (
        host.serve(app) as served,
        served.connect("/?a=1", subprotocols=["x", "y"], headers=[("X-Token", "secret")]) as client,
    ):
        await client.wait_closed()
        [request] = requests
        assert request.target == "/?a=1"
        assert request.subprotocols == ("x", "y")
        assert request.headers["x-token"] == "secret"
        assert request.host == served.authority
        assert request.is_websocket


@pytest.mark.parametrize("raising", [False, True], ids=["returned", "raised"])
async def test_a_guard_refuses_with_a_status_headers_and_a_body_of_its_choice(
    host: Host, raising: bool
) -> None:
    app = new_app()
    called: list[Connection] = []

    @app.guard
    async def ask_for_a_token(request: Request) -> Response | None:
        if request.headers.get("authorization") == "Bearer good":
            return None
        headers = {"WWW-Authenticate": "Bearer", "X-Reason": "no token"}
        if raising:
            raise Reject(401, "who are you?", headers)
        return Response("who are you?", 401, headers)

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        called.append(ws)

    async with host.serve(app) as served:
        rejected = await refused(served)
        assert rejected.status_code == 401
        headers = dict(rejected.headers)
        assert headers[b"www-authenticate"] == b"Bearer"
        assert headers[b"x-reason"] == b"no token"
        assert rejected.body == b"who are you?"
        assert not called
        async with served.connect(headers=[("Authorization", "Bearer good")]) as client:
            assert (await client.wait_closed()).code == 1000
        assert len(called) == 1


async def test_a_guard_that_crashes_refuses_with_500_and_the_server_goes_on(host: Host) -> None:
    app = new_app()
    named("any", app, "/")
    broken = True

    @app.guard
    async def crash(request: Request) -> None:
        if broken:
            raise ZeroDivisionError

    async with host.serve(app) as served:
        rejected = await refused(served)
        assert rejected.status_code == 500
        assert b"ZeroDivisionError" not in (rejected.body or b"")
        broken = False
        async with served.connect() as client:
            assert await client.receive() == "any: None"


async def test_after_a_refusal_tcp_ends(host: Host) -> None:
    app = new_app()
    async with host.serve(app) as served:
        answer = await served.exchange(handshake(served, "/nowhere"))
    assert answer.startswith(b"HTTP/1.1 404")


def handshake(served: Served, path: str, *fields: str) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {served.authority}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *fields,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost.evil.example"])
async def test_a_foreign_origin_is_403(host: Host, origin: str) -> None:
    app = new_app()
    named("any", app, "/")
    async with host.serve(app) as served:
        rejected = await refused(served, origin=origin)
    assert rejected.status_code == 403


@pytest.mark.parametrize("origin", ["own", None, "https://friend.example"])
async def test_ones_own_origin_no_origin_and_an_allowed_origin_are_let_in(
    host: Host, origin: str | None
) -> None:
    app = App(origins=["https://friend.example"])
    named("any", app, "/")
    async with host.serve(app) as served:
        # Where TLS ends at the server, its own pages are https and nothing else.
        scheme = "https" if "tls" in host.name else "http"
        chosen = f"{scheme}://{served.authority}" if origin == "own" else origin
        async with served.connect(origin=chosen) as client:
            assert await client.receive() == "any: None"


async def test_a_route_may_have_an_allow_list_of_its_own(host: Host) -> None:
    app = new_app()

    @app.websocket("/open", origins="*")
    async def handler(ws: Connection) -> None:
        await ws.send("hi")

    async with host.serve(app) as served, served.connect("/open", origin="http://any.example") as client:
        assert await client.receive() == "hi"


async def test_a_plain_get_of_a_websocket_is_426(host: Host) -> None:
    app = new_app()
    named("any", app, "/")
    async with host.serve(app) as served:
        answer = await served.get("/")
    if host.differs(Difference.SPEAKS_NO_HTTP):
        assert answer.startswith(b"HTTP/1.1 400")
    else:
        assert answer.startswith(b"HTTP/1.1 426")


async def test_pages_are_answered_on_the_same_port(host: Host) -> None:
    app = new_app()

    @app.http("/health")
    async def health(request: Request) -> str:
        return "fine"

    async with host.serve(app) as served:
        answer = await served.get("/health")
    if host.differs(Difference.SPEAKS_NO_HTTP):
        assert answer.startswith(b"HTTP/1.1 400")
    else:
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"\r\n\r\nfine")


@pytest.mark.parametrize(
    ("field", "status"),
    [("Origin: https://evil.example", 403), ("Sec-Fetch-Site: cross-site", 403), ("X: y", 200)],
)
async def test_a_foreign_page_changes_nothing_and_no_answer_lets_a_browser_guess_its_type(
    host: Host, field: str, status: int
) -> None:
    app = new_app()

    @app.http("/form", methods=["POST"])
    async def form(request: Request) -> str:
        return "changed"

    async with host.serve(app) as served:
        head = f"POST /form HTTP/1.1\r\nHost: {served.authority}\r\n{field}\r\n"
        head += "Content-Length: 0\r\nConnection: close\r\n\r\n"
        answer = await served.exchange(head.encode())
    if host.differs(Difference.SPEAKS_NO_HTTP):
        assert b"changed" not in answer
    else:
        assert answer.startswith(f"HTTP/1.1 {status}".encode())
        assert answer.count(b"X-Content-Type-Options: nosniff\r\n") == 1


async def test_a_head_past_the_limit_is_431(host: Host) -> None:
    app = new_app(limits=Limits(head_bytes=4096))
    named("any", app, "/")
    async with host.serve(app) as served:
        opening = handshake(served, "/", f"X-Long: {'x' * 8192}")
        assert (await served.exchange(opening)).startswith(b"HTTP/1.1 431")


async def test_the_limit_of_a_head_may_be_raised(host: Host) -> None:
    app = new_app(limits=Limits(head_bytes=64 * 1024))
    named("any", app, "/")
    async with host.serve(app) as served:
        opening = handshake(served, "/", f"X-Long: {'x' * 30_000}")
        if host.differs(Difference.CAPS_HEADS):
            # It does not read what it refuses, and the reset that this makes may overtake the 400.
            with contextlib.suppress(trio.BrokenResourceError):
                assert (await served.exchange(opening)).startswith(b"HTTP/1.1 400 ")
        else:
            assert (await served.exchange(opening)).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    ("offer", "wanted", "agreed"),
    [
        (
            "permessage-deflate; server_max_window_bits=10; client_no_context_takeover",
            Deflate(),
            DeflateParameters(False, True, 10, 15),
        ),
        ("permessage-deflate", None, None),
        ("x-other", Deflate(), None),
    ],
)
async def test_compression_is_agreed_to_when_both_want_it_and_the_handler_sees_what_was_agreed(
    host: Host, offer: str, wanted: Deflate | None, agreed: DeflateParameters | None
) -> None:
    app = App(compression=wanted, timeouts=TIMEOUTS)
    seen: list[DeflateParameters | None] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        seen.append(ws.compression)
        await ws.send("hi")
        async for _ in ws:
            pass
        seen.append(ws.compression)

    async with host.serve(app) as served, await served.open_stream() as stream:
        await stream.send_all(handshake(served, "/", f"Sec-WebSocket-Extensions: {offer}"))
        answer = b""
        with trio.fail_after(30):
            while b"\r\n\r\n\x81\x02hi" not in answer:
                answer += await stream.receive_some()
        assert (b"permessage-deflate" in answer) is (agreed is not None)
        assert seen == [agreed]
        await stream.aclose()
        with trio.fail_after(30):
            while len(seen) < 2:  # noqa: ASYNC110
                await trio.sleep(0.01)
    assert seen == [agreed, agreed]
