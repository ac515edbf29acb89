"""Guards: their order, their refusals, their time."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.asking import accepted, answered, events, guarded, plain, public_page, upgrade
from wsframework.app import App
from wsframework.config import Timeouts
from wsframework.connection import Connection
from wsframework.errors import Reject
from wsframework.request import Request, Response
from wsframework.session import CrashResponse


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
        (Reject(401, headers={"X-Bad": "a\r\nb"}), "X-Bad: a header field value is"),
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


class Unspeakable:
    async def __call__(self, request: Request) -> None:
        await trio.sleep(int(request.query["seconds"]))
        raise LookupError

    async def check(self, request: Request, key: str) -> None:
        await self(request)

    def __repr__(self) -> str:
        raise RuntimeError("there is a secret in it")


UNSPEAKABLE = [
    (Unspeakable(), "Unspeakable.__call__"),
    (functools.partial(Unspeakable()), "Unspeakable.__call__"),
    (functools.partial(Unspeakable().check, key="secret"), "Unspeakable.check"),
    (
        functools.partial(functools.partial(Unspeakable.check, Unspeakable()), key="secret"),
        "Unspeakable.check",
    ),
]


@pytest.mark.parametrize("kind", ["guard of the app", "guard", "given"])
@pytest.mark.parametrize(("function", "name"), UNSPEAKABLE)
async def test_what_fails_is_named_by_its_function_and_not_by_what_it_holds(
    function: Any, name: str, kind: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    if kind == "guard of the app":
        app.guard(function)
    guards, given = [function] if kind == "guard" else [], {"user": function} if kind == "given" else {}

    @app.websocket("/ws", guards=guards, given=given)
    async def talk(ws: Connection, user: None = None) -> None: ...

    crashed = await answered(app, upgrade("/ws?seconds=0"))
    assert isinstance(crashed, CrashResponse)
    assert crashed.name == name
    assert isinstance(crashed.exception, LookupError)
    assert (await answered(app, upgrade("/ws?seconds=60"))).status == 503
    assert [entry.__dict__["fields"]["guard"] for entry in caplog.records] == [name]


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


@pytest.mark.parametrize("ask", [upgrade, plain])
@pytest.mark.parametrize(
    "target", ["/admin/tea", "/%61dmin/tea", "/adm%69n/%74ea", "http://example.com/a%64min/x"]
)
async def test_a_guard_sees_the_path_that_the_route_matches(ask: Any, target: str) -> None:
    app = App()

    @app.guard
    async def admins_only(request: Request) -> Response | None:
        return Response("no", 403) if request.path.startswith("/admin/") else None

    @app.websocket("/admin/{name}")
    async def talk(ws: Connection, name: str) -> None: ...

    @app.http("/admin/{name}")
    async def page(request: Request, name: str) -> str:
        return name

    assert (await answered(app, ask(target))).status == 403
