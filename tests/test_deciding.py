from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.asking import Wrapper, accepted, answered, events, handler, plain, upgrade
from tests.fake_transport import connect
from wsframework.app import App
from wsframework.config import Deflate, Timeouts
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
        (Reject(401, headers={"X-Bad": "a\r\nb"}), "not a header field"),
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


# Guards


def guarded(*guards: Any, own: Iterable[Any] = (), timeouts: Timeouts | None = None) -> App:
    app = App(timeouts=timeouts)
    for guard in guards:
        app.guard(guard)
    app.websocket("/ws", guards=own)(handler)
    return app


async def test_guards_are_asked_in_order_the_apps_before_the_routes() -> None:
    log: list[str] = []

    def guard(name: str) -> Any:
        async def ask(request: Request) -> None:
            log.append(f"{name} {request.path}")

        return ask

    app = guarded(guard("a"), guard("b"), own=[guard("c"), guard("d")])
    await accepted(app, upgrade())
    assert log == ["a /ws", "b /ws", "c /ws", "d /ws"]


async def test_a_routes_guard_gets_the_parameters_of_the_path_that_it_names() -> None:
    app, asked = App(), []

    async def members(request: Request, room: str) -> Response | None:
        asked.append(room)
        return None if room == "tea" else Response("members only", 403)

    async def adults(request: Request, *, age: int, legal: int = 18) -> Response | None:
        return None if age >= legal else Response("adults only", 403)

    @app.websocket("/{room}/{age:int}/{legal:int}", guards=[members, adults])
    async def talk(ws: Connection, room: str, age: int, legal: int) -> None: ...

    await accepted(app, upgrade("/tea/18/21"))
    assert (await answered(app, upgrade("/bar/18/21"))).body == b"members only"
    # A parameter with a default is the guard's own: a client must not set it.
    assert (await answered(app, upgrade("/tea/17/16"))).body == b"adults only"
    assert asked == ["tea", "bar", "tea"]


async def test_the_first_refusal_counts_and_nobody_else_is_asked() -> None:
    async def refuse(request: Request) -> Response:
        return Response("who are you?", 401, {"WWW-Authenticate": "Bearer"})

    async def unexpected(request: Request) -> None:
        raise AssertionError("nobody asks me")

    app = guarded(refuse, unexpected)
    response = await answered(app, upgrade())
    assert (response.status, response.body) == (401, b"who are you?")
    assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_any_async_callable_may_be_a_guard() -> None:
    class Token:
        async def __call__(self, request: Request) -> Response | None:
            return None if request.query.get("token") == "x" else Response("no", 403)

        async def check(self, request: Request, status: int) -> Response | None:
            return await self(request) and Response("no", status)

    for guard, status in [(Token(), 403), (functools.partial(Token().check, status=418), 418)]:
        app = guarded(guard)
        await accepted(app, upgrade("/ws?token=x"))
        assert (await answered(app, upgrade("/ws"))).status == status


@pytest.mark.parametrize("grouped", [False, True])
async def test_reject_refuses_with_its_status_headers_and_body(
    caplog: pytest.LogCaptureFixture, grouped: bool
) -> None:
    reject = Reject(401, "who are you?", {"WWW-Authenticate": "Bearer"})

    async def refuse(request: Request) -> None:
        # What a guard raises out of a nursery of its own comes in a group.
        raise ExceptionGroup("the guard's", [reject]) if grouped else reject

    response = await answered(guarded(refuse), upgrade())
    assert (response.status, response.body) == (401, b"who are you?")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert caplog.records == []


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (True, "a guard returns None, an Accept without a value, or a Response, not bool"),
        (LookupError("the database is down"), "the database is down"),
        (Reject(401, headers={"X-Bad": "a\r\nb"}), "not a header field"),
        (ExceptionGroup("both", [Reject(401), ValueError("x")]), "both"),
    ],
)
async def test_a_guard_that_fails_lets_nobody_in_and_says_what_it_raised(result: object, why: str) -> None:
    async def broken(request: Request) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    response = await answered(guarded(broken), upgrade())
    assert response.status == 500
    assert response.body == b"500 Internal Server Error: the server made a mistake; it has been logged\n"
    assert isinstance(response, CrashResponse)
    assert response.where == "guard"
    assert response.name.endswith("broken")
    assert why in str(response.exception)


async def test_guards_that_take_too_long_together_are_503(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow(request: Request) -> None:
        await trio.sleep(2)

    await accepted(guarded(slow, slow, timeouts=Timeouts(guard=5)), upgrade())
    assert trio.current_time() == 4
    response = await answered(guarded(slow, own=[slow, slow], timeouts=Timeouts(guard=5)), upgrade())
    assert trio.current_time() == 9
    assert response.status == 503
    assert events(caplog) == ["guard.timeout"]


async def test_a_cancelled_decision_is_no_refusal(autojump_clock: MockClock) -> None:
    async def slow(request: Request) -> None:
        await trio.sleep_forever()

    with trio.move_on_after(1) as scope:
        await guarded(slow).decide(upgrade())
    assert scope.cancelled_caught


async def test_guards_of_the_app_are_asked_for_plain_http_too_before_the_pages_own() -> None:
    app, asked = App(), []

    @app.guard
    async def everywhere(request: Request) -> None:
        asked.append(f"app {request.path} {request.is_websocket}")

    async def own(request: Request) -> Response | None:
        asked.append("own")
        return Response("no", 403) if "no" in request.query else None

    @app.http("/page", guards=[own])
    async def page(request: Request) -> str:
        asked.append("page")
        return "page"

    assert (await answered(app, plain("/page"))).status == 200
    assert asked == ["app /page False", "own", "page"]
    asked.clear()
    assert (await answered(app, plain("/page?no"))).status == 403
    assert asked == ["app /page False", "own"]


async def test_a_page_that_is_not_guarded_leaves_out_the_apps_guards_only() -> None:
    app = App()

    @app.guard
    async def refuse(request: Request) -> Response:
        return Response("no", 401)

    async def own(request: Request) -> Response | None:
        return Response("no", 403) if "no" in request.query else None

    @app.http("/shut")
    async def shut(request: Request) -> str:
        raise AssertionError("it must not be called")

    @app.http("/health", guards=[own], guarded=False)
    async def health(request: Request) -> str:
        return "fine"

    assert (await answered(app, plain("/shut"))).status == 401
    assert (await answered(app, plain("/health"))).status == 200
    assert (await answered(app, plain("/health?no"))).status == 403


async def test_guards_are_not_asked_where_there_is_nothing_to_guard() -> None:
    async def uncalled(request: Request) -> None:
        raise AssertionError("it must not be asked")

    app = guarded(uncalled)
    app.http("/page")(public_page)
    for request, status in [
        (plain("/nothing"), 404),
        (plain("/page", "PUT"), 405),
        (plain("/ws"), 426),
        (upgrade("/nothing"), 404),
        (upgrade("/page"), 404),
    ]:
        assert (await answered(app, request)).status == status


async def public_page(request: Request) -> str:
    return "page"


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
