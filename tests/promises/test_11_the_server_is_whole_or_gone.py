"""Promise 11: the server is whole or gone. A bug in a part that all connections depend on ends it."""

from __future__ import annotations

import functools
import logging

import pytest
import trio
import trio.lowlevel

from tests.promises.crashing import Own, app_that_does, end
from tests.promises.stage import Journal, Stage, serve_by
from tests.waiting import until
from wsframework import App, Keepalive, Timeouts
from wsframework.server import Server
from wsframework.server.accepting import Acceptor, HubListener, StreamListener
from wsframework.server.admission import Admission
from wsframework.server.draining import Drain
from wsframework.timers import Timers


class Mistake(Exception):
    """Ours."""


def fail(*_: object, **__: object) -> None:
    raise Mistake("injected")


def break_the_poll(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("wsframework.server.pollers.EpollPoller.poll", fail)


def break_the_flusher(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("wsframework.server.hub.current_task", fail)


def break_the_timers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Timers, "look", fail)


def break_the_keepalive(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("wsframework.server.framing.FrameTransport.check_alive", fail)


def break_the_listener(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(HubListener, "_take", fail)
    patch.setattr(StreamListener, "_take", fail)


def break_the_accepting(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Acceptor, "_accept", fail)


MISTAKES = {
    "poll": break_the_poll,
    "flusher": break_the_flusher,
    "timers": break_the_timers,
    "keepalive": break_the_keepalive,
    "listener": break_the_listener,
    "accepting": break_the_accepting,
}


@pytest.mark.parametrize("name", MISTAKES)
async def test_a_mistake_of_ours_ends_the_server_with_a_close_for_everybody(
    stage: Stage, journal: Journal, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name in ("poll", "flusher") and stage.transport == "stream":
        pytest.skip("there is no hub")
    app = app_that_does(lambda: None, keepalive=Keepalive(interval=0.2, timeout=5))
    raised: list[BaseException] = []
    ready: list[Server] = []

    async def program() -> None:
        try:
            async with trio.open_nursery() as nursery:
                ready.append(await nursery.start(functools.partial(serve_on, stage, app)))
        except BaseException as error:
            raised.append(error)

    stage.nursery.start_soon(program)
    await until(lambda: ready)
    clients = [await stage.connect(ready[0], "/echo") for _ in range(5)]
    for client in clients:
        await client.send_text("hello")
        assert await client.next_text() == "hello"
    started = trio.current_time()
    MISTAKES[name](monkeypatch)
    if name in ("listener", "accepting"):
        await stage.dial(ready[0])
    else:
        await clients[0].send_text("hello")
    for client in clients:
        frames = await client.read_to_end()
        assert frames[-1].close_code == 1011
    await until(lambda: raised)
    assert trio.current_time() - started < app.timeouts.drain + 25
    error: BaseException = raised[0]
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, Mistake)
    assert journal.events(least=logging.CRITICAL) == ["server.failed"]


async def serve_on(stage: Stage, app: App, *, task_status: trio.TaskStatus[Server]) -> None:
    await serve_by(stage.transport, app, host="127.0.0.1", port=0, task_status=task_status)


# At the end, when half of what could rescue the others has gone already

LAST_MISTAKES = {
    "the last accepts": (Acceptor, "_accept_last"),
    "the wait for handshakes": (Drain, "_settle"),
    "the drain": (Drain, "_begin"),
    "the wait for connections": (Admission, "wait_empty"),
}


@pytest.mark.parametrize("name", LAST_MISTAKES)
async def test_a_mistake_of_ours_while_the_server_stops_is_told_to_everybody_too(
    stage: Stage, journal: Journal, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    raised, ready, scope = serve_in_scope(stage, app_that_does(lambda: None))
    await until(lambda: ready)
    clients = [await stage.connect(ready[0], "/echo") for _ in range(5)]
    monkeypatch.setattr(*LAST_MISTAKES[name], fail)
    scope.cancel()
    for client in clients:
        assert (await client.read_to_end())[-1].close_code == 1011
    await until(lambda: raised)
    assert isinstance(raised[0], Mistake)
    assert journal.events(least=logging.CRITICAL) == ["server.failed"]


async def test_a_hub_that_fails_during_the_drain_does_not_wait_for_its_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    if stage.transport == "stream":
        pytest.skip("there is no hub")
    app = app_that_does(lambda: None)
    app.timeouts = Timeouts(drain=60, close=60)
    _, ready, scope = serve_in_scope(stage, app)
    await until(lambda: ready)
    client = await stage.connect(ready[0], "/echo")
    scope.cancel()
    assert (await client.next_frame()).close_code == 1001
    break_the_poll(monkeypatch)
    await client.send_text("on its way")
    await client.read_to_end()
    await until(lambda: ready[0].statistics().websockets == 0)


async def test_a_mistake_that_no_except_catches_while_the_last_frames_are_written_leaves_nobody_behind(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    if stage.transport == "stream":
        pytest.skip("there is no hub")

    def fail_oddly(*_: object) -> None:
        raise Own("injected")

    raised, ready, _ = serve_in_scope(stage, app_that_does(lambda: None))
    await until(lambda: ready)
    clients = [await stage.connect(ready[0], "/echo") for _ in range(3)]
    monkeypatch.setattr("wsframework.server.socket.SocketTransport.flush", fail_oddly)
    await clients[0].send_text("hello")
    for client in clients:
        await client.read_to_end()
    await until(lambda: raised)
    assert isinstance(raised[0], Own)


async def test_a_mistake_of_ours_in_a_session_ends_its_connection_with_1011_and_a_record(
    stage: Stage, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await stage.serve(app_that_does(lambda: None))
    client = await stage.connect(server, "/handler")
    monkeypatch.setattr("wsframework.session.Session._close_after", fail)
    await client.send_text("go")
    assert (await client.next_frame()).close_code == 1011
    await end(client, 1011)
    await until(lambda: server.statistics().connections == 0)
    assert journal.events(least=logging.WARNING) == ["connection.failed"]


def serve_in_scope(stage: Stage, app: App) -> tuple[list[BaseException], list[Server], trio.CancelScope]:
    """Serve in a task of its own; return what it raises, its server, and what cancels it."""
    raised: list[BaseException] = []
    ready: list[Server] = []
    scope = trio.CancelScope()

    async def serve(*, task_status: trio.TaskStatus[Server]) -> None:
        with scope:
            try:
                await serve_on(stage, app, task_status=task_status)
            except (Exception, Own) as error:
                raised.append(error)

    async def program() -> None:
        async with trio.open_nursery() as nursery:
            ready.append(await nursery.start(serve))

    stage.nursery.start_soon(program)
    return raised, ready, scope
