"""Promise 11: whatever a connection's code raises, or does to its task, ends that connection and nothing
else.

Only KeyboardInterrupt, and SystemExit out of a lifespan, end the program, gracefully. A server is whole or
gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.lowlevel

from tests.promises.crashing import Own, app_that_does, end
from tests.promises.rawclient import Client, upgrade_request
from tests.promises.stage import Journal, Stage, new_app, tasks_alive
from tests.waiting import until
from wsframework import App, Connection, Timeouts
from wsframework.server import Server


def deep(error: BaseException) -> BaseException:
    for _ in range(3000):
        error = BaseExceptionGroup("g", [error])
    return error


class Masked(Exception):
    """Does not tell what it is, not even to the standard library's traceback."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise RuntimeError("no class")


Raise = Callable[[], BaseException]
ODD: dict[str, Raise] = {
    "own": lambda: Own("own"),
    "asyncio": asyncio.CancelledError,
    "generator": GeneratorExit,
    "exit": lambda: SystemExit(3),
    "stop": StopAsyncIteration,
    "group": lambda: BaseExceptionGroup("g", [ValueError(1), Own("own")]),
    "deep": lambda: deep(Own("deep")),
    "masked": Masked,
}
PLACES = ["/handler", "/wrapper", "/child", "/thread", "/page", "/guard", "/page/guard"]


async def tick() -> AsyncIterator[str]:
    """The classic mistake: a yield inside a nursery."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        while True:
            yield "tick"


async def limited() -> AsyncIterator[str]:
    """Its sister: a yield inside a cancel scope."""
    with trio.move_on_after(0.05):
        while True:
            yield "tick"


kept: list[object] = []
"""Generators that were left in the middle: the collector must not repair what a test breaks."""


async def break_out(make: Callable[[], AsyncIterator[str]]) -> None:
    generator = make()
    kept.append(generator)
    async for _ in generator:
        break


async def leave_a_scope() -> None:
    scope = trio.CancelScope()
    kept.append(scope)
    scope.__enter__()


async def leave_a_nursery() -> None:
    manager = trio.open_nursery()
    kept.append(manager)
    nursery = await manager.__aenter__()
    nursery.start_soon(trio.sleep_forever)


async def leave_a_nursery_whose_task_fails() -> None:
    manager = trio.open_nursery()
    kept.append(manager)
    nursery = await manager.__aenter__()

    async def fail() -> None:
        raise Own("in a nursery that nobody will leave")

    nursery.start_soon(fail)
    await trio.lowlevel.checkpoint()


async def raise_what_was_kept() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as cancelled:
            saved = cancelled
            raise
    raise BaseExceptionGroup("g", [saved])


DAMAGE: dict[str, Callable[[], object]] = {
    "nursery in a generator": functools.partial(break_out, tick),
    "scope in a generator": functools.partial(break_out, limited),
    "scope": leave_a_scope,
    "nursery": leave_a_nursery,
    "failing nursery": leave_a_nursery_whose_task_fails,
    "Cancelled of another scope": raise_what_was_kept,
}


@pytest.fixture(autouse=True)
def _forget() -> object:
    yield
    kept.clear()


async def provoke(stage: Stage, server: Server, place: str) -> None:
    """Let the deed be done there, and see its own client hear of it."""
    if place in ("/page", "/page/guard"):
        page = f"GET {place} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert (await stage.ask(server, page)).status == 500
        return
    client = await stage.dial(server)
    answer = await client.upgrade(place)
    if place == "/guard":
        assert answer.status == 500
        client.vanish()
        return
    await client.send_text("go")
    close = await client.next_frame()
    assert close.close_code == 1011
    await end(client, 1011)


async def check_is_well(stage: Stage, server: Server, neighbour: Client) -> None:
    await neighbour.send_text("are you there?")
    assert await neighbour.next_text() == "are you there?"
    newcomer = await stage.connect(server, "/echo")
    await newcomer.send_text("and for me?")
    assert await newcomer.next_text() == "and for me?"
    await newcomer.close_well()
    await until(lambda: server.statistics().connections == 1)


async def check_every_place(stage: Stage, journal: Journal, app: App, places: list[str]) -> None:
    """Have the deed done in each place in turn: one record, and everybody else is served."""
    server = await stage.serve(app)
    neighbour = await stage.connect(server, "/echo")
    for place in places:
        await provoke(stage, server, place)
        await check_is_well(stage, server, neighbour)
        crashes = journal.events(least=logging.WARNING)
        assert len(crashes) == 1, (place, crashes)
        assert crashes[0] in ("handler.crashed", "guard.crashed")
        journal.clear()
    await neighbour.close_well()
    stage.cancel(server)
    await stage.wait_ended(server)


@pytest.mark.parametrize("name", ODD)
async def test_whatever_is_raised_is_one_connections_crash_with_one_record(
    stage: Stage, journal: Journal, name: str
) -> None:
    def deed() -> None:
        raise ODD[name]()

    places = [place for place in PLACES if (name, place) != ("deep", "/child")]
    # Trio's own nursery cannot take that one: it wants the exception's repr().
    await check_every_place(stage, journal, app_that_does(deed), places)


@pytest.mark.parametrize("name", DAMAGE)
async def test_whatever_is_done_to_the_task_is_one_connections_crash_with_one_record(
    stage: Stage, journal: Journal, name: str
) -> None:
    # The others have a task of their own, and Trio forgives it a scope.
    places = [place for place in PLACES if place != "/thread" and (place != "/child" or "scope" not in name)]
    await check_every_place(stage, journal, app_that_does(DAMAGE[name]), places)


async def test_a_hundred_damaged_tasks_leave_nothing_behind(stage: Stage) -> None:
    server = await stage.serve(app_that_does(DAMAGE["nursery in a generator"]))
    neighbour = await stage.connect(server, "/echo")
    await provoke(stage, server, "/handler")
    await check_is_well(stage, server, neighbour)
    before = tasks_alive()
    for _ in range(100):
        await provoke(stage, server, "/handler")
    await check_is_well(stage, server, neighbour)
    # The neighbour's task is in the first nursery; every other one has gone with its only task.
    await until(lambda: tasks_alive() <= before + 1)


async def test_a_crash_closes_at_once_though_a_child_holds_out(stage: Stage) -> None:
    app = new_app(timeouts=Timeouts(disconnect_grace=0.2, drain=1))
    release = trio.Event()

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        async def hold_out() -> None:
            with trio.CancelScope(shield=True):
                await release.wait()

        async def fail() -> None:
            raise Own("own")

        ws.nursery.start_soon(hold_out)
        ws.nursery.start_soon(fail)
        await trio.sleep_forever()

    server = await stage.serve(app)
    client = await stage.connect(server)
    assert (await client.next_frame()).close_code == 1011
    release.set()


# The program's end


@pytest.mark.parametrize("place", ["/handler", "/child", "/page", "/guard", "/wrapper"])
async def test_a_keyboard_interrupt_drains_the_server_and_is_raised(
    place: str, stage: Stage, journal: Journal
) -> None:
    def deed() -> None:
        raise KeyboardInterrupt

    app = app_that_does(deed)
    raised: list[BaseException] = []
    ready: list[Server] = []

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            ready.append(await nursery.start(functools.partial(app.serve, "127.0.0.1", 0)))

    async def program() -> None:
        try:
            await serve()
        except BaseException as error:
            raised.append(error)

    stage.nursery.start_soon(program)
    await until(lambda: ready)
    neighbour = await stage.connect(ready[0], "/echo")
    client = await stage.dial(ready[0])
    if place == "/page":
        await client.send(b"GET /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    else:
        answer = await client.upgrade(place) if place != "/guard" else None
        if answer is not None:
            assert answer.status == 101
            await client.send_text("go")
        else:
            await client.send(upgrade_request("/guard"))
    assert (await neighbour.next_frame()).close_code == 1001
    await end(neighbour, 1001)
    client.vanish()
    await until(lambda: raised)
    error = raised[0]
    assert isinstance(error, BaseExceptionGroup)  # of the test's own nursery
    assert isinstance(error.exceptions[0], KeyboardInterrupt)
    assert journal.events(least=logging.WARNING) == []


async def test_a_system_exit_out_of_a_lifespans_task_drains_the_server_and_is_raised(stage: Stage) -> None:
    app = app_that_does(lambda: None)
    leave = trio.Event()
    raised: list[BaseException] = []
    ready: list[Server] = []

    @app.lifespan
    @contextlib.asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async def watch() -> None:
            await leave.wait()
            raise SystemExit(5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            yield
            nursery.cancel_scope.cancel()

    async def program() -> None:
        try:
            async with trio.open_nursery() as nursery:
                ready.append(await nursery.start(functools.partial(app.serve, "127.0.0.1", 0)))
        except BaseException as error:
            raised.append(error)

    stage.nursery.start_soon(program)
    await until(lambda: ready)
    neighbour = await stage.connect(ready[0], "/echo")
    leave.set()
    assert (await neighbour.next_frame()).close_code == 1001
    await end(neighbour, 1001)
    await until(lambda: raised)
    error: BaseException = raised[0]
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, SystemExit)
    assert error.code == 5
