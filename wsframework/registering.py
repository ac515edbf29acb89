"""Registering: what the decorators of an App do while the program starts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Concatenate, Literal, TypeVar

import attrs

from wsframework.calling import (
    Given,
    Guard,
    GuardAnswer,
    check_app_guard,
    check_context_manager,
    check_handler,
    check_path,
    is_async,
)
from wsframework.config import Deflate, Limits, Timeouts
from wsframework.connection import Connection
from wsframework.deciding import Decider
from wsframework.errors import ConfigurationError
from wsframework.mountable import Mountable
from wsframework.observer import Observer
from wsframework.options import RouteOptions
from wsframework.plugins import Plugin, install_plugin
from wsframework.request import Request, Response
from wsframework.routing import Route, Template, check_methods, check_subprotocols

__all__ = ["Registry"]

HandlerT = TypeVar("HandlerT", bound=Callable[Concatenate[Connection, ...], Awaitable[Any]])
Page = Response | str | bytes
PageT = TypeVar("PageT", bound=Callable[Concatenate[Request, ...], Awaitable[Page] | Page])
GuardT = TypeVar("GuardT", bound=Callable[[Request], Awaitable[GuardAnswer]])
WrapperT = TypeVar("WrapperT", bound=Callable[[Connection], Any])
ObserverT = TypeVar("ObserverT", bound=Observer)
LifespanT = TypeVar("LifespanT", bound=Callable[..., Any])


class Registry(Mountable):
    """The part of an App that registers.

    Args:
        decider: gets what concerns single requests.

    Attributes:
        limits: those of the App, like `timeouts`.
    """

    limits: Limits
    timeouts: Timeouts

    def __init__(self, decider: Decider) -> None:
        self._decider = decider
        self._lifespans = []
        self._observers: list[Observer] = []
        self._plugins: list[Plugin] = []
        # By the handler's id, because two may have one name, and some cannot be hashed.
        self._told: dict[int, set[str]] = {}

    def websocket(
        self,
        path: str,
        *,
        subprotocols: Iterable[str] = (),
        guards: Iterable[Guard] = (),
        given: Mapping[str, Given] | None = None,
        compression: Deflate | Literal["app"] | None = "app",
        origins: str | Iterable[str] | None = None,
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
    ) -> Callable[[HandlerT], HandlerT]:
        """Register an async function for a path and, optionally, subprotocols.

        The handler is called with the connection and, by name, the path's parameters and what the given
        functions have returned. The same path may be registered again for other subprotocols. The first
        subprotocol in the client's list that has a handler selects it; if none has, a handler without
        subprotocols is called.

        Args:
            path: a template such as `/rooms/{room}` or `/users/{id:int}`; converters are str, int, float,
                uuid and path.
            subprotocols: the subprotocols of this handler; empty for clients that offer none.
            guards: called before the upgrade, after the App's own guards, with the request and those of the
                path's parameters that they name.
            given: async functions by the name of the handler's argument that they return, such as
                `{"user": find_user}`. They are called after the guards, in order, once, and like them:
                `async def find_user(request, room)`. A raised `Reject` refuses the request. `Timeouts.guard`
                bounds them and the guards together.
            compression: permessage-deflate for this route, or None for no compression; `"app"` (the default)
                uses the App's setting.
            origins: the allowed origins of this route, instead of the App's.
            limits: the limits of this route's connections, instead of the App's: make them of the App's, by
                `attrs.evolve(app.limits, message_bytes=…)`.
            timeouts: their timeouts, in the same way.

        Raises:
            RouteError: the path, a subprotocol, `compression` or the parameters of a function do not fit, the
                path is taken, or `limits` or `timeouts` change what is about the whole server.
            ConfigurationError: an entry of `origins` is not an origin.
        """
        template = Template.parse(check_path(path, "websocket"))
        keys = check_subprotocols(subprotocols)
        options = RouteOptions.read(
            template, self, guards, given, origins, compression=compression, limits=limits, timeouts=timeouts
        )

        def register(handler: HandlerT) -> HandlerT:
            check_handler(handler, template.text, "ws", template.names, options.given)
            told = attrs.evolve(options, told=self._told.setdefault(id(handler), set()))
            self._decider.websockets.add(Route(template, "websocket", keys, handler, told))
            return handler

        return register

    def http(
        self,
        path: str,
        *,
        methods: Iterable[str] = ("GET",),
        guards: Iterable[Guard] = (),
        given: Mapping[str, Given] | None = None,
        guarded: bool = True,
        origins: str | Iterable[str] | None = None,
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
    ) -> Callable[[PageT], PageT]:
        """Register a function that answers plain HTTP on the same port, for a page or a health check.

        The handler is called with the request and, by name, the path's parameters and what the given
        functions have returned. It returns a `Response`, or text or bytes for a 200. It is for small answers.
        `Request.body` and the methods beside it read what was sent. A function that is not async is called
        in a thread, at most `Limits.threads` of them at once. When `Timeouts.http` is over, or its client has
        left, the thread runs on, and counts until it ends.

        Args:
            path: a template, as for `websocket`.
            methods: the HTTP methods that it answers; GET includes HEAD.
            guards: as for `websocket`, called before the handler.
            given: as for `websocket`.
            guarded: False exempts the route from the App's own guards, for a health check for example.
            origins: the allowed origins of this route, instead of the App's.
            limits: as for `websocket`; `body_bytes` counts.
            timeouts: as for `websocket`; `guard`, `http` and `body` count.

        Raises:
            RouteError: the path, `limits`, `timeouts`, a method or the parameters of a function do not fit,
                or the path is taken.
            ConfigurationError: an entry of `origins` is not an origin.
        """
        template = Template.parse(check_path(path, "http"))
        keys = check_methods(methods)
        options = RouteOptions.read(
            template, self, guards, given, origins, guarded=guarded, limits=limits, timeouts=timeouts
        )

        def register(handler: PageT) -> PageT:
            check_handler(handler, template.text, "request", template.names, options.given, plain=True)
            own = attrs.evolve(options, in_thread=not is_async(handler))
            self._decider.pages.add(Route(template, "http", keys, handler, own))
            return handler

        return register

    def guard(self, guard: GuardT) -> GuardT:
        """Register a guard, `async (request) -> None | Accept | Response`, for all requests with a handler.

        It is called for every upgrade and every plain HTTP request on all paths, including those of plugins,
        except routes with `app.http(…, guarded=False)`. `request.is_websocket` tells the two apart. None
        or an `Accept` lets the request through, and the next guard is called; a `Response`, or a raised
        `Reject`, refuses it.

        Raises:
            ConfigurationError: the guard is not an async function of the request alone.
        """
        self._decider.guards.append(check_app_guard(guard))
        return guard

    def wrap(self, wrapper: WrapperT) -> WrapperT:
        """Register a wrapper: an async context manager around every connection's handler.

        It is called with the connection, whose nursery it may use, and is entered before the handler starts
        and left when it ends, with the handler's exception if there is one. An async generator function with
        one `yield` also works.

        Raises:
            ConfigurationError: it is not callable.
        """
        self._decider.wrappers.append(check_context_manager(wrapper, "wrapper"))
        return wrapper

    def lifespan(self, lifespan: LifespanT) -> LifespanT:
        """Register a lifespan: an async context manager around the time in which the App serves.

        It is called with the App if it takes an argument. An async generator function with one `yield` also
        works. Lifespans are entered in the order of registration before the first connection is
        accepted, and left in reverse after the last one is closed.

        Raises:
            ConfigurationError: it is not callable.
        """
        self._lifespans.append(check_context_manager(lifespan, "lifespan"))
        return lifespan

    def observe(self, observer: ObserverT) -> ObserverT:
        """Register an observer of connections, crashes and the server; see `Observer`.

        A server uses the observers that are registered when it starts, which may be in a lifespan.

        Raises:
            ConfigurationError: it is not an instance of a class derived from `Observer`.
        """
        if not isinstance(observer, Observer):
            raise ConfigurationError(
                f"an observer is an object of a class derived from Observer, not {observer!r}"
            )
        self._observers.append(observer)
        return observer

    def install(self, plugin: Plugin | str, **options: Any) -> None:
        """Install a plugin: an object with `install(app)`, or the name of an installed entry point.

        Args:
            plugin: the plugin, or its name in the entry point group `wsframework.plugins`.
            options: keyword arguments for a plugin that is given by name.

        Raises:
            PluginError: it cannot be found or loaded, is not a plugin, is already installed, or its `install`
                failed.
        """
        self._plugins.append(install_plugin(self, plugin, options, self._plugins))

    @property
    def observers(self) -> tuple[Observer, ...]:
        """The registered observers, in the order of registration."""
        return tuple(self._observers)

    @property
    def routes(self) -> tuple[Route[RouteOptions], ...]:
        """All routes, WebSocket and HTTP, in the order of registration of each kind."""
        return (*self._decider.websockets.routes, *self._decider.pages.routes)
