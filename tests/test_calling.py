from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from wsframework.calling import check_app_guard, check_handler, check_steps
from wsframework.errors import ConfigurationError, RouteError
from wsframework.request import Request

# Handlers


async def anything(ws: object, **parameters: object) -> None: ...


class Handlers:
    async def method(self, ws: object) -> None: ...

    async def __call__(self, ws: object, room: str) -> None: ...


def awaitable_decorator(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Awaitable[Any]:
        return function(*args, **kwargs)

    return call


def in_a_thread(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


@awaitable_decorator
async def decorated(ws: object, room: str) -> None: ...


@in_a_thread
def made_async(ws: object, room: str) -> None: ...


async def with_default(ws: object, room: str, limit: int = 10) -> None: ...


async def keyword_only(connection: object, *, room: str) -> None: ...


class Decorated:
    @awaitable_decorator
    async def __call__(self, ws: object, room: str) -> None: ...


async def of_a_user(ws: object, user: object, room: str) -> None: ...


@pytest.mark.parametrize(
    "handler",
    [
        anything,
        Handlers(),
        decorated,
        made_async,
        with_default,
        keyword_only,
        functools.partial(of_a_user, user=1),
        functools.partial(functools.partial(Handlers().__call__)),
        Decorated(),
        functools.partial(Decorated()),
        awaitable_decorator(Decorated()),
    ],
)
def test_any_async_callable_whose_parameters_fit_can_be_a_handler(handler: Any) -> None:
    assert check_handler(handler, "/{room}", "ws", ("room",)) is handler


def of_one_argument(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def call(first: object) -> Any:
        return await function(first, room="tea")

    return call


@of_one_argument
async def in_the_tea_room(first: Any, room: str) -> None: ...


def test_a_decorator_that_does_not_pass_the_paths_parameters_on_is_found() -> None:
    # Its function says that it has the one of what it decorates, but is called itself.
    why = r"unexpected keyword argument 'room': its decorator returns a function that takes \(first"
    for decorated in (in_the_tea_room, functools.partial(in_the_tea_room)):
        with pytest.raises(RouteError, match=why):
            check_handler(decorated, "/{room}", "ws", ("room",))
        with pytest.raises(RouteError, match=why):
            check_steps([decorated], None, "/{room}", ("room",))
        with pytest.raises(RouteError, match=why):
            check_steps([], {"user": decorated}, "/{room}", ("room",))


def test_a_decorator_whose_signature_is_unknown_is_taken_to_pass_everything_on() -> None:
    handler: Any = functools.cache(with_default)
    assert check_handler(handler, "/{room}", "ws", ("room",)) is handler


def sync(ws: object, room: str) -> None: ...


async def no_room(ws: object) -> None: ...


async def more(ws: object, room: str, user: str) -> None: ...


async def nothing() -> None: ...


async def same_name(room: object) -> None: ...


async def generator(request: Request) -> AsyncIterator[str]:
    yield ""


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        ("talk", "'talk' is not a function"),
        (
            sync,
            "the handler sync must be an async function (async def): a plain one would stop all connections",
        ),
        (Handlers, "must be an async function"),
        (functools.partial(sync), "the handler sync must be an async function"),
        (
            generator,
            "must be an async function (async def), and it has a yield, so that it is a generator",
        ),
        (no_room, "the handler no_room(ws: 'object') -> 'None' cannot be called as no_room(ws, room): "),
        (
            more,
            "missing a required argument: 'user'; the path and given fill its parameters",
        ),
        (nothing, "cannot be called as nothing(ws, room)"),
        (same_name, "cannot be called as same_name(ws, room): multiple values for argument 'room'"),
        (Handlers().method, "cannot be called as Handlers.method(ws, room)"),
    ],
)
def test_a_handler_that_does_not_fit_its_path_is_refused_with_the_reason(handler: Any, why: str) -> None:
    with pytest.raises(RouteError) as caught:
        check_handler(handler, "/{room}", "ws", ("room",))
    assert str(caught.value).startswith("path '/{room}': ")
    assert why in str(caught.value)


async def takes_all(ws: object, **arguments: object) -> None: ...


async def positional(ws: object, user: str, /, room: str) -> None: ...


@pytest.mark.parametrize("handler", [more, takes_all, functools.partial(more, user="Ada")])
def test_given_fills_a_handlers_parameters_like_the_path(handler: Any) -> None:
    assert check_handler(handler, "/{room}", "ws", ("room",), {"user": user_of}) is handler


@pytest.mark.parametrize(
    ("handler", "given", "why"),
    [
        (
            more,
            ["usr"],
            "the handler more(ws: 'object', room: 'str', user: 'str') -> 'None' has no parameter 'usr'",
        ),
        (no_room, ["user"], "has no parameter 'user'"),
        (positional, ["user"], "has no parameter 'user'"),
        (
            more,
            ["ws", "user"],
            "cannot be called as more(ws, room, ws, user): multiple values for argument 'ws'",
        ),
    ],
)
def test_a_name_in_given_that_is_no_parameter_of_the_handler_is_refused(
    handler: Any, given: list[str], why: str
) -> None:
    with pytest.raises(RouteError) as caught:
        check_handler(handler, "/{room}", "ws", ("room",), given)
    assert str(caught.value).startswith("path '/{room}': ")
    assert why in str(caught.value)


# Given functions


async def user_of(request: Request) -> str:
    return request.query["user"]


async def member(request: Request, room: str) -> str:
    return room


async def with_a_role(request: Request, *, room: str, role: str = "member") -> str:
    return role + room


class Users:
    async def find(self, request: Request, room: str) -> str:
        return room

    async def __call__(self, request: Request) -> str:
        return ""


async def with_a_default(request: Request, room: str = "lobby") -> str:
    return room


@pytest.mark.parametrize(
    ("function", "takes"),
    [
        (user_of, ()),
        (member, ("room",)),
        (with_a_role, ("room",)),
        (Users(), ()),
        (Users().find, ("room",)),
        (awaitable_decorator(member), ("room",)),
        (functools.partial(with_a_role, role="admin"), ("room",)),
        # A client chooses the path, so it must not choose what has been chosen already.
        (with_a_default, ()),
        (functools.partial(member, room="staff"), ()),
    ],
)
def test_a_given_function_takes_the_parameters_of_the_path_that_it_must_have(
    function: Any, takes: tuple[str, ...]
) -> None:
    [step] = check_steps((), {"user": function}, "/{room}/{role}", ("room", "role"))
    assert (step.function, step.takes, step.gives) == (function, takes, "user")


def test_given_functions_are_in_the_order_of_the_mapping() -> None:
    steps = check_steps((), {"user": user_of, "member": member}, "/{room}", ("room",))
    assert [step.gives for step in steps] == ["user", "member"]
    assert check_steps((), {}, "/", ()) == check_steps((), None, "/", ()) == ()


def not_async(request: Request) -> str:
    return ""


async def no_request() -> str:
    return ""


async def only_by_name(*, request: Request) -> str:
    return ""


async def positional_room(request: Request, room: str, /) -> str:
    return room


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([user_of], "given is a mapping of names to async functions"),
        (user_of, "given is a mapping of names to async functions"),
        ("user", "given is a mapping of names to async functions"),
        ({1: user_of}, "given needs the name of a handler's parameter, not 1"),
        ({True: user_of}, "given needs the name of a handler's parameter, not True"),
        ({"a user": user_of}, "given needs the name of a handler's parameter, not 'a user'"),
        ({"room": user_of}, "'room' is a parameter of the path and of given; rename one"),
        (
            {"user": not_async},
            "given 'user' is an async function of the request (async def): not_async is none",
        ),
        (
            {"user": generator},
            "(async def): generator has a yield, so that it is a generator",
        ),
        ({"user": Users}, "given 'user' is an async function of the request (async def): Users is none"),
        ({"user": "Ada"}, "given 'user' is an async function of the request (async def): 'Ada' is none"),
        ({"user": no_request}, "given 'user': no_request() -> 'str' cannot be called with the request: "),
        ({"user": only_by_name}, "cannot be called with the request: too many positional"),
        ({"user": more}, "asks for 'user', which is no parameter of the path; it has room"),
        ({"user": positional_room}, "cannot be called with the request: "),
    ],
)
def test_a_given_that_cannot_be_called_is_refused_with_the_reason(given: Any, why: str) -> None:
    with pytest.raises(RouteError) as caught:
        check_steps((), given, "/{room}", ("room",))
    assert str(caught.value).startswith("path '/{room}': ")
    assert why in str(caught.value)


def test_a_function_that_was_called_by_mistake_is_refused_as_the_coroutine_that_it_returned() -> None:
    called: Any = user_of(Request("/"))
    for guards, given in (([called], None), ((), {"user": called})):
        with pytest.raises(RouteError, match=r"\(async def\): <coroutine object user_of at \w+> is none"):
            check_steps(guards, given, "/{room}", ("room",))
    called.close()


def test_a_given_that_asks_for_a_parameter_of_a_path_without_any_is_refused() -> None:
    with pytest.raises(RouteError, match="asks for 'room', which is no parameter of the path; it has none"):
        check_steps((), {"user": member}, "/", ())


# Guards


def test_a_routes_guard_takes_parameters_of_the_path_like_a_given_function() -> None:
    guards: list[Any] = [user_of, member, functools.partial(with_a_role, role="admin")]
    steps = check_steps(guards, {"user": user_of}, "/{room}/{role}", ("room", "role"))
    assert [step.takes for step in steps] == [(), ("room",), ("room",), ()]
    assert [step.gives for step in steps] == [None, None, None, "user"]
    with pytest.raises(RouteError, match=r"path '/': guard: member.* asks for 'room', .*; it has none"):
        check_steps([guards[1]], None, "/", ())


@pytest.mark.parametrize(
    ("guards", "why"),
    [
        (user_of, "guards is a list of async functions: write [user_of]"),
        (None, "guards is a list of async functions, not None"),
        ([not_async], "a guard is an async function of the request (async def): not_async is none"),
        ([user_of, Users], "a guard is an async function of the request (async def): Users is none"),
        ([no_request], "guard: no_request() -> 'str' cannot be called with the request: "),
    ],
)
def test_a_routes_guard_that_cannot_be_called_is_refused_with_the_path(guards: Any, why: str) -> None:
    with pytest.raises(RouteError) as caught:
        check_steps(guards, None, "/{room}", ("room",))
    assert str(caught.value).startswith(f"path '/{{room}}': {why}")


def test_a_guard_of_the_app_takes_the_request_alone() -> None:
    default, required = list[Any]([with_a_default, member])
    assert check_app_guard(default).takes == ()
    with pytest.raises(ConfigurationError, match=r"every path: member.* asks for 'room', .*; it has none"):
        check_app_guard(required)


# What Python cannot tell


def with_signature(signature: object) -> Any:
    async def function(request: Request) -> None: ...

    vars(function)["__signature__"] = signature
    return function


def wrapping(wrapped: object) -> Any:
    async def function(request: Request) -> None: ...

    vars(function)["__wrapped__"] = function if wrapped is ... else wrapped
    return function


class Everything:
    """Has every attribute that it is asked for, like clients of remote procedure calls and fakes."""

    def __getattr__(self, name: str) -> Everything:
        return Everything()

    def __call__(self, request: Request) -> None: ...


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (with_signature(object()), "with_signature.<locals>.function cannot be read: unexpected object"),
        (wrapping(...), "wrapping.<locals>.function cannot be read: wrapper loop"),
        (wrapping(3), "wrapping.<locals>.function cannot be read: "),
        (Everything(), "(async def)"),
    ],
)
def test_a_function_whose_parameters_cannot_be_read_is_refused_with_the_reason(
    function: Any, why: str
) -> None:
    for check in (
        lambda: check_handler(function, "/", "ws", ()),
        lambda: check_steps([function], None, "/", ()),
        lambda: check_steps((), {"user": function}, "/", ()),
        lambda: check_app_guard(function),
    ):
        with pytest.raises(ConfigurationError) as caught:
            check()
        assert why in str(caught.value)


class Secret:
    def __repr__(self) -> str:
        raise LookupError("it is not to be shown")


async def with_a_key(request: Request, missing: str, *, key: object) -> None: ...


def test_a_message_shows_no_default_because_it_may_be_a_secret() -> None:
    function = functools.partial(with_a_key, key=Secret())
    for check in (
        lambda: check_handler(function, "/", "ws", ()),
        lambda: check_handler(function, "/", "ws", (), ("user",)),
        lambda: check_steps([function], None, "/", ()),
        lambda: check_steps((), {"user": function}, "/", ()),
        lambda: check_app_guard(function),
    ):
        with pytest.raises(ConfigurationError, match="key: 'object' = …"):
            check()
