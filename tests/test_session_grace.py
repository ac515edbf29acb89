"""The time that a handler gets after the end of its connection."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.handling import BY_PEER, Served, events, logged_level, serving, sleeper, until_the_end
from wsframework.closes import CloseFrame
from wsframework.config import Timeouts
from wsframework.connection import Connection

__all__ = ["logged_level"]  # a fixture


async def test_within_the_grace_a_handler_finishes_its_goodbye(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []

    async def handler(ws: Connection) -> None:
        await until_the_end(ws)
        await trio.sleep(4.5)
        log.append("goodbye said")

    async with serving(handler, grace=5) as served:
        served.end()
    assert log == ["goodbye said"]
    assert "handler.cancelled" not in events(caplog)


@pytest.mark.parametrize("grace", [0, 5])
async def test_after_the_grace_the_handler_is_cancelled_with_the_reason(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, grace: float
) -> None:
    seen: list[Any] = []

    async def handler(ws: Connection) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            seen.extend([trio.current_time(), str(cancelled)])
            raise

    async with serving(handler, grace=grace) as served:
        await trio.sleep(1)
        served.end()
    assert seen[0] == 1 + grace
    assert "the connection ended: the peer sent Close 4000 (bye), we answered 4000" in seen[1]
    assert events(caplog) == ["connection.opened", "handler.cancelled", "connection.closed"]
    assert caplog.records[1].__dict__["fields"]["how"] == BY_PEER


async def test_without_grace_a_handler_that_needs_no_waiting_still_ends_by_itself(
    autojump_clock: MockClock,
) -> None:
    log: list[str] = []

    async def handler(ws: Connection) -> None:
        try:
            await until_the_end(ws)
        finally:
            log.append("left")

    async with serving(handler, grace=0) as served:
        served.end()
    assert log == ["left"]


async def test_a_handlers_own_nursery_outlives_the_end_within_the_grace(autojump_clock: MockClock) -> None:
    log: list[str] = []

    async def goodbye() -> None:
        await trio.sleep(3)
        log.append("said by a task of the handler's own")

    async def handler(ws: Connection) -> None:
        async with trio.open_nursery() as nursery:
            await until_the_end(ws)
            nursery.start_soon(goodbye)

    async with serving(handler) as served:
        served.end()
    assert log == ["said by a task of the handler's own"]


async def test_a_connection_that_ended_before_its_handler_began_gives_it_the_grace_too(
    autojump_clock: MockClock,
) -> None:
    log: list[str] = []

    async def handler(ws: Connection) -> None:
        ws.nursery.start_soon(sleeper, log)
        log.extend([f"received {message!r}" for message in [await ws.receive()]])
        await trio.sleep_forever()

    served = Served(handler, Timeouts(disconnect_grace=2))
    served.ws.endpoint.deliver("hello")
    served.end()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(served.timers.run)
        await served.run()
        nursery.cancel_scope.cancel()
    assert log == ["received 'hello'", "child over at 0"]
    assert trio.current_time() == 2


async def test_a_handler_that_has_ended_is_not_kept_by_its_grace(autojump_clock: MockClock) -> None:
    references: list[weakref.ref[Connection]] = []

    async def handler(ws: Connection) -> None:
        references.append(weakref.ref(ws))
        await until_the_end(ws)

    async with trio.open_nursery() as nursery:
        served = Served(handler, Timeouts(disconnect_grace=1000))
        timers = served.timers
        nursery.start_soon(timers.run)
        nursery.start_soon(served.run)
        await wait_all_tasks_blocked()
        served.end()
        await served.over.wait()
        await trio.sleep(1)
        del served
        gc.collect()
        assert references[0]() is None
        nursery.cancel_scope.cancel()


async def test_the_hard_deadline_cancels_the_handler_without_any_grace(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ws: Connection) -> None:
        await trio.sleep_forever()

    async with serving(handler, grace=1000) as served:
        await trio.sleep(1)
        served.ws.endpoint.cancel_handler()
        await wait_all_tasks_blocked()
        assert served.transport.closes == [CloseFrame(1000)]
    assert "handler.cancelled" in events(caplog)


async def test_a_cancelled_session_leaves_the_handler_alone(autojump_clock: MockClock) -> None:
    log: list[str] = []

    async def child() -> None:
        await trio.sleep(2)
        log.append("undisturbed child")

    async def handler(ws: Connection) -> None:
        ws.nursery.start_soon(child)
        await trio.sleep(3)
        log.append("undisturbed")

    served = Served(handler, Timeouts())
    with trio.move_on_after(1):
        await served.run()
    assert log == ["undisturbed child", "undisturbed"]
    assert trio.current_time() == 3
    assert served.transport.closes == [CloseFrame(1000)]


async def test_a_child_that_holds_out_delays_the_close_by_the_grace_at_most(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def hold_out() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(60)

    async def fail() -> None:
        raise ValueError

    async def handler(ws: Connection) -> None:
        ws.nursery.start_soon(hold_out)
        ws.nursery.start_soon(fail)
        await trio.sleep_forever()

    async with serving(handler, grace=5) as served:
        await trio.sleep(4.9)
        assert served.transport.closes == []
        await trio.sleep(0.2)
        assert served.transport.closes == [CloseFrame(1011, "internal error")]
    assert events(caplog).count("handler.crashed") == 1
