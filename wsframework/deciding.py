"""What a request gets: the upgrade to a handler, or an HTTP answer.

A `Decider` holds the routes, guards and wrappers that an App registers. A host asks it about every request:

    host → origin → guards → given → handler      for an upgrade, after the choice of the route
    host → origin → guards → given → page         for plain HTTP; the origin where something may change

The first step that refuses decides. Refusals say in plain text what was wrong; what a user's function raised
becomes a 500 and is told to the observers by the host.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import GeneratorType
from typing import Any, Literal, Protocol

import attrs
import trio

from wsframework.authority import AllowedHosts, parse_authority
from wsframework.calling import Step, name_of
from wsframework.config import Deflate, Limits, Timeouts
from wsframework.connection import Connection
from wsframework.crashes import (
    forget_earlier_frames,
    forget_frames,
    interrupt_in,
    split_cancelled,
    unwrap_group,
)
from wsframework.errors import Accept, Close, Reject
from wsframework.mounting import HTTPCall, Mount, Mounts, WebSocketCall
from wsframework.options import RouteOptions
from wsframework.origins import Origins
from wsframework.records import record
from wsframework.request import Request, Response, bound_body
from wsframework.routing import Match, NoPath, NoSubprotocol, Route, Router
from wsframework.session import OVERDUE, Acceptance, CrashResponse, Refusal
from wsframework.streamed import Streamed
from wsframework.tasks import GivenUp, Limit
from wsframework.threads import HandlerThreads

__all__ = ["Decider", "Settings", "Wrapper"]

Wrapper = Callable[[Connection], AbstractAsyncContextManager[Any]]
"""Returns an async context manager that is entered around a connection's handler."""

_Fields = tuple[tuple[str, str], ...]

_LONGEST_NAME_CHARS = 253  # RFC 1035 §2.3.4, written with dots


class Settings(Protocol):
    """What the routes of an App share. Read for each request: a change counts from the next one on."""

    limits: Limits
    timeouts: Timeouts
    compression: Deflate | None
    origins: Origins


class Decider:
    """The table of an App's routes, guards and wrappers, and the decisions made by it.

    Args:
        settings: what counts where a route has no setting of its own.
        hosts: the hosts to answer to, or None for all.

    Attributes:
        hosts: as given.
        websockets: routes of WebSocket handlers, by path and subprotocol.
        pages: routes of HTTP handlers, by path and method.
        mounts: applications, for what no route has.
        guards: asked about every request with a handler, in order, before the route's own steps.
        wrappers: entered around every WebSocket handler, in order.
    """

    def __init__(self, settings: Settings, hosts: AllowedHosts | None) -> None:
        self._settings = settings
        self.hosts = hosts
        self.websockets: Router[RouteOptions] = Router()
        self.pages: Router[RouteOptions] = Router()
        self.mounts = Mounts()
        self.guards: list[Step] = []
        self.wrappers: list[Wrapper] = []
        self._threads = HandlerThreads()

    async def decide(self, hosts: AllowedHosts | None, request: Request) -> Acceptance | Response | Streamed:
        """Choose what a request gets.

        Args:
            hosts: the hosts to answer to, or None for all: `self.hosts`, or what one server answers to.
            request: the request.

        Raises:
            KeyboardInterrupt: a guard or an HTTP handler raised it.

        Cancellation: nothing is left behind; a guard or HTTP handler may have been cancelled midway.
        """
        if hosts is not None and not hosts.allow(request.host, secure=request.secure):
            return _misdirected(request)
        if request.is_websocket:
            return await self._decide_upgrade(request)
        return await self._answer(request)

    async def _decide_upgrade(self, request: Request) -> Acceptance | Response:
        settings = self._settings
        match self.websockets.resolve(request.path, (*request.subprotocols, None)):
            case NoPath():
                if (mount := self.mounts.find(request.path)) is not None:
                    return await self._have_upgraded(mount, request)
                if request.path in self.pages:
                    return Response.error(404, f"{request.path} answers plain HTTP, not WebSocket")
                return Response.error(404, f"there is nothing at {request.path}")
            case NoSubprotocol(known):
                # What was offered is not repeated: there may be a bearer token among it.
                offered = "offered others" if request.subprotocols else "offered none"
                return Response.error(
                    400,
                    f"{request.path} speaks the subprotocols {', '.join(known)}; "
                    f"the client {offered} in Sec-WebSocket-Protocol",
                )
            case Match(route, subprotocol, parameters):
                options = route.options
                if not (options.origins or settings.origins).allow(request):
                    return _foreign(request, "connect here")
                fields: _Fields = ()
                if self.guards or options.steps:
                    steps = (*self.guards, *options.steps)
                    asked = await self._ask(steps, options.timeouts, request, parameters)
                    if isinstance(asked, Refusal):
                        # Browsers want a subprotocol of those that they offered, or do not read the Close.
                        return attrs.evolve(asked, subprotocol=subprotocol, name=route.name)
                    if isinstance(asked, Response):
                        return asked
                    fields = asked
                return Acceptance(
                    handler=self._bind(route, parameters),
                    subprotocol=subprotocol,
                    headers=fields,
                    compression=options.compression if options.own_compression else settings.compression,
                    name=route.name,
                    limits=options.limits,
                    timeouts=options.timeouts,
                    told=options.told,
                )

    def _bind(
        self, route: Route[RouteOptions], parameters: dict[str, Any]
    ) -> Callable[[Connection], Awaitable[object]]:
        handler = route.handler
        if not self.wrappers:
            return functools.partial(handler, **parameters) if parameters else handler

        async def wrapped(ws: Connection) -> Any:
            async with AsyncExitStack() as stack:
                for wrapper in self.wrappers:
                    await stack.enter_async_context(wrapper(ws))
                return await handler(ws, **parameters)

        return wrapped

    async def _have_upgraded(self, mount: Mount, request: Request) -> Acceptance | Response:
        """Let a mounted application accept or refuse an opening handshake."""
        settings = self._settings
        if not (mount.origins or settings.origins).allow(request):
            return _foreign(request, "connect here")
        fields = await self._admit(mount, request)
        if not isinstance(fields, tuple):
            return fields
        call = WebSocketCall(mount, request, fields, settings.compression)
        answer = await call.open(settings.timeouts.guard)
        return answer or _out_of_time(request, "mount.timeout", mount=mount.path)

    async def _have_answered(self, mount: Mount, request: Request) -> Acceptance | Response | Streamed:
        """Let a mounted application answer a plain request."""
        if not (mount.origins or self._settings.origins).allow_http(request):
            return _foreign(request, f"send {request.method} here")
        fields = await self._admit(mount, request)
        return HTTPCall(mount, request, fields) if isinstance(fields, tuple) else fields

    async def _admit(self, mount: Mount, request: Request) -> Response | Refusal | _Fields:
        """Ask the guards; return the header fields that they add, or the answer of the one that refuses."""
        if not mount.running:
            return _crashed("handler", mount.name, mount.not_running())
        if not (self.guards and mount.guarded):
            return ()
        asked = await self._ask(self.guards, None, request, {})
        if isinstance(asked, Refusal):
            # As for a route: browsers want a subprotocol of those that they offered.
            return attrs.evolve(asked, subprotocol=next(iter(request.subprotocols), None), name=mount.name)
        return asked

    async def _answer(self, request: Request) -> Acceptance | Response | Streamed:
        match self.pages.resolve(request.path, (request.method,)):
            case Match(route, _, parameters):
                options = route.options
                if not (options.origins or self._settings.origins).allow_http(request):
                    return _foreign(request, f"send {request.method} here")
                if options.limits is not None or options.timeouts is not None:
                    limits = options.limits or self._settings.limits
                    bound_body(request, limits.body_bytes, (options.timeouts or self._settings.timeouts).body)
                steps = (*self.guards, *options.steps) if options.guarded else options.steps
                fields: _Fields = ()
                if steps:
                    asked = await self._ask(steps, options.timeouts, request, parameters)
                    if not isinstance(asked, tuple):
                        return asked
                    fields = asked
                return await self._render(route, request, parameters, fields)
            case NoSubprotocol(methods):
                allow = ", ".join(methods)
                return Response.error(405, f"{request.path} answers {allow}", {"Allow": allow})
            case NoPath():
                if (mount := self.mounts.find(request.path)) is not None:
                    return await self._have_answered(mount, request)
                return self._answer_elsewhere(request)

    def _answer_elsewhere(self, request: Request) -> Response:
        if request.path not in self.websockets:
            return Response.error(404, f"there is nothing at {request.path}")
        if request.method not in ("GET", "HEAD"):
            return Response.error(405, f"{request.path} is a WebSocket; it answers GET", {"Allow": "GET"})
        # "a server [that requires an upgrade] MUST send an Upgrade header field" (RFC 9110 §15.5.22).
        return Response.error(
            426,
            f"{request.path} is a WebSocket: connect with a WebSocket client",
            {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"},
        )

    async def _render(
        self, route: Route[RouteOptions], request: Request, parameters: dict[str, Any], fields: _Fields
    ) -> Response:
        """Call an HTTP handler. Its answer gets these fields too, whatever it is."""
        handler: Callable[..., Awaitable[object]] = route.handler
        if route.options.in_thread:
            handler = functools.partial(self._threads.call, self._settings.limits.threads, handler)
        answer: Response | None = None
        try:
            with Limit((route.options.timeouts or self._settings.timeouts).http):
                answer = _as_response(await _call(handler, request, **parameters))
        except GivenUp:
            raise
        except BaseException as error:
            return _crashed("handler", route.name, error, fields)
        if answer is None:
            answer = _out_of_time(request, "handler.timeout", handler=route.name)
        if not fields:
            return answer
        # In front: of two cookies with one name the last one counts, and the handler knows more.
        return Response(answer.body, answer.status, (*fields, *answer.headers.pairs()))

    async def _ask(
        self, steps: Sequence[Step], timeouts: Timeouts | None, request: Request, parameters: dict[str, Any]
    ) -> Response | Refusal | _Fields:
        """Take steps in order.

        Returns:
            The answer of the first one that refuses, or the header fields of those that accept.

        Args:
            steps: at least one.
            timeouts: the route's own, or None.
            request: what they are called with.
            parameters: the path's; what given functions return is added.
        """
        step, fields = steps[0], list[tuple[str, str]]()
        try:
            with Limit((timeouts or self._settings.timeouts).guard):
                for step in steps:
                    taken = {name: parameters[name] for name in step.takes}
                    answer = await _call(step.function, request, **taken)
                    if isinstance(answer, Accept):
                        fields += answer.headers
                        answer = answer.value
                    refusal = _read_answer(step, answer, request, parameters)
                    if refusal is not None:
                        return refusal
                return tuple(fields)
        except GivenUp:
            raise
        except BaseException as error:
            return _crashed("guard", name_of(step.function), error)
        return _out_of_time(request, "guard.timeout", guard=name_of(step.function))


def _misdirected(request: Request) -> Response:
    record(logging.INFO, "host.refused", path=request.path, host=request.host)
    authority = parse_authority(request.host)
    name = "NAME" if authority is None or len(authority.host) > _LONGEST_NAME_CHARS else authority.host
    return Response.error(
        421,
        f"this server does not answer to this host; if it should, start it with --allow-host {name} or write "
        f"App(allowed_hosts=[{name!r}])",
    )


def _foreign(request: Request, what: str) -> Response:
    record(logging.INFO, "origin.refused", path=request.path, origin=request.origin)
    return Response.error(403, f"pages from {request.origin or 'other sites'} may not {what}")


async def _call(function: Callable[..., Awaitable[object]], /, *args: Any, **kwargs: Any) -> object:
    """Call a user's function; a `Reject` or `Accept` that it raises, perhaps in a group, is its answer."""
    try:
        return await function(*args, **kwargs)
    except Exception as error:  # one of these, or a group of nothing else
        answer = unwrap_group(error)
        if not isinstance(answer, Reject | Accept):
            del answer  # else the exception's own frames refer to it, and keep the request until a collection
            raise
        forget_frames(answer)
        return answer


def _read_answer(
    step: Step, answer: object, request: Request, parameters: dict[str, Any]
) -> Response | Refusal | None:
    """Return the answer of a step that refuses, or keep what a given function has returned."""
    if isinstance(answer, Reject):
        response = _as_response(answer)
        if answer.close is None or not request.is_websocket:
            return response
        return Refusal.by(answer.status, answer.close)
    if step.gives is None:
        if answer is None or isinstance(answer, Response):
            return answer
        raise TypeError(
            f"a guard returns None, an Accept without a value, or a Response, not {type(answer).__name__}"
        )
    wrong = _never_given(answer)
    if wrong is not None:
        raise TypeError(f"given {step.gives!r} returned {wrong}")
    parameters[step.gives] = answer
    return None


def _never_given(answer: object) -> str | None:
    """Say what is wrong with a value that is not meant for a handler: it may be a refusal of the client."""
    match answer:
        case Response():
            return "a Response; a given function refuses by raising Reject"
        case Close():
            return "a Close; a given function refuses by raising Reject(…, close=…)"
        case Accept():
            return "an Accept inside an Accept; return one with all fields"
        case Coroutine():  # of compiled functions too
            answer.close()  # the exception says more than a warning that it was never awaited
            return "a coroutine; it, or a decorator around it, lacks an await"
        case GeneratorType() if answer.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE:
            return "a coroutine made by types.coroutine; it, or a decorator around it, lacks an await"
        case _:
            return None


def _as_response(answer: object) -> Response:
    match answer:
        case Response():
            return answer
        case str() | bytes():
            return Response(answer)
        case Reject():
            return Response(answer.body, answer.status, answer.headers)
        case _:
            raise TypeError(f"an HTTP handler returns a Response, str or bytes, not {type(answer).__name__}")


def _crashed(
    where: Literal["guard", "handler"], name: str, error: BaseException, fields: _Fields = ()
) -> CrashResponse:
    """Answer 500 to what a user's function raised, whatever it is, but raise what is about the program.

    It may also be Trio's error on leaving our own scope: the function has left one of its own open inside it.
    A `Cancelled` is about a scope around us only if one is cancelled: it may have been kept of another one.
    """
    forget_earlier_frames(error)
    cancelled = split_cancelled(error)[0] is not None and trio.current_effective_deadline() == -math.inf
    if cancelled or interrupt_in(error) is not None:
        raise error
    return CrashResponse(where, name, error, fields)


def _out_of_time(request: Request, event: str, **where: Any) -> Response:
    record(logging.WARNING, event, path=request.path, remote=request.remote, **where)
    return Response.error(503, OVERDUE)
