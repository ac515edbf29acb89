"""Tasks in ws.nursery: when they are cancelled, and what their exceptions mean."""

from __future__ import annotations

import traceback

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.fake_transport import LOST
from tests.handling import Served, crash, events, logged_level, serve, serving, sleeper, until_the_end
from wsframework.closes import CloseFrame
from wsframework.config import Timeouts
from wsframework.connection import Connection
from wsframework.errors import Close

__all__ = ["logged_level"]  # a fixture


async def test_children_are_cancelled_when_the_handler_returns(autojump_clock: MockClock) -> None:
    log: list[str] = []

    async def handler(ws: Connection) -> None:
        ws.nursery.start_soon(sleeper, log)
        await trio.sleep(2)

    served = await serve(handler)
    assert log == ["child over at 2"]
    assert served.transport.closes == [CloseFrame(1000)]


async def test_children_are_cancelled_at_once_at_the_end_and_the_handler_later(
    autojump_clock: MockClock,
) -> None:
    log: list[str] = []

    async def handler(ws: Connection) -> None:
        ws.nursery.start_soon(sleeper, log)
        try:
            await trio.sleep_forever()
        finally:
            log.append(f"handler over at {trio.current_time():g}")

    async with serving(handler, grace=5) as served:
        await trio.sleep(1)
        served.end()
    assert log == ["child over at 1", "handler over at 6"]


async def test_a_child_that_cleans_up_slowly_does_not_hold_up_the_close_frame(
    autojump_clock: MockClock,
) -> None:
    async def slow() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(10)

    async def handler(ws: Connection) -> None:
        ws.nursery.start_soon(slow)
        await trio.lowlevel.checkpoint()

    async with serving(handler) as served:
        assert served.transport.closes == [CloseFrame(1000)]
        assert not served.over.is_set()


async def test_an_exception_in_a_child_cancels_the_handler_and_closes_with_1011(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []
    error = ValueError("broken child")

    async def fail() -> None:
        await trio.sleep(1)
        raise error

    async def handler(ws: Connection) -> None:
        ws.nursery.start_soon(sleeper, log)
        ws.nursery.start_soon(fail)
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            log.extend([f"handler cancelled at {trio.current_time():g}", str(cancelled)])
            raise

    served = await serve(handler)
    assert sorted(log)[1:] == ["child over at 1", "handler cancelled at 1"]
    assert "a task in ws.nursery failed, or the nursery was cancelled" in sorted(log)[0]
    assert served.transport.closes == [CloseFrame(1011, "internal error")]
    assert crash(caplog) is error  # and not a group of our making
    assert events(caplog) == ["connection.opened", "handler.crashed", "connection.closed"]


async def test_close_raised_in_a_child_ends_with_its_code(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise Close(4003, "kicked")

    async def handler(ws: Connection) -> None:
        ws.nursery.start_soon(fail)
        await trio.sleep_forever()

    served = await serve(handler)
    assert served.transport.closes == [CloseFrame(4003, "kicked")]
    assert events(caplog) == ["connection.opened", "connection.closed"]


async def test_two_children_that_fail_are_logged_as_one_group(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    errors = [ValueError("a"), ValueError("b")]

    async def fail(error: Exception) -> None:
        raise error

    async def handler(ws: Connection) -> None:
        for error in errors:
            ws.nursery.start_soon(fail, error)
        await trio.sleep_forever()

    served = await serve(handler)
    assert served.transport.closes == [CloseFrame(1011, "internal error")]
    group = crash(caplog)
    assert isinstance(group, ExceptionGroup)
    assert sorted(map(str, group.exceptions)) == ["a", "b"]


async def test_an_exception_of_the_handler_that_a_failing_child_cancels_is_not_lost(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise ValueError("child")

    async def handler(ws: Connection) -> None:
        ws.nursery.start_soon(fail)
        try:
            await trio.sleep_forever()
        finally:
            raise LookupError("in the handler's clean-up")

    served = await serve(handler)
    assert served.transport.closes == [CloseFrame(1011, "internal error")]
    group = crash(caplog)
    assert isinstance(group, ExceptionGroup)
    assert sorted(map(str, group.exceptions)) == ["child", "in the handler's clean-up"]


async def test_an_exception_in_a_childs_clean_up_is_logged_though_the_close_frame_is_out(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def careless() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in the clean-up")

    async def handler(ws: Connection) -> None:
        ws.nursery.start_soon(careless)
        await trio.sleep(1)

    served = await serve(handler)
    assert served.transport.closes == [CloseFrame(1000)]
    assert str(crash(caplog)) == "in the clean-up"


async def test_a_child_that_meets_the_end_is_no_error_and_leaves_the_handler_its_grace(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []

    async def push(ws: Connection) -> None:
        while True:
            await ws.send("x" * 80)

    async def handler(ws: Connection) -> None:
        ws.nursery.start_soon(push, ws)
        await until_the_end(ws)
        await trio.sleep(1)
        log.append("goodbye said")

    async with serving(handler, taking=False) as served:
        served.end(LOST)
    assert log == ["goodbye said"]
    assert events(caplog) == ["connection.opened", "connection.closed"]


async def test_a_child_that_meets_our_own_close_is_no_error_and_does_not_cancel_the_handler(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []

    async def push(ws: Connection) -> None:
        while True:
            await ws.send("tick")
            await trio.sleep(0.1)

    async def handler(ws: Connection) -> None:
        ws.nursery.start_soon(push, ws)
        await trio.sleep(1)
        await ws.aclose(4004)  # the peer takes a while, and meanwhile the child's send raises
        await trio.sleep(1)
        log.append("work after the close is done")

    async with serving(handler) as served:
        served.transport.close_seconds = 3
    assert log == ["work after the close is done"]
    assert served.transport.closes == [CloseFrame(4004)]
    assert events(caplog) == ["connection.opened", "connection.closed"]


async def test_an_exception_in_a_child_while_we_close_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(ws: Connection) -> None:
        await trio.sleep(1)
        raise ValueError("while closing")

    async def handler(ws: Connection) -> None:
        ws.nursery.start_soon(fail, ws)
        await trio.sleep(0.5)
        await ws.aclose(4004)

    async with serving(handler) as served:
        served.transport.close_seconds = 3
    assert served.transport.closes == [CloseFrame(4004)]
    assert str(crash(caplog)) == "while closing"


async def test_a_handler_may_cancel_its_nursery_and_ends_with_it(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []

    async def handler(ws: Connection) -> None:
        ws.nursery.start_soon(sleeper, log)
        await trio.sleep(1)
        ws.nursery.cancel_scope.cancel()
        await trio.sleep_forever()

    served = await serve(handler)
    assert log == ["child over at 1"]
    assert served.transport.closes == [CloseFrame(1000)]
    assert events(caplog) == ["connection.opened", "connection.closed"]


async def test_the_nursery_is_gone_with_the_handler(autojump_clock: MockClock) -> None:
    connections: list[Connection] = []

    async def handler(ws: Connection) -> None:
        connections.append(ws)

    await serve(handler)
    with pytest.raises(RuntimeError, match="only while the connection's handler runs"):
        _ = connections[0].nursery


async def test_an_interrupt_in_a_child_passes_through_alone(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def interrupt() -> None:
        raise KeyboardInterrupt

    async def handler(ws: Connection) -> None:
        ws.nursery.start_soon(interrupt)
        await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        await Served(handler, Timeouts()).run()
    assert "handler.crashed" not in events(caplog)


async def test_a_child_that_raises_one_object_again_and_again_leaves_the_traceback_of_the_last_time(
    autojump_clock: MockClock,
) -> None:
    error = LookupError("one object")

    async def child() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    async def handler(ws: Connection) -> None:
        ws.nursery.start_soon(child)
        await trio.sleep_forever()

    lengths = []
    for _ in range(3):
        await serve(handler)
        lengths.append(len(traceback.extract_tb(error.__traceback__)))
    assert lengths == [1, 1, 1]


@pytest.mark.parametrize("raised", [ValueError, SystemExit, None])
async def test_an_abort_function_that_raises_concerns_its_own_connection(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, raised: type[BaseException] | None
) -> None:
    def abort(_: object) -> trio.lowlevel.Abort:
        broken.append(trio.lowlevel.current_task())
        if len(broken) > 1:
            return trio.lowlevel.Abort.SUCCEEDED
        if raised is not None:
            raise raised
        return None  # type: ignore[return-value]

    async def handler(ws: Connection) -> None:
        waiting.append(trio.lowlevel.current_task())
        await trio.lowlevel.wait_task_rescheduled(abort)

    broken: list[object] = []
    waiting: list[trio.lowlevel.Task] = []
    async with serving(handler, grace=0) as served:
        await trio.testing.wait_all_tasks_blocked()
        served.end()
        assert len(broken) == 1
        assert events(caplog).count("connection.failed") == 1
        trio.lowlevel.reschedule(waiting[0])
