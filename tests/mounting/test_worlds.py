"""An application runs where `use_world` says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tests.mounting.stage import Plain, new_app
from wsframework.mounting.worlds import ASGIApp, Receive, Scope, Send, current_world, use_world
from wsframework.testing import request

ResultT = TypeVar("ResultT")


class Watched:
    """Counts what goes through it."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.calls = 0

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        self.ran.append(scope["type"])
        await app(scope, receive, send)

    async def call(self, function: Callable[..., Awaitable[ResultT]], *args: object) -> ResultT:
        self.calls += 1
        return await function(*args)


async def test_everything_that_is_waited_for_goes_through_the_world() -> None:
    world = Watched()
    use_world(world)
    assert current_world() is world
    app = new_app()
    app.mount("/", Plain())
    assert (await request(app, "GET", "/")).text == "mounted"
    assert world.ran == ["lifespan", "http"]
    assert world.calls == 2
