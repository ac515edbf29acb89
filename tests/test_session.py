from __future__ import annotations

import traceback

import pytest
import trio
from trio.testing import MockClock

from tests.fake_transport import LOST
from tests.handling import (
    ELSEWHERE,
    Handler,
    Served,
    crash,
    events,
    logged_level,
    raising,
    serve,
    serving,
    until_the_end,
)
from wsframework.closes import Closed, CloseFrame
from wsframework.config import Timeouts
from wsframework.connection import Connection
from wsframework.errors import Close, ConnectionClosed, RoomUnavailable, SessionUnavailable, Unavailable
from wsframework.session import Acceptance, Refusal

__all__ = ["logged_level"]  # a fixture


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


@pytest.mark.parametrize("where", ["handler", "group", "child"])
@pytest.mark.parametrize(
    ("answer", "frame"),
    [
        (Close(4000, "bye"), CloseFrame(4000, "bye")),
        (RoomUnavailable("no engine"), CloseFrame(1013, "try again later")),
        (SessionUnavailable("no store"), CloseFrame(1013, "try again later")),
        (Unavailable("no database"), CloseFrame(1013, "try again later")),
    ],
)
async def test_an_answer_that_is_raised_again_and_again_keeps_no_connection(
    autojump_clock: MockClock, answer: Exception, frame: CloseFrame, where: str
) -> None:
    async def child() -> None:
        raise answer

    async def handler(ws: Connection) -> None:
        if where == "child":
            ws.nursery.start_soon(child)
            await trio.sleep_forever()
        raise ExceptionGroup("of a nursery", [answer]) if where == "group" else answer

    for _ in range(2):
        served = await serve(handler)
        assert served.transport.closes == [frame]
        assert answer.__traceback__ is None


async def test_a_crash_by_one_object_again_and_again_has_the_traceback_of_the_last_time(
    autojump_clock: MockClock,
) -> None:
    error = LookupError("one object")
    lengths = []
    for _ in range(3):
        await serve(raising(error))
        lengths.append(len(traceback.extract_tb(error.__traceback__)))
    assert lengths == [lengths[0]] * 3


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

    async with serving(handler, taking=False) as served:
        served.end(LOST)
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
