from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.asking import Wrapper, accepted, answered, events, guarded, handler, plain, public_page, upgrade
from tests.fake_transport import connect
from wsframework.app import App
from wsframework.config import Deflate
from wsframework.connection import Connection
from wsframework.errors import ConfigurationError, Reject
from wsframework.request import Request, Response
from wsframework.session import Acceptance, CrashResponse

# Which handler


async def test_a_handler_gets_the_connection_and_the_paths_parameters_by_name() -> None:
    app = App()
    calls: list[Any] = []

    @app.websocket("/rooms/{room}/{id:int}")
    async def talk(ws: Connection, *, id: int, room: str) -> None:
        calls.append((ws, room, id))

    acceptance = await accepted(app, upgrade("/rooms/a%20b/7?x=1"))
    ws = connect().connection
    await acceptance.handler(ws)
    assert calls == [(ws, "a b", 7)]
    assert acceptance.name.endswith("talk")


async def test_without_parameters_the_handler_itself_is_called() -> None:
    app = App()
    app.websocket("/ws")(handler)
    acceptance = await accepted(app, upgrade())
    assert acceptance.handler is handler
    assert (acceptance.subprotocol, acceptance.headers, acceptance.name) == (None, (), "handler")


@pytest.mark.parametrize(
    ("offered", "subprotocol"),
    [
        (["chat"], "chat"),
        (["draw", "chat"], "draw"),
        (["soap", "superchat"], "superchat"),
        (["soap"], None),
        ([], None),
    ],
)
async def test_the_clients_first_offer_with_a_handler_is_agreed_on(
    offered: list[str], subprotocol: str | None
) -> None:
    app = App()
    app.websocket("/ws", subprotocols=["chat", "superchat"])(handler)
    app.websocket("/ws", subprotocols=["draw"])(handler)
    app.websocket("/ws")(handler)
    assert (await accepted(app, upgrade("/ws", *offered))).subprotocol == subprotocol


@pytest.mark.parametrize(("offered", "said"), [((), "none"), (("soap", "s3cret.t0ken"), "others")])
async def test_without_a_common_subprotocol_400_says_which_there_are(
    offered: tuple[str, ...], said: str
) -> None:
    app = App()
    app.websocket("/ws", subprotocols=["chat"])(handler)
    app.websocket("/ws", subprotocols=["draw"])(handler)
    response = await answered(app, upgrade("/ws", *offered))
    assert response.status == 400
    assert "/ws speaks the subprotocols chat, draw; the client offered " + said in response.body.decode()
    # A browser has no other field for a bearer token, and an answer ends up in consoles and logs.
    assert not [name for name in offered if name in response.body.decode()]


async def test_the_routes_own_compression_counts_before_the_apps() -> None:
    strong, light = Deflate(level=9), Deflate(level=1)
    app = App(compression=strong)
    app.websocket("/app")(handler)
    app.websocket("/own", compression=light)(handler)
    app.websocket("/off", compression=None)(handler)
    app.websocket("/same", compression="app")(handler)
    paths = ("/app", "/same", "/own", "/off")
    assert [(await accepted(app, upgrade(path))).compression for path in paths] == [
        strong,
        strong,
        light,
        None,
    ]
    plain_app = App()
    plain_app.websocket("/ws")(handler)
    assert (await accepted(plain_app, upgrade())).compression is None


# HTTP


def site() -> App:
    app = App()
    app.websocket("/ws")(handler)

    @app.http("/page/{name}")
    async def page(request: Request, name: str) -> str:
        return f"{request.method} {name}"

    @app.http("/form", methods=["post", "put"])
    async def form(request: Request) -> Response:
        return Response.json({"done": True}, 201)

    @app.http("/data", methods="DELETE")
    async def data(request: Request) -> bytes:
        return b"gone"

    return app


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (plain("/page/a%20b"), 200, "GET a b"),
        (plain("/page/x", "HEAD"), 200, "HEAD x"),
        (plain("/form", "POST"), 201, '{"done": true}'),
        (plain("/form", "PUT"), 201, '{"done": true}'),
        (plain("/data", "DELETE"), 200, "gone"),
        (plain("/nothing"), 404, "404 Not Found: there is nothing at /nothing\n"),
        (upgrade("/nothing"), 404, "404 Not Found: there is nothing at /nothing\n"),
        (upgrade("/page/x"), 404, "404 Not Found: /page/x answers plain HTTP, not WebSocket\n"),
        (plain("/page/x", "POST"), 405, "405 Method Not Allowed: /page/x answers GET, HEAD\n"),
        (plain("/form", "GET"), 405, "405 Method Not Allowed: /form answers POST, PUT\n"),
        (plain("/ws", "POST"), 405, "405 Method Not Allowed: /ws is a WebSocket; it answers GET\n"),
        (plain("/ws"), 426, "426 Upgrade Required: /ws is a WebSocket: connect with a WebSocket client\n"),
        (plain("/ws", "HEAD"), 426, None),
    ],
)
async def test_http_gets_a_proper_answer(request_: Request, status: int, body: str | None) -> None:
    response = await answered(site(), request_)
    assert response.status == status
    assert body is None or response.body.decode() == body


async def test_refused_methods_and_protocols_say_what_is_allowed() -> None:
    app = site()
    assert (await answered(app, plain("/page/x", "POST"))).headers["Allow"] == "GET, HEAD"
    assert (await answered(app, plain("/ws", "POST"))).headers["Allow"] == "GET"
    required = await answered(app, plain("/ws"))
    assert required.headers["Upgrade"] == "websocket"
    assert required.headers["Connection"] == "Upgrade"
    assert required.headers["Sec-WebSocket-Version"] == "13"


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (None, "an HTTP handler returns a Response, str or bytes, not NoneType"),
        (404, "an HTTP handler returns a Response, str or bytes, not int"),
        (ValueError("broken page"), "broken page"),
        (Reject(401, headers={"X-Bad": "a\r\nb"}), "X-Bad: a header field value is"),
    ],
)
async def test_a_page_that_fails_is_500_and_says_what_it_raised(result: object, why: str) -> None:
    app = App()

    @app.http("/page")
    async def page(request: Request) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    response = await answered(app, plain("/page"))
    assert response.status == 500
    assert why not in response.body.decode()
    assert isinstance(response, CrashResponse)
    assert response.where == "handler"
    assert response.name.endswith("page")
    assert why in str(response.exception)


async def test_a_page_may_reject_too(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.http("/page")
    async def page(request: Request) -> str:
        raise Reject(410, "gone for good", {"X-Why": "old"})

    response = await answered(app, plain("/page"))
    assert (response.status, response.body, response.headers["X-Why"]) == (410, b"gone for good", "old")
    assert caplog.records == []


async def test_a_decorator_in_front_of_a_page_may_reject_before_it_is_awaited() -> None:
    app = App()

    async def page(request: Request) -> str:
        return "hello"

    @functools.wraps(page)
    def refusing(request: Request) -> Any:
        raise Reject(403)

    app.http("/page")(refusing)
    assert (await answered(app, plain("/page"))).status == 403


# What is logged once


async def test_what_is_logged_once_is_so_for_each_handler_whatever_its_name_and_paths() -> None:
    def make() -> Callable[[Connection], Awaitable[object]]:
        async def handler(ws: Connection) -> object:
            return 42

        return handler

    app = App()
    one, other = make(), make()
    app.websocket("/one")(one)
    app.websocket("/one/again")(one)
    app.websocket("/other")(other)
    first, again, second = [await accepted(app, upgrade(path)) for path in ("/one", "/one/again", "/other")]
    assert first.told is again.told
    assert first.told is not second.told
    assert (await accepted(app, upgrade("/one"))).told is first.told


# Hosts


def hosted(allowed: Any) -> App:
    app = App(allowed_hosts=allowed)
    app.websocket("/ws")(handler)
    app.http("/page")(public_page)
    return app


async def test_a_host_that_is_not_allowed_is_421_for_upgrades_and_pages_alike(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    app = hosted(["chat.example", "*.example.org"])
    await accepted(app, upgrade(host="chat.example"))
    await accepted(app, upgrade(host="chat.example:8443", origin="https://chat.example:8443"))
    await accepted(app, upgrade(host="a.example.org"))
    for request in [
        upgrade(host="evil.example", origin="http://evil.example"),
        upgrade("/nothing", host="evil.example"),
        upgrade(host="example.org"),
        upgrade(),
        Request("/page", {"host": "evil.example"}, is_websocket=False),
        Request("http://evil.example/ws", {"host": "chat.example"}),
    ]:
        response = await answered(app, request)
        assert response.status == 421
        assert "--allow-host" in response.body.decode()
        assert "allowed_hosts" in response.body.decode()
    assert set(events(caplog)) == {"host.refused"}


async def test_the_target_of_absolute_form_counts_before_the_host_field() -> None:
    await accepted(hosted("chat.example"), Request("http://chat.example/ws", {"host": "evil.example"}))


async def test_the_hint_of_a_421_names_the_host_without_its_port_and_nothing_that_is_none() -> None:
    app = hosted("chat.example")
    for host, named in [("evil.example:81", "--allow-host evil.example "), ("<b>", "--allow-host NAME ")]:
        assert named in (await answered(app, upgrade(host=host))).body.decode()


async def test_every_host_is_allowed_unless_some_are_named() -> None:
    await accepted(hosted(None), upgrade(host="evil.example"))
    await accepted(hosted("*"), upgrade(host="evil.example"))


@pytest.mark.parametrize("allowed", [[], ["https://chat.example"], ["chat.example/"], [""], [None]])
def test_hosts_that_are_none_are_refused_when_the_app_is_made(allowed: Any) -> None:
    with pytest.raises(ConfigurationError, match="host"):
        App(allowed_hosts=allowed)


# Origins


async def test_a_foreign_origin_is_403_before_any_guard_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsframework")

    async def unexpected(request: Request) -> None:
        raise AssertionError("nobody asks me")

    response = await answered(guarded(unexpected), upgrade(host="example.com", origin="https://evil.example"))
    assert response.status == 403
    assert b"pages from https://evil.example may not connect here" in response.body
    assert events(caplog) == ["origin.refused"]
    assert caplog.records[0].__dict__["fields"] == {"path": "/ws", "origin": "https://evil.example"}


@pytest.mark.parametrize(
    ("path", "origin", "allowed"),
    [
        ("/app", "https://app.example", True),
        ("/app", "https://own.example", False),
        ("/own", "https://own.example", True),
        ("/own", "https://app.example", False),
        ("/all", "https://any.example", True),
        ("/shut", "https://app.example", False),
        ("/shut", "https://example.com", True),
    ],
)
async def test_the_routes_own_allow_list_counts_before_the_apps(
    path: str, origin: str, allowed: bool
) -> None:
    app = App(origins=["https://app.example"])
    app.websocket("/app")(handler)
    app.websocket("/own", origins=["https://own.example"])(handler)
    app.websocket("/all", origins="*")(handler)
    app.websocket("/shut", origins=[])(handler)
    decision = await app.decide(upgrade(path, host="example.com", origin=origin))
    assert isinstance(decision, Acceptance) is allowed


def changing(**origins: Any) -> App:
    app = App(**origins)

    async def unexpected(request: Request) -> Response | None:
        return Response("the guard was called", 401)

    @app.http("/app", methods=["GET", "POST"], guards=[unexpected])
    @app.http("/own", methods=["GET", "POST"], guards=[unexpected], origins=["https://own.example"])
    @app.http("/all", methods=["POST"], guards=[unexpected], origins="*")
    @app.http("/shut", methods=["POST"], guards=[unexpected], origins=[])
    async def page(request: Request) -> str:
        raise AssertionError("the guard refuses")

    return app


@pytest.mark.parametrize(
    ("method", "path", "origin", "status"),
    [
        ("POST", "/app", "https://app.example", 401),
        ("POST", "/app", "https://example.com", 401),
        ("POST", "/app", "https://own.example", 403),
        ("GET", "/app", "https://own.example", 401),
        ("POST", "/own", "https://own.example", 401),
        ("POST", "/own", "https://app.example", 403),
        ("POST", "/all", "https://any.example", 401),
        ("POST", "/shut", "https://app.example", 403),
        ("POST", "/shut", "https://example.com", 401),
        # What is not there is not refused, and has nothing to protect.
        ("POST", "/nothing", "https://evil.example", 404),
        ("PUT", "/app", "https://evil.example", 405),
    ],
)
async def test_a_change_from_a_foreign_page_is_403_before_any_guard_is_called(
    method: str, path: str, origin: str, status: int
) -> None:
    request = Request(path, {"Host": "example.com", "Origin": origin}, method=method, is_websocket=False)
    assert (await answered(changing(origins=["https://app.example"]), request)).status == status


@pytest.mark.parametrize(
    ("fields", "who", "logged"),
    [
        ({"Origin": "https://evil.example"}, "https://evil.example", {"origin": "https://evil.example"}),
        ({"Sec-Fetch-Site": "cross-site"}, "other sites", {}),
    ],
)
async def test_a_refused_change_says_which_pages_may_not_send_it(
    fields: dict[str, str], who: str, logged: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wsframework")
    request = Request("/app", {"Host": "example.com", **fields}, method="POST", is_websocket=False)
    response = await answered(changing(), request)
    assert response.body.decode() == f"403 Forbidden: pages from {who} may not send POST here\n"
    assert events(caplog) == ["origin.refused"]
    assert caplog.records[0].__dict__["fields"] == {"path": "/app", **logged}


# Wrappers


async def test_wrappers_are_entered_in_order_around_the_handler_and_left_in_reverse() -> None:
    log: list[str] = []
    app = App()
    app.wrap(Wrapper("outer", log))
    app.wrap(Wrapper("inner", log))

    @app.websocket("/{room}")
    async def talk(ws: Connection, room: str) -> None:
        log.append(f"handler in {room}")

    acceptance = await accepted(app, upgrade("/chat"))
    assert log == []
    assert acceptance.name.endswith("talk")
    await acceptance.handler(connect().connection)
    assert log == [
        "outer entered for /chat",
        "inner entered for /chat",
        "handler in chat",
        "inner left",
        "outer left",
    ]


async def test_wrappers_see_the_handlers_exception() -> None:
    log: list[str] = []
    app = App()
    app.wrap(Wrapper("outer", log))

    @app.wrap
    async def inner(ws: Connection) -> AsyncIterator[None]:
        try:
            yield
        except ValueError as error:
            raise LookupError("made of it") from error

    @app.websocket("/ws")
    async def talk(ws: Connection) -> None:
        raise ValueError("broken")

    acceptance = await accepted(app, upgrade())
    with pytest.raises(LookupError, match="made of it"):
        await acceptance.handler(connect().connection)
    assert log == ["outer entered for /chat", "outer saw LookupError('made of it')", "outer left"]


async def test_a_wrapper_that_fails_to_enter_keeps_the_handler_from_starting() -> None:
    log: list[str] = []
    app = App()
    app.wrap(Wrapper("outer", log))

    @app.wrap
    @asynccontextmanager
    async def broken(ws: Connection) -> AsyncIterator[None]:
        if ws.closed is None:
            raise ValueError("no database")
        yield

    @app.websocket("/ws")
    async def talk(ws: Connection) -> None:
        log.append("handler")

    acceptance = await accepted(app, upgrade())
    with pytest.raises(ValueError, match="no database"):
        await acceptance.handler(connect().connection)
    assert log == ["outer entered for /chat", "outer saw ValueError('no database')", "outer left"]


async def test_a_wrapper_registered_after_a_route_counts_for_it_too() -> None:
    log: list[str] = []
    app = App()
    app.websocket("/ws")(handler)
    app.wrap(Wrapper("late", log))
    await (await accepted(app, upgrade())).handler(connect().connection)
    assert log == ["late entered for /chat", "late left"]
