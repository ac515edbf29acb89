"""What an App calls: handlers, guards, given functions, context managers; checked at registration.

A guard and a given function are called with the request before the handler, and get those of the path's
parameters that they name. A guard lets the request through or refuses it; a given function does so too, and
what it returns is the handler's argument of its name.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Concatenate

import attrs

from wsframework.errors import Accept, ConfigurationError, RouteError
from wsframework.request import Request, Response

__all__ = [
    "Given",
    "Guard",
    "GuardAnswer",
    "Handler",
    "Step",
    "check_app_guard",
    "check_context_manager",
    "check_handler",
    "check_path",
    "check_steps",
    "function_of",
    "is_async",
    "name_of",
]

Handler = Callable[..., Any]
"""Any function of a user's, called with arguments that were checked when it was registered. It is async; only
an HTTP handler may be plain."""

GuardAnswer = Response | Accept[None] | None
"""None or an `Accept` lets the request through; a `Response` refuses it, and so does a raised `Reject`."""

Guard = Callable[Concatenate[Request, ...], Awaitable[GuardAnswer]]
"""Lets a request through, or refuses it. It may name path parameters, except as a guard of the App."""

Given = Callable[Concatenate[Request, ...], Awaitable[object]]
"""Returns a handler's argument, perhaps in an `Accept`, or refuses the request by a raised `Reject`. It may
name path parameters."""


@attrs.frozen(eq=False)
class Step:
    """A guard or a given function, and how it is called.

    Attributes:
        function: the user's function.
        takes: the path's parameters that it is called with, by name.
        gives: the handler's argument that it returns; None for a guard.
    """

    function: Handler
    takes: tuple[str, ...] = ()
    gives: str | None = None


def name_of(function: object) -> str:
    """Return the name of a user's function, for records and messages.

    For a partial and for an object with `__call__` it is that of the function behind: a partial's `repr` has
    its arguments, which may be secrets, and an object's own may raise. What cannot be called is shown as it
    is: for the coroutine of a function that was called by mistake, its name would say the opposite.
    """
    if not callable(function):
        return repr(function)
    name = getattr(function, "__qualname__", None)
    if name is None:
        name = getattr(function_of(function), "__qualname__", type(function).__qualname__)
    return str(name)


def function_of(target: Callable[..., Any]) -> Any:
    """Return the function behind a callable: through decorators, partials and objects with `__call__`."""
    target = _unwrapped(target)
    while isinstance(target, functools.partial):
        target = _unwrapped(target.func)
    return target if inspect.isroutine(target) else _unwrapped(type(target).__call__)


def _unwrapped(target: Callable[..., Any]) -> Any:
    try:
        return inspect.unwrap(target)
    except ValueError:
        return target  # it wraps itself, or is an object that has every attribute that it is asked for


def _signature_of(function: Callable[..., Any], label: str) -> inspect.Signature:
    """Return what a function can be called with.

    Raises:
        RouteError: Python cannot tell, because of a wrong `__signature__` or `__wrapped__` for example.
    """
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise RouteError(
            f"{label}: the parameters of {name_of(function)} cannot be read: {error}; is a decorator wrong?"
        ) from None


class _Default:
    def __repr__(self) -> str:
        return "…"


_DEFAULT = _Default()


def _written(signature: inspect.Signature) -> str:
    """Write a signature without its defaults: a partial's may be secrets, and the `repr` of one may raise."""
    parameters = signature.parameters.values()
    return str(
        signature.replace(
            parameters=[
                parameter if parameter.default is parameter.empty else parameter.replace(default=_DEFAULT)
                for parameter in parameters
            ]
        )
    )


def is_async(target: object) -> bool:
    """Whether calling it returns something to await, as far as one can see."""
    # A decorator may be what makes it async, or may be a plain function around an async one.
    return callable(target) and (
        inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(function_of(target))
    )


_YIELD = "has a yield, so that it is a generator"


def _is_generator(target: Callable[..., Any]) -> bool:
    generators = inspect.isasyncgenfunction, inspect.isgeneratorfunction
    return any(found(target) or found(function_of(target)) for found in generators)


def _why(function: Callable[..., Any]) -> str:
    """Say why a function must be async, and what to do with one that is not."""
    if _is_generator(function):
        return f", and it {_YIELD}"
    if not inspect.isroutine(function_of(function)) or inspect.isclass(function):
        return ""
    return (
        ": a plain one would stop all connections while it runs. Write async def, and call what blocks by "
        "`await trio.to_thread.run_sync(…)`"
    )


def check_path(path: object, decorator: str) -> str:
    """Return a route's path when it is a text.

    Args:
        path: what the decorator was called with.
        decorator: its name, for messages.

    Raises:
        RouteError: it is something else, such as the handler of a decorator without parentheses.
    """
    if isinstance(path, str):
        return path
    if callable(path):
        raise RouteError(
            f'@app.{decorator} has no path: write @app.{decorator}("/path") above {name_of(path)}'
        )
    raise RouteError(f"the path of @app.{decorator} is a text such as '/chat', not {path!r}")


def check_handler(
    handler: object,
    path: str,
    first: str,
    names: Sequence[str],
    given: Collection[str] = (),
    *,
    plain: bool = False,
) -> Handler:
    """Return `handler` when it is async, or may be plain, and can be called with all of its arguments.

    Args:
        handler: a user's function.
        path: the route's template, for messages.
        first: what its first argument is called in messages.
        names: the path's parameters.
        given: the names of the given functions.
        plain: whether it may be a plain function, which is called in a thread.

    Raises:
        RouteError: it is not callable, not async, or its parameters are not those of the path and of given.
    """
    if not callable(handler):
        raise RouteError(f"path {path!r}: {handler!r} is not a function")
    label = name_of(handler)
    if not is_async(handler) and (not plain or _is_generator(handler) or inspect.isclass(handler)):
        raise RouteError(
            f"path {path!r}: the handler {label} must be an async function (async def){_why(handler)}"
        )
    signature = _signature_of(handler, f"path {path!r}")
    written = f"{label}{_written(signature)}"
    for name in given:
        if not _takes(signature, name):
            raise RouteError(f"path {path!r}: the handler {written} has no parameter {name!r}, but given has")
    try:
        _check_call(handler, (*names, *given))
    except TypeError as error:
        parameters = ", ".join([first, *names, *given])
        raise RouteError(
            f"path {path!r}: the handler {written} cannot be called as "
            f"{label}({parameters}): {error}; the path and given fill its parameters"
        ) from None
    return handler


def _check_call(function: Handler, names: Collection[str]) -> None:
    """Check that a function can be called with one argument and those of these names.

    Raises:
        TypeError: it cannot, or what a decorator has put in its place cannot.
    """
    inspect.signature(function).bind(object(), **dict.fromkeys(names))
    try:
        called = inspect.signature(function, follow_wrapped=False)
    except ValueError:
        return  # of `functools.cache`, for example, which passes on what it gets
    try:
        called.bind(object(), **dict.fromkeys(names))
    except TypeError as error:
        raise TypeError(f"{error}: its decorator returns a function that takes {_written(called)}") from None


def _takes(signature: inspect.Signature, name: str) -> bool:
    """Whether a keyword argument of this name has a parameter."""
    found = signature.parameters.get(name)
    if found is not None and found.kind in (found.POSITIONAL_OR_KEYWORD, found.KEYWORD_ONLY):
        return True
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())


def check_steps(
    guards: Iterable[Guard], given: Mapping[str, Given] | None, path: str, names: Sequence[str]
) -> tuple[Step, ...]:
    """Return what is called before a route's handler: its guards, and then its given functions.

    Args:
        guards: in order.
        given: by the names of the handler's arguments, or None.
        path: the route's template, for messages.
        names: the path's parameters.

    Raises:
        RouteError: `guards` is no list of async functions, or `given` no mapping of names to such; a name is
            the path's already; or a function has a parameter that is not the path's.
    """
    if callable(guards) or not isinstance(guards, Iterable):
        raise RouteError(f"path {path!r}: guards is a list of async functions{_instead(guards)}")
    steps = []
    for guard in guards:
        if not is_async(guard):
            raise RouteError(f"path {path!r}: a guard {_not_async(guard)}")
        steps.append(Step(guard, _taken(guard, f"path {path!r}: guard", names)))
    if given is None:
        return tuple(steps)
    if not isinstance(given, Mapping):
        raise RouteError(
            f'path {path!r}: given is a mapping of names to async functions, such as {{"user": find_user}}, '
            f"not {given!r}"
        )
    for name, function in given.items():
        if not _is_name(name):
            raise RouteError(f"path {path!r}: given needs the name of a handler's parameter, not {name!r}")
        if name in names:
            raise RouteError(f"path {path!r}: {name!r} is a parameter of the path and of given; rename one")
        label = f"path {path!r}: given {name!r}"
        if not is_async(function):
            raise RouteError(f"{label} {_not_async(function)}")
        steps.append(Step(function, _taken(function, label, names), name))
    return tuple(steps)


def check_app_guard(guard: Guard) -> Step:
    """Return a guard of the App, which is called for all paths and gets no parameters of theirs.

    Raises:
        ConfigurationError: it is no async function of the request alone.
    """
    if not is_async(guard):
        raise ConfigurationError(f"a guard {_not_async(guard)}")
    return Step(guard, _taken(guard, "a guard of the App is called on every path", ()))


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name.isidentifier()


def _instead(guards: object) -> str:
    return f": write [{name_of(guards)}]" if callable(guards) else f", not {guards!r}"


def _not_async(function: object) -> str:
    if not callable(function):
        return f"is an async function of the request (async def): {function!r} is none"
    why = f" {_YIELD}" if _is_generator(function) else f" is none{_why(function)}"
    return f"is an async function of the request (async def): {name_of(function)}{why}"


def _taken(function: Handler, label: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the path's parameters that a function is called with, besides the request: those it must have.

    A parameter with a default is left alone, as in a fixture of pytest: the default may be what a check is
    about, as in `functools.partial(require, role="admin")`, and a client chooses the path.
    """
    signature = _signature_of(function, label)
    asked = tuple(
        parameter.name
        for parameter in list(signature.parameters.values())[1:]
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    )
    called = f"{name_of(function)}{_written(signature)}"
    for name in asked:
        if name not in names:
            there = f"has {', '.join(names)}" if names else "has none"
            raise RouteError(
                f"{label}: {called} asks for {name!r}, which is no parameter of the path; it {there}"
            )
    try:
        _check_call(function, asked)
    except TypeError as error:
        raise RouteError(f"{label}: {called} cannot be called with the request: {error}") from None
    return asked


def check_context_manager(
    function: Callable[..., Any], what: str
) -> Callable[..., AbstractAsyncContextManager[Any]]:
    """Return a wrapper or lifespan as a function that returns an async context manager.

    Args:
        function: the user's function; an async generator function will do.
        what: which of the two it is, for messages.

    Raises:
        ConfigurationError: it is not callable, or an async function without a `yield`.
    """
    if not callable(function):
        raise ConfigurationError(
            f"a {what} is a function that returns an async context manager, not {function!r}"
        )
    if inspect.isasyncgenfunction(function):
        return asynccontextmanager(function)
    if inspect.iscoroutinefunction(function):
        raise ConfigurationError(
            f"the {what} {name_of(function)} has no yield: write 'yield' where the wrapped time begins and "
            "ends"
        )
    return function
