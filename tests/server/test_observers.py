"""The observers of a server as one: the log's own method where the log is alone, else all in order."""

from __future__ import annotations

import logging
import traceback

import pytest
import trio

from wsframework.observer import Observer, event_names
from wsframework.request import Address, Request
from wsframework.server.logged import LogObserver
from wsframework.server.observers import Observers
from wsframework.timers import Timers

THERE = Address("192.0.2.1", 1000)


class Stops(Observer):
    """Keeps how many connections had been accepted when a server stopped."""

    def __init__(self) -> None:
        self.accepted: list[int] = []

    def server_stopped(self, accepted: int) -> None:
        self.accepted.append(accepted)


class AsksForFrames(Observer):
    def protocol_broken(self, request: Request, code: int, reason: str) -> None:
        pass


def together(*users: Observer) -> Observers:
    return Observers(users, Timers(), lambda interrupt: None)


def test_without_a_users_observer_an_event_is_one_call_of_the_logs_method() -> None:
    observers, with_one = together(), together(Stops())
    for event in event_names():
        assert getattr(observers, event).__func__ is getattr(LogObserver, event)
        alone = event != "server_stopped"
        assert (getattr(getattr(with_one, event), "__func__", None) is getattr(LogObserver, event)) == alone


def test_the_log_comes_first_and_then_the_users_in_their_order(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsframework")
    first, second = Stops(), Stops()
    order: list[object] = []
    first.server_stopped = lambda accepted: order.append((first, len(caplog.records)))  # type: ignore[method-assign]
    second.server_stopped = lambda accepted: order.append((second, len(caplog.records)))  # type: ignore[method-assign]
    together(first, second).server_stopped(7)
    assert order == [(first, 1), (second, 1)]


def test_frames_are_wanted_by_an_observer_of_them_or_by_a_log_at_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "wsframework")
    assert not together(Stops()).wants_frames()
    assert together(Stops(), AsksForFrames()).wants_frames()
    caplog.set_level(logging.DEBUG, "wsframework")
    assert together().wants_frames()


async def test_one_object_that_an_observer_raises_for_every_event_keeps_none_of_them() -> None:
    error = ValueError("always the same")

    class Fails(Observer):
        def server_stopped(self, accepted: int) -> None:
            raise error

    observers = together(Fails())
    for accepted in range(20):
        observers.server_stopped(accepted)
    # Its caller's frame and the method's, of the last event.
    assert len(list(traceback.walk_tb(error.__traceback__))) == 2


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(2), GeneratorExit(), trio.TooSlowError()])
async def test_what_an_observer_raises_is_logged_and_contained(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    class Fails(Observer):
        def connection_refused(self, remote: Address) -> None:
            raise error

    after = Stops()
    observers = together(Fails(), after)
    observers.connection_refused(THERE)
    observers.connection_refused(THERE)
    (failed,) = [entry for entry in caplog.records if entry.__dict__["event"] == "observer.failed"]
    assert failed.levelno == logging.ERROR
    assert failed.exc_info is not None
    assert failed.__dict__["fields"]["method"] == "connection_refused"
    observers.server_stopped(3)
    assert after.accepted == [3]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt("now"), BaseExceptionGroup("both", [ValueError(), KeyboardInterrupt("now")])]
)
async def test_a_keyboard_interrupt_is_handed_to_the_server(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    class Interrupts(Observer):
        def connection_refused(self, remote: Address) -> None:
            raise error

    interrupts: list[KeyboardInterrupt] = []
    Observers([Interrupts()], Timers(), interrupts.append).connection_refused(THERE)
    assert [str(interrupt) for interrupt in interrupts] == ["now"]
    assert "observer.failed" not in [entry.__dict__["event"] for entry in caplog.records]
