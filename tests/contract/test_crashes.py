"""What user code raises, or does to its task, ends its connection; a KeyboardInterrupt ends the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from tests.contract.differences import Difference
from tests.contract.hosts import Host, Served, new_app
from tests.contract.test_opening import handshake
from wsframework import App, Connection, Request
from wsframework.crashes import unwrap_group


class Own(BaseException):
    """An exception of a user's own that is no `Exception`."""


async def run_asyncio() -> None:
    async def cancel() -> None:
        raise asyncio.CancelledError

    await trio.to_thread.run_sync(asyncio.run, cancel())


async def leave_a_nursery_open() -> None:
    async def ticks() -> AsyncIterator[str]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 0.001)
            while True:
                yield "tick"

    abandoned = ticks()
    kept.append(abandoned)
    async for _ in abandoned:
        break


kept: list[object] = []


def raising(error: BaseException) -> Callable[[], Awaitable[None]]:
    async def crash() -> None:
        raise error

    return crash


INTERRUPT = "interrupt"

CRASHES: dict[str, Callable[[], Awaitable[None]]] = {
    INTERRUPT: raising(KeyboardInterrupt()),
    "exception": raising(ZeroDivisionError()),
    "own": raising(Own()),
    "asyncio": raising(asyncio.CancelledError()),
    "asyncio-in-a-thread": run_asyncio,
    "GeneratorExit": raising(GeneratorExit()),
    "SystemExit": raising(SystemExit(2)),
    "group": raising(BaseExceptionGroup("", [ZeroDivisionError(), SystemExit()])),
    "nursery-left-open": leave_a_nursery_open,
}


KINDS = [kind for kind in CRASHES if kind != INTERRUPT]

abandons_a_generator = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def crashing_app() -> App:
    app = new_app()

    @app.guard
    async def guard(request: Request) -> None:
        if request.path.startswith("/guard/"):
            await CRASHES[request.path.removeprefix("/guard/")]()

    @app.websocket("/guard/{kind}")
    async def guarded(ws: Connection, kind: str) -> None:
        await ws.send("it was let in")

    async def user(request: Request, kind: str) -> str:
        await CRASHES[kind]()
        return "Ada"

    async def other(request: Request) -> str:
        raise AssertionError("the first one has crashed")

    @app.websocket("/given/{kind}", given={"user": user, "other": other})
    async def given(ws: Connection, kind: str, user: str, other: str) -> None:
        await ws.send("it was let in")

    @app.websocket("/echo")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    @app.websocket("/handler/{kind}")
    async def handler(ws: Connection, kind: str) -> None:
        await CRASHES[kind]()

    @app.websocket("/child/{kind}")
    async def child(ws: Connection, kind: str) -> None:
        ws.nursery.start_soon(CRASHES[kind])
        await trio.sleep_forever()

    @app.http("/page/{kind}")
    async def page(request: Request, kind: str) -> str:
        await CRASHES[kind]()
        return "fine"

    return app


@asynccontextmanager
async def neighbourhood(host: Host) -> AsyncIterator[Served]:
    """Serve an App whose handlers crash; a neighbour must not notice, and newcomers must be let in."""
    async with host.serve(crashing_app()) as served, served.connect("/echo") as neighbour:
        yield served
        async with served.connect("/echo") as newcomer:
            for client in (neighbour, newcomer):
                await client.send("still here")
                assert await client.receive() == "still here"


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the events of what was logged as an error, and forget it."""
    events = [str(vars(entry).get("event")) for entry in caplog.records if entry.levelno >= logging.ERROR]
    caplog.clear()
    return events


async def ask(served: Served, path: str) -> bytes:
    return await served.get(path)


@abandons_a_generator
@pytest.mark.parametrize("where", ["handler", "child"])
@pytest.mark.real_time
async def test_a_crash_of_any_kind_is_1011_and_one_log_record(
    host: Host, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with neighbourhood(host) as served:
        for kind in KINDS:
            async with served.connect(f"/{where}/{kind}") as client:
                assert (await client.wait_closed()).code == 1011, kind
            assert logged(caplog) == ["handler.crashed"], kind


@abandons_a_generator
@pytest.mark.parametrize("where", ["guard", "given"])
@pytest.mark.real_time
async def test_a_crash_of_any_kind_before_the_upgrade_is_500_and_one_log_record(
    host: Host, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with neighbourhood(host) as served:
        for kind in KINDS:
            answer = await served.exchange(handshake(served, f"/{where}/{kind}"))
            assert answer.startswith(b"HTTP/1.1 500"), kind
            assert logged(caplog) == ["guard.crashed"], kind


@abandons_a_generator
@pytest.mark.real_time
async def test_a_crash_of_any_kind_in_a_page_is_500_and_one_log_record(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    async with neighbourhood(host) as served:
        for kind in KINDS:
            answer = await ask(served, f"/page/{kind}")
            if host.differs(Difference.SPEAKS_NO_HTTP):
                assert answer.startswith(b"HTTP/1.1 400")
                continue
            assert answer.startswith(b"HTTP/1.1 500"), kind
            assert logged(caplog) == ["handler.crashed"], kind


@pytest.mark.parametrize("where", ["handler", "guard", "given"])
async def test_a_keyboard_interrupt_closes_everybody_with_1001_and_ends_the_server(
    host: Host, where: str
) -> None:
    codes: list[int] = []

    async def interrupt() -> None:
        async with host.serve(crashing_app()) as served, served.connect("/echo") as neighbour:

            async def wait() -> None:
                codes.append((await neighbour.wait_closed()).code)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await served.exchange(handshake(served, f"/{where}/{INTERRUPT}"))
            await trio.sleep(5)

    with pytest.raises(BaseException) as caught:
        await interrupt()
    assert isinstance(unwrap_group(caught.value), KeyboardInterrupt)
    assert codes == [1001]
