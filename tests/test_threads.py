"""HTTP handlers that are plain functions: in threads, limited, and abandoned when nobody waits for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest
import trio

from tests.asking import answered, events, plain
from tests.waiting import until
from wsframework.app import App
from wsframework.config import Limits, Timeouts
from wsframework.errors import Reject, RouteError
from wsframework.request import Request, Response
from wsframework.session import CrashResponse
from wsframework.testing import request, serve

color: ContextVar[str] = ContextVar("color", default="none")


async def test_a_plain_handler_runs_in_a_thread_with_its_parameters_and_the_requests_context() -> None:
    app = App()
    threads: list[int] = []

    @app.guard
    async def paint(request: Request) -> None:
        color.set("red")

    @app.http("/{name}")
    def page(request: Request, name: str) -> str:
        threads.append(threading.get_ident())
        return f"{name} is {color.get()}"

    answer = await answered(app, plain("/ada"))
    assert (answer.status, answer.body) == (200, b"ada is red")
    assert threads[0] != threading.get_ident()


async def test_it_may_reject_and_what_it_raises_is_a_500() -> None:
    app = App()

    @app.http("/reject")
    def reject(request: Request) -> Response:
        raise Reject(409)

    @app.http("/fail")
    def fail(request: Request) -> Response:
        raise SystemExit

    assert (await answered(app, plain("/reject"))).status == 409
    crash = await answered(app, plain("/fail"))
    assert isinstance(crash, CrashResponse)
    assert isinstance(crash.exception, SystemExit)


async def test_one_that_makes_a_coroutine_is_told_why_that_is_wrong() -> None:
    app = App()

    async def page(request: Request) -> str:
        raise AssertionError("it is never awaited")

    app.http("/")(lambda request: page(request))
    crash = await answered(app, plain("/"))
    assert isinstance(crash, CrashResponse)
    assert "lack an await, or functools.wraps" in str(crash.exception)


async def test_it_reads_the_body_through_trio() -> None:
    app = App()

    @app.http("/", methods=["POST"])
    def page(request: Request) -> bytes:
        return trio.from_thread.run(request.body)

    answer = await request(app, "POST", "/", body=b"hello")
    assert answer.body == b"hello"


class Slow:
    """A handler that ends when it is told to."""

    def __init__(self) -> None:
        self.running = 0
        self.go_on = threading.Event()
        self.error: BaseException | None = None

    def __call__(self, request: Request) -> str:
        self.running += 1
        self.go_on.wait()
        self.running -= 1
        if self.error is not None:
            raise self.error
        return "done"


@pytest.fixture
def slow() -> Iterator[Slow]:
    handler = Slow()
    yield handler
    handler.go_on.set()


async def test_a_late_one_is_answered_503_and_counts_until_its_thread_ends(
    slow: Slow, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(limits=Limits(threads=1), timeouts=Timeouts(http=0.05))
    app.http("/slow")(slow)
    assert (await answered(app, plain("/slow"))).status == 503
    # The only thread is still busy: the next one does not even begin.
    assert (await answered(app, plain("/slow"))).status == 503
    assert slow.running == 1
    assert events(caplog) == ["handler.timeout", "handler.timeout"]
    slow.go_on.set()
    await until(lambda: slow.running == 0)
    app.timeouts = Timeouts(http=60)
    answer = await answered(app, plain("/slow"))
    assert (answer.status, answer.body) == (200, b"done")


async def test_what_an_abandoned_one_raises_is_logged(slow: Slow, caplog: pytest.LogCaptureFixture) -> None:
    app = App(timeouts=Timeouts(http=0.01))
    app.http("/slow")(slow)
    slow.error = ValueError("too late")
    assert (await answered(app, plain("/slow"))).status == 503
    slow.go_on.set()
    await until(lambda: "handler.abandoned" in events(caplog))
    assert "too late" in caplog.text


async def test_its_client_may_leave(slow: Slow, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app = App()
    app.http("/slow")(slow)
    async with serve(app) as server:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.request, "GET", "/slow")
                await until(lambda: slow.running == 1)
                scope.cancel()
        await until(lambda: server.server.statistics().connections == 0)
    assert slow.running == 1


@pytest.mark.parametrize("limits", [Limits(threads=2), Limits(threads=5)])
async def test_no_more_than_the_limit_run_at_once(slow: Slow, limits: Limits) -> None:
    app = App(limits=limits)
    app.http("/slow")(slow)
    async with trio.open_nursery() as nursery:
        for _ in range(limits.threads + 3):
            nursery.start_soon(answered, app, plain("/slow"))
        await until(lambda: slow.running == limits.threads)
        await trio.testing.wait_all_tasks_blocked()
        assert slow.running == limits.threads
        slow.go_on.set()


def generator(request: Request) -> Iterator[str]:
    yield ""


async def async_generator(request: Request) -> Any:
    yield ""


@pytest.mark.parametrize("handler", [generator, async_generator, Slow])
def test_what_can_be_no_handler_is_refused(handler: Any) -> None:
    with pytest.raises(RouteError, match="must be an async function"):
        App().http("/")(handler)


def test_a_plain_websocket_handler_guard_or_given_function_is_refused_with_the_reason() -> None:
    app = App()
    reason = r"a plain one would stop all connections while it runs. Write async def, .*trio\.to_thread"

    def function(first: Any, user: str = "") -> None: ...

    wrong: Any = function
    with pytest.raises(RouteError, match=reason):
        app.websocket("/")(wrong)
    with pytest.raises(RouteError, match=reason):
        app.http("/", guards=[wrong])
    with pytest.raises(RouteError, match=reason):
        app.websocket("/", given={"user": wrong})
