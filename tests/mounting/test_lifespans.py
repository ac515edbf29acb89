from __future__ import annotations

import logging

import attrs
import pytest
import trio
import trio.testing

from tests.mounting.stage import LASTING, application, body, new_app, start
from wsframework import App, MountError
from wsframework.mounting.worlds import Receive, Scope, Send
from wsframework.testing import request, serve

pytestmark = pytest.mark.virtual_time


class Lively:
    """An application with a lifespan; `events` has what happened."""

    def __init__(self, name: str, events: list[str]) -> None:
        self.name = name
        self.events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            scope["state"]["name"] = self.name
            self.events.append(f"{self.name} starts")
            await send({"type": "lifespan.startup.complete"})
            assert (await receive())["type"] == "lifespan.shutdown"
            self.events.append(f"{self.name} ends")
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send(start())
        await send(body(scope["state"]["name"].encode()))


async def test_each_mount_has_its_own_lifespan_and_state_around_the_time_of_serving() -> None:
    events: list[str] = []
    app = new_app()
    app.mount("/a", Lively("a", events))
    app.mount("/b", Lively("b", events))

    async with serve(app):
        assert events == ["a starts", "b starts"]
        assert (await request(app, "GET", "/a")).text == "a"
        assert (await request(app, "GET", "/b")).text == "b"
    assert events[2:] == ["b ends", "a ends"]


async def test_the_shutdown_comes_after_the_drain_also_when_the_server_is_cancelled() -> None:
    events: list[str] = []
    app = new_app(attrs.evolve(LASTING, drain=5.0))

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await trio.sleep_forever()
        finally:
            events.append("answer ends")

    app.mount("/slow", application(slow))
    app.mount("/", Lively("a", events))
    async with trio.open_nursery() as nursery:
        server = await nursery.start(app.serve, "127.0.0.1", 0)
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        await stream.send_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    await stream.aclose()
    assert events == ["a starts", "answer ends", "a ends"]


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
    raise RuntimeError("no database")


async def test_a_start_up_that_fails_is_a_mount_error_and_ends_those_before_it() -> None:
    events: list[str] = []
    app = new_app()
    app.mount("/", Lively("a", events))
    app.mount("/db", failing)
    with pytest.raises(MountError, match="mount /db could not start: no database"):
        async with app.running():
            raise AssertionError
    assert events == ["a starts", "a ends"]


async def only_http(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await send(start())
    await send(body(b"state" if "state" in scope else b"none"))


async def receives_first(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await only_http(scope, receive, send)


async def returns(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "lifespan":
        await only_http(scope, receive, send)


@pytest.mark.parametrize("handler", [only_http, receives_first, returns])
async def test_an_application_without_a_lifespan_is_fine(handler: object) -> None:
    app = new_app()
    app.mount("/", handler)  # type: ignore[arg-type]
    assert (await request(app, "GET", "/")).text == "none"


async def test_a_start_up_can_be_cancelled() -> None:
    ended = trio.Event()

    async def stuck(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    app = new_app()
    app.mount("/", stuck)
    with trio.move_on_after(1):
        async with app.running():
            raise AssertionError
    assert ended.is_set()


async def test_a_shutdown_has_a_limit_and_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    async def resisting(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await trio.sleep_forever()

    async def failing_late(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "disk full"})

    async def crashing(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise ZeroDivisionError

    app = App(timeouts=attrs.evolve(LASTING, lifespan=3.0))
    app.mount("/a", resisting)
    app.mount("/b", failing_late)
    app.mount("/c", crashing)
    async with app.running():
        began = trio.current_time()
    assert trio.current_time() - began < 10
    texts = [found.getMessage() for found in caplog.records if found.levelno >= logging.WARNING]
    assert [text.split()[0] for text in texts] == [
        "mount.crashed",
        "mount.shutdown_failed",
        "mount.shutdown_timeout",
    ]
    assert "disk full" in texts[1]
