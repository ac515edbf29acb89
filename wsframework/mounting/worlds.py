"""Where a mounted application runs: in this Trio run, or elsewhere in the same thread.

Everything that a bridge waits for on behalf of an application goes through `World.call`, and everything else
in it is synchronous. So a program that runs Trio inside another event loop can run its applications there: it
gives the bridges a `World` of its own with `use_world`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeVar

import trio

__all__ = ["ASGIApp", "Message", "Receive", "Scope", "Send", "World", "current_world", "use_world"]

Scope = MutableMapping[str, Any]
"""What an ASGI application is told of one request, or of its lifespan."""

Message = MutableMapping[str, Any]
"""One event of ASGI."""

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI 3 application. Each framework has types of its own for the arguments: scope, receive and send."""

ResultT = TypeVar("ResultT")


class World(Protocol):
    """An event loop that runs applications."""

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run an application; called in a Trio task, whose cancellation reaches it."""

    async def call(self, function: Callable[..., Awaitable[ResultT]], *args: object) -> ResultT:
        """Await a function of Trio; called in a task of the application, whose cancellation reaches it."""


class _TrioWorld:
    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    async def call(self, function: Callable[..., Awaitable[ResultT]], *args: object) -> ResultT:
        return await function(*args)


_world: trio.lowlevel.RunVar[World] = trio.lowlevel.RunVar("wsframework.mounting.world", _TrioWorld())


def current_world() -> World:
    """Return where applications run that are mounted in this Trio run."""
    return _world.get()


def use_world(world: World) -> None:
    """Run the applications that are mounted in this Trio run in another event loop."""
    _world.set(world)
