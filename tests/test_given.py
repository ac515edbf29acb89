"""Given functions: what they return is the handler's, and what they raise is the client's answer."""

from __future__ import annotations

import gc
import traceback
import types
import weakref
from collections.abc import Coroutine, Generator, Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.asking import Wrapper, accepted, answered, events, plain, upgrade
from tests.fake_transport import connect
from wsframework.app import App
from wsframework.closes import CloseFrame
from wsframework.config import Deflate, Timeouts
from wsframework.connection import Connection
from wsframework.errors import Accept, Close, Reject, RouteError
from wsframework.request import Request, Response
from wsframework.session import CrashResponse, Refusal


async def user(request: Request) -> str:
    return request.query["user"]


async def member(request: Request, room: str) -> str:
    return f"member {request.query['user']} of {room}"


async def none(request: Request) -> None:
    return None


def site(given: Mapping[str, Any], **options: Any) -> tuple[App, list[dict[str, Any]]]:
    """Make an App with one handler on /rooms/{room}, for both kinds of request."""
    app, calls = App(timeouts=Timeouts(guard=5)), list[dict[str, Any]]()

    @app.websocket("/rooms/{room}", given=given, **options)
    async def talk(ws: Connection, **arguments: Any) -> None:
        calls.append(arguments)

    @app.http("/rooms/{room}", given=given, **options)
    async def page(request: Request, **arguments: Any) -> str:
        calls.append(arguments)
        return "page"

    return app, calls


ROOM = "/rooms/tea?user=Ada"
KINDS = pytest.mark.parametrize("ask", [upgrade, plain])


async def test_the_handlers_argument_is_what_the_function_returned() -> None:
    app, calls = site({"user": user, "who": member, "nobody": none})
    await (await accepted(app, upgrade(ROOM))).handler(connect().connection)
    assert (await answered(app, plain(ROOM))).body == b"page"
    expected = {"room": "tea", "user": "Ada", "who": "member Ada of tea", "nobody": None}
    assert calls == [expected, expected]


async def test_wrappers_and_given_arguments_go_together() -> None:
    log: list[str] = []
    app, calls = site({"user": user})
    app.wrap(Wrapper("outer", log))
    await (await accepted(app, upgrade(ROOM))).handler(connect().connection)
    assert calls == [{"room": "tea", "user": "Ada"}]
    assert len(log) == 2


async def test_each_request_has_arguments_of_its_own() -> None:
    app, calls = site({"user": user})
    first = await accepted(app, upgrade("/rooms/tea?user=Ada"))
    second = await accepted(app, upgrade("/rooms/tea?user=Bob"))
    await first.handler(connect().connection)
    await second.handler(connect().connection)
    assert [call["user"] for call in calls] == ["Ada", "Bob"]


@KINDS
async def test_given_functions_are_called_once_in_order_after_all_guards(ask: Any) -> None:
    log: list[str] = []

    def guard(name: str) -> Any:
        async def call(request: Request) -> None:
            log.append(name)

        return call

    app, _ = site({"b": guard("b"), "a": guard("a")}, guards=[guard("own")])
    app.guard(guard("app"))
    await app.decide(ask(ROOM))
    assert log == ["app", "own", "b", "a"]


@KINDS
async def test_who_is_refused_by_a_guard_is_not_looked_up(ask: Any) -> None:
    async def refuse(request: Request) -> Response:
        return Response("no", 403)

    async def unexpected(request: Request) -> None:
        raise AssertionError("it must not be called")

    app, _ = site({"user": unexpected}, guards=[refuse])
    assert (await answered(app, ask(ROOM))).status == 403


@KINDS
@pytest.mark.parametrize("how", ["raised", "grouped", "returned"])
async def test_reject_refuses_and_no_other_given_function_is_called(
    ask: Any, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(request: Request) -> Reject:
        reject = Reject(401, "who are you?", {"WWW-Authenticate": "Bearer"})
        if how == "returned":
            return reject
        raise ExceptionGroup("of its nursery", [reject]) if how == "grouped" else reject

    async def unexpected(request: Request) -> None:
        raise AssertionError("it must not be called")

    app, calls = site({"user": refuse, "other": unexpected})
    response = await answered(app, ask(ROOM))
    assert (response.status, response.body) == (401, b"who are you?")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert calls == []
    assert caplog.records == []


@KINDS
@pytest.mark.parametrize(
    ("result", "why"),
    [
        (LookupError("the database is down"), "the database is down"),
        (ExceptionGroup("both", [Reject(401), ValueError("x")]), "both"),
        (Reject(401, headers={"X-Bad": "a\r\nb"}), "X-Bad: a header field value is"),
        (Response("no", 403), "given 'user' returned a Response; a given function refuses by raising Reject"),
        (
            Accept(Accept("Ada")),
            "given 'user' returned an Accept inside an Accept; return one with all fields",
        ),
        (Accept(Close(4401)), "returned a Close; a given function refuses by raising Reject(…, close=…)"),
        (BaseException("its own"), "its own"),
    ],
)
async def test_a_given_function_that_fails_lets_nobody_in_and_is_named(
    ask: Any, result: object, why: str
) -> None:
    async def broken(request: Request) -> object:
        if isinstance(result, BaseException):
            raise result
        return result

    async def unexpected(request: Request) -> None:
        raise AssertionError("it must not be called")

    app, calls = site({"user": broken, "other": unexpected})
    response = await answered(app, ask(ROOM))
    assert isinstance(response, CrashResponse)
    assert (response.status, response.where) == (500, "guard")
    assert response.name.endswith("broken")
    assert why in str(response.exception)
    assert calls == []


@KINDS
async def test_guards_and_given_functions_have_one_limit_together(
    ask: Any, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow(request: Request) -> None:
        await trio.sleep(2)

    async def hanging(request: Request) -> None:
        await trio.sleep_forever()

    app, calls = site({"user": slow, "other": hanging}, guards=[slow])
    response = await answered(app, ask(ROOM))
    assert trio.current_time() == 5
    assert response.status == 503
    assert events(caplog) == ["guard.timeout"]
    assert caplog.records[0].__dict__["fields"]["guard"].endswith("hanging")
    assert calls == []


async def test_a_keyboard_interrupt_is_about_the_program() -> None:
    async def interrupt(request: Request) -> None:
        raise KeyboardInterrupt

    app, _ = site({"user": interrupt})
    with pytest.raises(KeyboardInterrupt):
        await app.decide(upgrade(ROOM))


async def test_a_foreign_page_is_refused_before_anybody_is_looked_up() -> None:
    async def unexpected(request: Request) -> None:
        raise AssertionError("it must not be called")

    app, _ = site({"user": unexpected})
    assert (await answered(app, upgrade(ROOM, host="a.example", origin="https://b.example"))).status == 403


# Accept


def accepting(
    *fields: tuple[str, str], value: object = None, raised: bool = False, grouped: bool = False
) -> Any:
    async def accept(request: Request) -> Accept[object]:
        answer = Accept(value, headers=fields)
        if grouped:
            raise ExceptionGroup("of its nursery", [answer])
        if raised:
            raise answer
        return answer

    return accept


@pytest.mark.parametrize("how", [{}, {"raised": True}, {"grouped": True}])
async def test_accept_adds_fields_to_the_answer_and_gives_its_value(how: dict[str, bool]) -> None:
    first, second, third = ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Extra", "yes")
    app, calls = site(
        {"user": accepting(third, value="Ada", **how), "other": user, "none": accepting(**how)},
        guards=[accepting(second, **how)],
    )
    app.guard(accepting(first, **how))
    acceptance = await accepted(app, upgrade(ROOM))
    assert acceptance.headers == (first, second, third)
    await acceptance.handler(connect().connection)
    response = await answered(app, plain(ROOM))
    assert response.headers.pairs() == (first, second, third, ("Content-Type", "text/plain; charset=utf-8"))
    assert (response.status, response.body) == (200, b"page")
    assert calls == [{"room": "tea", "user": "Ada", "other": "Ada", "none": None}] * 2


@KINDS
async def test_accept_does_not_spare_anybody_the_guards_after_it(ask: Any) -> None:
    async def refuse(request: Request) -> Response:
        return Response("no", 403)

    app, _ = site({}, guards=[accepting(("Set-Cookie", "a=1")), refuse])
    response = await answered(app, ask(ROOM))
    assert response.status == 403
    # Who is refused is not let in by a cookie either.
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (Response("x", 303, {"Set-Cookie": "a=2"}), 303),
        (Reject(404), 404),
        (ValueError("x"), 500),
        (None, 503),
    ],
)
async def test_every_answer_of_a_page_has_the_fields_in_front_of_its_own(
    result: object, status: int, autojump_clock: MockClock
) -> None:
    app = App()

    @app.http("/", guards=[accepting(("Set-Cookie", "a=1"))])
    async def page(request: Request) -> Response:
        if isinstance(result, Exception):
            raise result
        if isinstance(result, Response):
            return result
        await trio.sleep_forever()
        raise AssertionError

    response = await answered(app, plain("/"))
    assert response.status == status
    assert isinstance(response, CrashResponse) == (status == 500)
    # Of two cookies with one name the last one counts.
    own = ["a=2"] if status == 303 else []
    assert response.headers.get_all("set-cookie") == ["a=1", *own]


class Compiled(Coroutine[None, None, str]):
    """A coroutine of another type, as compilers make them."""

    def __init__(self, request: Request) -> None: ...

    def __await__(self) -> Generator[None, None, str]:
        yield
        return ""

    def send(self, value: None) -> None: ...

    def throw(self, *error: Any) -> None: ...

    def close(self) -> None: ...


@types.coroutine
def generated(request: Request) -> Generator[None, None, str]:
    yield
    return ""


async def refused(request: Request) -> str:
    raise Reject(401)


@KINDS
@pytest.mark.parametrize("accepting_it", [False, True])
@pytest.mark.parametrize("refuse", [refused, Compiled, generated])
async def test_a_refusal_that_nothing_has_awaited_lets_nobody_in(
    ask: Any, refuse: Any, accepting_it: bool
) -> None:
    async def decorated(request: Request) -> object:
        found = refuse(request)  # without await
        return Accept(found) if accepting_it else found

    app, calls = site({"user": decorated})
    response = await answered(app, ask(ROOM))
    assert isinstance(response, CrashResponse)
    assert "given 'user' returned a coroutine" in str(response.exception)
    assert calls == []


async def test_a_generator_that_nothing_awaits_is_a_value_like_others() -> None:
    async def countdown(request: Request) -> Generator[int, None, None]:
        return (number for number in (3, 2, 1))

    app = App()

    @app.http("/", given={"numbers": countdown})
    async def page(request: Request, numbers: Generator[int, None, None]) -> str:
        return str(list(numbers))

    assert (await answered(app, plain("/"))).body == b"[3, 2, 1]"


@KINDS
async def test_a_crash_by_one_object_again_and_again_has_the_traceback_of_the_last_time(ask: Any) -> None:
    error = LookupError("one object")

    async def crash(request: Request) -> str:
        raise error

    app, _ = site({"user": crash})
    lengths = []
    for _ in range(3):
        await app.decide(ask(ROOM))
        lengths.append(len(traceback.extract_tb(error.__traceback__)))
    assert lengths == [lengths[0]] * 3


@KINDS
@pytest.mark.parametrize("answer", [Reject(401), Reject(401, close=4401), Accept("Ada")])
@pytest.mark.parametrize("grouped", [False, True])
async def test_an_answer_that_is_raised_again_and_again_keeps_no_request(
    ask: Any, answer: Exception, grouped: bool
) -> None:
    async def find(request: Request) -> str:
        raise ExceptionGroup("of a nursery", [answer]) if grouped else answer

    app, _ = site({"user": find})
    requests = []
    for _ in range(3):
        request = ask(ROOM)
        requests.append(weakref.ref(request))
        await app.decide(request)
        del request
    gc.collect()
    assert answer.__traceback__ is None
    assert [request() for request in requests] == [None] * 3


async def test_a_guard_that_accepts_with_a_value_is_a_mistake() -> None:
    app, _ = site({}, guards=[accepting(value="Ada")])
    response = await answered(app, upgrade(ROOM))
    assert isinstance(response, CrashResponse)
    assert "an Accept without a value" in str(response.exception)


@KINDS
async def test_a_refusal_inside_an_accept_is_one(ask: Any) -> None:
    app, _ = site({"user": accepting(value=Reject(401))})
    assert (await answered(app, ask(ROOM))).status == 401


# Reject with a close code


@pytest.mark.parametrize("where", ["app", "guards", "given"])
@pytest.mark.parametrize("how", ["raised", "grouped", "returned"])
async def test_a_reject_with_a_code_is_a_close_for_a_websocket_and_a_status_for_a_page(
    where: str, how: str
) -> None:
    async def refuse(request: Request) -> Any:
        reject = Reject(401, "who are you?", {"WWW-Authenticate": "Bearer"}, close=4401)
        if how == "returned":
            return reject
        raise ExceptionGroup("of its nursery", [reject]) if how == "grouped" else reject

    app, calls = site(
        {"user": refuse} if where == "given" else {}, guards=[refuse] if where == "guards" else []
    )
    if where == "app":
        app.guard(refuse)
    log: list[str] = []
    app.wrap(Wrapper("never", log))
    refusal = await accepted(app, upgrade(ROOM))
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.frame) == (401, CloseFrame(4401, "who are you?"))
    assert (refusal.subprotocol, refusal.headers, refusal.compression) == (None, (), None)
    with pytest.raises(Close) as closed:
        await refusal.handler(connect().connection)
    assert (closed.value.code, closed.value.reason) == (4401, "who are you?")
    response = await answered(app, plain(ROOM))
    assert (response.status, response.body) == (401, b"who are you?")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert calls == []
    assert log == []


async def test_a_reject_with_a_code_and_a_wrong_field_is_a_mistake_for_both() -> None:
    app, _ = site({"user": accepting(value=Reject(401, headers={"X-Bad": "a\r\nb"}, close=4401))})
    for ask in (upgrade, plain):
        assert isinstance(await app.decide(ask(ROOM)), CrashResponse)


@pytest.mark.parametrize("close", [4401, CloseFrame(1006), CloseFrame(4401, "x" * 124)])
async def test_a_reject_whose_frame_was_set_to_none_that_may_be_sent_is_a_mistake(close: Any) -> None:
    class SignIn(Reject):
        def __init__(self) -> None:
            super().__init__(401)
            self.close = close

    app, calls = site({"user": accepting(value=SignIn())})
    response = await app.decide(upgrade(ROOM))
    assert isinstance(response, CrashResponse)
    assert (await answered(app, plain(ROOM))).status == 401
    assert calls == []


async def test_a_refused_websocket_has_the_subprotocol_of_its_route() -> None:
    async def refuse(request: Request) -> None:
        raise Reject(401, close=4401)

    app = App(compression=Deflate())

    @app.websocket("/", subprotocols=["chat"], guards=[refuse])
    async def talk(ws: Connection) -> None: ...

    refusal = await accepted(app, upgrade("/", "soap", "chat"))
    assert isinstance(refusal, Refusal)
    assert (refusal.subprotocol, refusal.compression) == ("chat", None)
    assert (await answered(app, upgrade("/", "soap"))).status == 400


# Registration


@pytest.mark.parametrize("kind", ["websocket", "http"])
@pytest.mark.parametrize(
    ("path", "given", "why"),
    [
        ("/", {"usr": user}, "has no parameter 'usr', but given has"),
        ("/", {}, "missing a required argument: 'user'; the path and given fill its parameters"),
        ("/{user}", {"user": user}, "'user' is a parameter of the path and of given; rename one"),
        ("/", {"user": member}, "asks for 'room', which is no parameter of the path; it has none"),
        ("/", {"user": "Ada"}, "given 'user' is an async function of the request (async def): 'Ada' is none"),
        ("/", [user], "given is a mapping of names to async functions"),
    ],
)
def test_mistakes_are_found_when_the_handler_is_registered(
    kind: str, path: str, given: Any, why: str
) -> None:
    async def handler(first: Any, user: str) -> str:
        return user

    app = App()
    with pytest.raises(RouteError) as caught:
        getattr(app, kind)(path, given=given)(handler)
    assert str(caught.value).startswith(f"path {path!r}: ")
    assert why in str(caught.value)
    assert app.routes == ()


@pytest.mark.parametrize("kind", ["websocket", "http"])
def test_a_mapping_that_changes_later_is_what_it_was_when_the_decorator_was_made(kind: str) -> None:
    given = {"user": user}
    decorator = getattr(App(), kind)("/", given=given)
    given.clear()

    async def handler(first: object) -> None: ...

    with pytest.raises(RouteError, match="has no parameter 'user', but given has"):
        decorator(handler)
