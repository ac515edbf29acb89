"""No test passes whose handler crashed: whatever crashes, wherever, and whatever the program's log does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import trio
from trio.abc import Clock
from trio_websocket import ConnectionClosed, ConnectionRejected

from wsframework import App, Connection, Request, Rooms
from wsframework.testing import connect, request, serve


class Crash(Exception):
    """What nothing but a crash raises."""


def crash() -> None:
    raise Crash


@contextlib.contextmanager
def logger_set(name: str) -> Iterator[None]:
    logger = logging.getLogger("wsframework")
    before = logger.level, logger.disabled, logger.propagate, logger.handlers[:], logger.filters[:]
    disabled = logging.root.manager.disable
    LOGS[name](logger)
    try:
        yield
    finally:
        logger.level, logger.disabled, logger.propagate, logger.handlers, logger.filters = before
        logger.manager._clear_cache()  # type: ignore[attr-defined]
        logging.disable(disabled)


def _remove_handlers(logger: logging.Logger) -> None:
    logger.handlers = []
    logger.addHandler(logging.NullHandler())


LOGS: dict[str, Callable[[logging.Logger], object]] = {
    "as it is": lambda logger: None,
    "critical": lambda logger: logger.setLevel(logging.CRITICAL),
    "disabled": lambda logger: setattr(logger, "disabled", True),
    "no propagation": lambda logger: setattr(logger, "propagate", False),
    "logging.disable": lambda logger: logging.disable(logging.CRITICAL),
    "no handlers": _remove_handlers,
    "a filter": lambda logger: logger.addFilter(lambda entry: False),
}


@pytest.fixture(params=LOGS)
def log(request: pytest.FixtureRequest) -> Iterator[None]:
    with logger_set(request.param):
        yield


Register = Callable[[App], None]


def _at_once(app: App) -> None:
    @app.websocket("/")
    async def talk(ws: Connection) -> None:
        raise Crash


def _at_the_end(app: App) -> None:
    @app.websocket("/")
    async def talk(ws: Connection) -> None:
        async for _ in ws:
            pass
        raise Crash


def _in_a_cleanup(app: App) -> None:
    @app.websocket("/")
    async def talk(ws: Connection) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Crash


def _in_a_child(app: App) -> None:
    async def crash() -> None:
        raise Crash

    @app.websocket("/")
    async def talk(ws: Connection) -> None:
        ws.nursery.start_soon(crash)
        await trio.sleep_forever()


def _in_a_childs_cleanup(app: App) -> None:
    async def crash() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise Crash

    @app.websocket("/")
    async def talk(ws: Connection) -> None:
        ws.nursery.start_soon(crash)
        async for _ in ws:
            pass


def _in_a_wrapper_before(app: App) -> None:
    _echo(app)

    @app.wrap
    async def wrap(ws: Connection) -> AsyncIterator[None]:
        crash()
        yield


def _in_a_wrapper_after(app: App) -> None:
    _echo(app)

    @app.wrap
    async def wrap(ws: Connection) -> AsyncIterator[None]:
        yield
        await trio.sleep(1)
        raise Crash


def _in_a_room(app: App) -> None:
    rooms = Rooms()

    @app.websocket("/")
    async def talk(ws: Connection) -> None:
        async with rooms["tea"].join(ws):
            async for _ in ws:
                pass
            raise Crash


def _echo(app: App) -> None:
    @app.websocket("/")
    async def talk(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)


UNSEEN: dict[str, Register] = {
    "at once": _at_once,
    "at the end": _at_the_end,
    "in a cleanup": _in_a_cleanup,
    "in a child": _in_a_child,
    "in a child's cleanup": _in_a_childs_cleanup,
    "in a wrapper, before": _in_a_wrapper_before,
    "in a wrapper, after": _in_a_wrapper_after,
    "in a room": _in_a_room,
}


def app_with(register: Register) -> App:
    app = App()
    register(app)
    return app


async def speak(app: App, data: bytes) -> None:
    """Send bytes of a test's own to an App, read the answer, and leave."""
    async with serve(app) as server, server.open_stream() as stream:
        await stream.send_all(data)
        await stream.receive_some(4096)
        await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("register", UNSEEN.values(), ids=UNSEEN)
async def test_a_crash_that_the_test_did_not_see_fails_it(
    register: Register, log: None, autojump_clock: Clock
) -> None:
    with pytest.raises(Crash):
        async with connect(app_with(register)):
            await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("register", UNSEEN.values(), ids=UNSEEN)
async def test_so_does_one_of_a_connection_of_bytes_or_one_that_is_dropped(
    register: Register, log: None, autojump_clock: Clock
) -> None:
    with pytest.raises(Crash):
        await speak(
            app_with(register),
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )


LATE = ["at the end", "in a cleanup", "in a child's cleanup", "in a wrapper, after", "in a room"]


@pytest.mark.parametrize("name", LATE)
async def test_a_crash_after_a_normal_close_fails_the_test_that_has_seen_the_close(
    name: str, autojump_clock: Clock
) -> None:
    async def see_the_close() -> None:
        async with connect(app_with(UNSEEN[name])) as client:
            await client.aclose()
            assert (await client.wait_closed()).code == 1000
            with pytest.raises(ConnectionClosed):
                await client.receive()

    with pytest.raises(Crash):
        await see_the_close()


@pytest.mark.parametrize(
    "error", [SystemExit(), GeneratorExit(), asyncio.CancelledError(), StopAsyncIteration()]
)
async def test_any_exception_is_a_crash(error: BaseException, log: None) -> None:
    app = App()

    @app.websocket("/")
    async def talk(ws: Connection) -> None:
        raise error

    with pytest.raises(BaseException) as caught:
        async with connect(app):
            pass
    assert error in (caught.value, caught.value.__cause__)


# Where the client gets an answer, the answer has the crash.


async def _refuse(request: Request) -> None:
    raise Crash


@pytest.mark.parametrize(
    "route",
    [
        lambda app: app.websocket("/", guards=[_refuse]),
        lambda app: app.websocket("/", given={"user": _refuse}),
    ],
    ids=["guard", "given"],
)
async def test_a_crash_before_the_handshake_is_the_cause_of_the_refusal(
    route: Callable[[App], Callable[[object], object]], log: None
) -> None:
    async def talk(ws: Connection, user: object = None) -> None:
        raise AssertionError

    app = App()
    route(app)(talk)
    with pytest.raises(ConnectionRejected) as caught:
        async with connect(app):
            pass
    assert isinstance(caught.value.__cause__, Crash)


async def test_a_crash_of_the_apps_guard_is_too(log: None) -> None:
    app = app_with(_echo)
    app.guard(_refuse)
    with pytest.raises(ConnectionRejected) as caught:
        async with connect(app):
            pass
    assert isinstance(caught.value.__cause__, Crash)


async def test_a_page_that_crashes_has_it_in_its_answer(log: None) -> None:
    app = App()

    @app.http("/")
    async def page(request: Request) -> str:
        raise Crash

    answer = await request(app, "GET", "/")
    assert answer.status == 500
    assert isinstance(answer.crash, Crash)


async def test_a_page_that_crashes_for_bytes_of_the_tests_own_fails_it(log: None) -> None:
    app = App()

    @app.http("/")
    async def page(request: Request) -> str:
        raise Crash

    with pytest.raises(Crash):
        await speak(app, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


# Lifespans


async def _crash(after: float) -> None:
    await trio.sleep(after)
    raise Crash


async def _starting() -> AsyncIterator[None]:
    crash()
    yield


async def _ending() -> AsyncIterator[None]:
    yield
    raise Crash


async def _working() -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_crash, 1)
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("lifespan", [_starting, _ending, _working])
async def test_a_crash_of_a_lifespan_fails_the_test(
    lifespan: Callable[[], AsyncIterator[None]], log: None, autojump_clock: Clock
) -> None:
    app = app_with(_echo)
    app.lifespan(lifespan)
    with pytest.raises((Crash, ExceptionGroup)) as caught:
        async with connect(app):
            await trio.sleep(2)
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, Crash)


async def test_the_tests_own_failure_comes_before_a_crash() -> None:
    async def fail() -> None:
        async with connect(app_with(_at_once)):
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
