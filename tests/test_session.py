from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.fake_transport import LOST, FakeTransport, connect
from wsframework.closes import Closed, CloseFrame
from wsframework.config import Timeouts
from wsframework.connection import Connection
from wsframework.errors import Close, ConnectionClosed
from wsframework.server.logged import LogObserver
from wsframework.session import Acceptance, Refusal, Session
from wsframework.timers import Timers

Handler = Callable[[Connection], Awaitable[object]]

BY_PEER = Closed(CloseFrame(4000), CloseFrame(4000, "bye"), False)
ELSEWHERE = ConnectionClosed(LOST)
"""What a handler gets from another connection, such as one to a server behind this one."""


@pytest.fixture(autouse=True)
def _level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsframework")


class Served:
    """A session that runs in a task, on a transport whose peer answers our Close."""

    def __init__(self, handler: Handler, timeouts: Timeouts) -> None:
        self.transport: FakeTransport = connect(subprotocol="chat")
        self.ws = self.transport.connection
        self.timers = self.transport.timers = Timers()
        self.timeouts = timeouts
        self.over = trio.Event()
        self.accept(Acceptance(handler, name="talk"))

    def accept(self, acceptance: Acceptance) -> None:
        self._session = Session(
            self.ws,
            acceptance,
            timers=self.timers,
            timeouts=self.timeouts,
            observer=LogObserver(self.timers),
            on_over=lambda _: self.over.set(),
        )

    async def run(self) -> None:
        await self._session.run()

    def end(self, closed: Closed = BY_PEER) -> None:
        """Pretend that the peer closed the connection, or was lost."""
        self.ws.endpoint.end(closed)
        self.timers.after(0.1, lambda: self.ws.endpoint.finish(closed))


@asynccontextmanager
async def serving(handler: Handler, *, grace: float = 5.0) -> AsyncIterator[Served]:
    """Serve `handler`, let the block do something to it, and wait until the session is over."""
    served = Served(handler, Timeouts(disconnect_grace=grace))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(served.timers.run)
        nursery.start_soon(served.run)
        await wait_all_tasks_blocked()
        yield served
        with trio.fail_after(60):
            await served.over.wait()
        nursery.cancel_scope.cancel()


async def serve(handler: Handler) -> Served:
    """Serve `handler`, whose peer does nothing but answer our Close, to its end."""
    async with serving(handler) as served:
        pass
    return served


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.__dict__["event"] for entry in caplog.records]


def crash(caplog: pytest.LogCaptureFixture) -> BaseException:
    """Return the one exception that was logged."""
    (entry,) = [entry for entry in caplog.records if entry.exc_info]
    assert entry.__dict__["event"] == "handler.crashed"
    assert entry.levelno == logging.ERROR
    assert entry.exc_info is not None
    assert isinstance(entry.exc_info, tuple)
    assert entry.exc_info[1] is not None
    return entry.exc_info[1]


def raising(error: BaseException) -> Handler:
    async def handler(ws: Connection) -> None:
        raise error

    return handler


async def until_the_end(ws: Connection) -> None:
    async for _ in ws:
        pass


# What the handler's end means on the wire


async def test_a_handler_that_returns_closes_with_1000(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ws: Connection) -> None:
        await ws.send("hello")

    served = await serve(handler)
    assert served.transport.texts == ["hello"]
    assert served.transport.closes == [CloseFrame(1000)]
    assert events(caplog) == ["connection.opened", "connection.closed"]


async def test_both_ends_of_a_connection_are_recorded_with_what_is_known(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ws: Connection) -> None:
        await ws.receive()
        await ws.send("hello")
        await trio.sleep(2)

    async with serving(handler) as served:
        served.ws.endpoint.deliver("hi")
    opened, closed = caplog.records
    known = {"path": "/chat", "remote": served.ws.request.remote, "handler": "talk"}
    assert opened.__dict__["fields"] == {**known, "subprotocol": "chat"}
    assert closed.__dict__["fields"] == {
        **known,
        "how": Closed(CloseFrame(1000), CloseFrame(1000), True),
        "first": "server",
        "sent_code": 1000,
        "received_code": 1000,
        "seconds": 2.125,
        "received": 1,
        "sent": 1,
    }
    assert closed.getMessage() == (
        "connection.closed path=/chat remote=10.0.0.1:5123 handler=talk "
        'how="we sent Close 1000, the peer answered 1000" first=server sent_code=1000 received_code=1000 '
        "seconds=2.125 received=1 sent=1"
    )


async def test_close_raised_ends_with_its_code_and_reason(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    served = await serve(raising(Close(4001, "not you")))
    assert served.transport.closes == [CloseFrame(4001, "not you")]
    assert events(caplog) == ["connection.opened", "connection.closed"]


async def test_connection_closed_that_escapes_is_a_normal_end(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ws: Connection) -> None:
        while True:
            await ws.receive()

    async with serving(handler) as served:
        served.end()
    assert served.transport.closes == []
    assert events(caplog) == ["connection.opened", "connection.closed"]


async def test_connection_closed_after_a_close_of_our_own_is_a_normal_end(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ws: Connection) -> None:
        await ws.aclose(4002)
        await ws.send("too late")

    served = await serve(handler)
    assert served.transport.closes == [CloseFrame(4002)]
    assert events(caplog) == ["connection.opened", "connection.closed"]


async def test_connection_closed_of_another_connection_is_an_error(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    served = await serve(raising(ELSEWHERE))
    assert served.transport.closes == [CloseFrame(1011, "internal error")]
    assert crash(caplog) is ELSEWHERE


async def test_any_other_exception_is_logged_once_with_its_traceback_and_closes_with_1011(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ws: Connection) -> None:
        raise ValueError("broken handler")

    served = await serve(handler)
    assert served.transport.closes == [CloseFrame(1011, "internal error")]
    error = crash(caplog)
    assert repr(error) == "ValueError('broken handler')"
    assert error.__traceback__ is not None
    assert events(caplog) == ["connection.opened", "handler.crashed", "connection.closed"]
    entry = caplog.records[1]
    assert "path=/chat remote=10.0.0.1:5123 handler=talk" in entry.getMessage()
    assert "error=\"ValueError('broken handler')\"" in entry.getMessage()
    assert "Traceback (most recent call last)" in caplog.text
    assert "in handler" in caplog.text


async def test_an_exception_after_the_peer_has_gone_is_logged_and_sends_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ws: Connection) -> None:
        await until_the_end(ws)
        raise ValueError("in the goodbye")

    async with serving(handler) as served:
        served.end(LOST)
    assert served.transport.closes == []
    assert str(crash(caplog)) == "in the goodbye"


@pytest.mark.parametrize(
    ("errors", "frame"),
    [
        ([Close(4001, "a")], CloseFrame(4001, "a")),
        ([Close(4001, "a"), Close(4002, "b")], CloseFrame(4001, "a")),
        ([ExceptionGroup("inner", [Close(4001)])], CloseFrame(4001)),
    ],
)
async def test_close_is_found_in_the_groups_of_a_users_nurseries(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, errors: list[Exception], frame: CloseFrame
) -> None:
    served = await serve(raising(ExceptionGroup("the user's", errors)))
    assert served.transport.closes == [frame]
    assert events(caplog) == ["connection.opened", "connection.closed"]


@pytest.mark.parametrize(
    "errors",
    [
        [ValueError("x")],
        [ValueError("x"), Close(4001)],
        [ExceptionGroup("inner", [ELSEWHERE]), Close(4001)],
        [ELSEWHERE, ELSEWHERE],
    ],
)
async def test_one_unexpected_exception_makes_the_whole_group_an_error(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, errors: list[Exception]
) -> None:
    group = ExceptionGroup("the user's", errors)
    served = await serve(raising(group))
    assert served.transport.closes == [CloseFrame(1011, "internal error")]
    assert crash(caplog) is group


async def test_connection_closed_in_every_task_of_a_users_nursery_is_a_normal_end(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def send_for_ever(ws: Connection) -> None:
        while True:
            await ws.send("x" * 80)

    async def handler(ws: Connection) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(send_for_ever, ws)

    served = Served(handler, Timeouts())
    served.transport.taking = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(served.timers.run)
        nursery.start_soon(served.run)
        await wait_all_tasks_blocked()
        served.end(LOST)
        await served.over.wait()
        nursery.cancel_scope.cancel()
    assert events(caplog) == ["connection.opened", "connection.closed"]


async def test_an_end_by_the_peer_with_a_close_of_the_handlers_is_a_normal_end(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ws: Connection) -> None:
        try:
            await ws.receive()
        except ConnectionClosed as error:
            raise ExceptionGroup("both", [error, Close(4001)]) from None

    async with serving(handler) as served:
        served.end()
    assert served.transport.closes == []
    assert events(caplog) == ["connection.opened", "connection.closed"]


async def test_the_session_is_over_when_the_connection_is_closed_and_not_before(
    autojump_clock: MockClock,
) -> None:
    async def handler(ws: Connection) -> None:
        return

    async with serving(handler) as served:
        served.transport.close_seconds = 3.0  # too late: it is closing already
        assert served.transport.closes == [CloseFrame(1000)]
        assert not served.over.is_set()
        await trio.sleep(0.1)
        assert served.ws.closed == Closed(CloseFrame(1000), None, True)
        await trio.sleep(0.1)
        assert served.over.is_set()


async def test_an_interrupt_of_the_handlers_passes_through_and_leaves_the_close_to_the_program(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    served = Served(raising(KeyboardInterrupt()), Timeouts())
    with pytest.raises(KeyboardInterrupt) as caught:
        await served.run()
    assert type(caught.value) is KeyboardInterrupt
    assert served.transport.closes == []
    assert "handler.crashed" not in events(caplog)


class Own(BaseException):
    """Of the application's own making."""


@pytest.mark.parametrize(
    "error", [SystemExit(2), GeneratorExit(), Own(), BaseExceptionGroup("g", [ValueError(), Own()])], ids=repr
)
async def test_what_is_no_exception_is_a_crash_like_any_other(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    served = await serve(raising(error))
    assert served.transport.closes == [CloseFrame(1011, "internal error")]
    assert crash(caplog) is error
    assert events(caplog).count("handler.crashed") == 1


async def test_a_scope_left_open_is_a_crash(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    scope = trio.CancelScope()

    async def handler(ws: Connection) -> None:
        scope.__enter__()

    served = await serve(handler)
    assert served.transport.closes == [CloseFrame(1011, "internal error")]
    assert "still within its child" in str(crash(caplog))


async def test_a_value_returned_by_a_handler_is_told_of_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    acceptance = Acceptance(returning("a value"), name="talk")
    for _ in range(2):
        served = Served(acceptance.handler, Timeouts())
        served.accept(acceptance)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.timers.run)
            await served.run()
            await served.over.wait()
            nursery.cancel_scope.cancel()
        assert served.transport.closes == [CloseFrame(1000)]
    assert events(caplog).count("handler.returned") == 1


async def test_a_refusal_closes_with_its_frame_and_observers_see_no_connection(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    served = Served(returning(None), Timeouts())
    served.accept(Refusal.by(401, CloseFrame(4401, "who are you?")))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(served.timers.run)
        await served.run()
        await served.over.wait()
        nursery.cancel_scope.cancel()
    assert served.transport.closes == [CloseFrame(4401, "who are you?")]
    assert caplog.records == []


def returning(value: object) -> Handler:
    async def handler(ws: Connection) -> object:
        return value

    return handler


async def test_an_interrupt_beside_an_exception_passes_through_and_the_exception_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    error = ValueError("beside")
    served = Served(raising(BaseExceptionGroup("both", [error, KeyboardInterrupt()])), Timeouts())
    with pytest.raises(KeyboardInterrupt):
        await served.run()
    assert served.transport.closes == [CloseFrame(1011, "internal error")]
    assert crash(caplog) is error


# ws.nursery


async def sleeper(log: list[str]) -> None:
    try:
        await trio.sleep_forever()
    finally:
        log.append(f"child over at {trio.current_time():g}")


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

    served = Served(handler, Timeouts())
    served.transport.taking = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(served.timers.run)
        nursery.start_soon(served.run)
        await wait_all_tasks_blocked()
        served.end(LOST)
        await served.over.wait()
        nursery.cancel_scope.cancel()
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


# The grace


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
