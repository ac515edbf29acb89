"""The steps of a drain; what clients and handlers see of it is in the promises."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

import pytest
import trio
import trio.testing

from tests.fake_transport import connect
from wsframework.closes import SHUTTING_DOWN
from wsframework.config import Limits, Timeouts
from wsframework.endpoint import Endpoint
from wsframework.server.core import Core
from wsframework.server.draining import SETTLE_SECONDS, Drain, contained, spread_seconds
from wsframework.server.framing import FrameTransport


class Waiting:
    """A client whose head is not complete."""

    def __init__(self, core: Core) -> None:
        self.core = core
        core.waiting.add(self)

    def drain(self) -> None:
        self.core.waiting.discard(self)
        raise ValueError("a mistake of ours")


class Carrier:
    """A transport as far as a drain looks at it."""

    outbox_bytes = 0

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint


def new_core(drain: float = 10) -> Core:
    return Core(limits=Limits(), timeouts=Timeouts(drain=drain), secure=False, observers=())


@pytest.mark.parametrize(
    ("clients", "drain", "spread"),
    [
        (0, 10, 0),
        (200, 10, 0.2),
        (1000, 10, 1),
        (1500, 10, 1),
        (5000, 10, 2.5),
        (50_000, 10, 8),
        (5000, 1, 0.8),
    ],
)
def test_close_frames_are_spread_by_the_number_of_clients_and_within_the_drain(
    clients: int, drain: float, spread: float
) -> None:
    assert spread_seconds(clients, drain) == pytest.approx(spread)


async def test_close_frames_are_sent_over_the_whole_of_the_spread(
    autojump_clock: trio.testing.MockClock,
) -> None:
    core = new_core(drain=10)
    transports = [connect() for _ in range(400)]
    carriers = {Carrier(transport.connection.endpoint) for transport in transports}
    core.transports |= cast("set[FrameTransport]", carriers)
    core.admission.open = len(transports)
    spread = spread_seconds(len(transports), 10)

    def closing() -> int:
        return sum(len(transport.closes) for transport in transports)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.timers.run)
        nursery.start_soon(Drain(core, None).run)
        await trio.testing.wait_all_tasks_blocked()
        assert all(transport.connection.draining for transport in transports), "all are told at once"
        assert closing() < 40
        for tenths in range(1, 11):
            await trio.sleep(spread / 10)
            # Evenly: the standard deviation is at most 10.
            assert abs(closing() - tenths * 40) < 80
        assert closing() == 400
        nursery.cancel_scope.cancel()
    assert {frame for transport in transports for frame in transport.closes} == {SHUTTING_DOWN}


@pytest.mark.parametrize(("drain", "settles"), [(10, SETTLE_SECONDS), (1, 0.5)])
async def test_open_handshakes_get_a_moment_and_then_none_keeps_the_others_from_being_ended(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture, drain: float, settles: float
) -> None:
    core = new_core(drain)
    for _ in range(3):
        Waiting(core)
    started = trio.current_time()
    await Drain(core, None).run()
    assert trio.current_time() - started == pytest.approx(settles, abs=0.02)
    assert core.draining
    assert core.waiting == set()
    failed = [entry for entry in caplog.records if entry.levelno == logging.ERROR]
    assert [entry.__dict__["event"] for entry in failed] == ["connection.failed"] * 3
    assert core.lifetime.cause is None


async def test_without_connections_it_takes_no_time(autojump_clock: trio.testing.MockClock) -> None:
    started = trio.current_time()
    await Drain(new_core(), None).run()
    assert trio.current_time() == started


async def test_connections_that_do_not_end_are_left_when_the_time_is_over(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    core = new_core(drain=3)
    core.admission.open = 2
    started = trio.current_time()
    await Drain(core, None).run()
    assert trio.current_time() - started == pytest.approx(3)
    (entry,) = [entry for entry in caplog.records if entry.levelno == logging.WARNING]
    assert entry.__dict__["fields"] == {"connections": 2, "handlers": 0}


async def test_a_failure_gets_no_time_to_settle(autojump_clock: trio.testing.MockClock) -> None:
    core = new_core()
    Waiting(core)
    core.lifetime.fail(ValueError("a mistake of ours"))
    started = trio.current_time()
    await Drain(core, None).run()
    assert core.draining
    assert core.waiting == set()
    assert trio.current_time() - started < SETTLE_SECONDS / 2


async def test_what_is_left_is_given_up_each_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    core = new_core()
    ended: list[str] = []

    class Deciding:
        def __init__(self, name: str) -> None:
            self.name = name
            self.on_left: Callable[[], None] | None = self.leave

        def leave(self) -> None:
            ended.append(self.name)
            raise ValueError("a mistake of ours")

        def abandon(self) -> None:
            ended.append(f"{self.name}'s connection")
            raise ValueError("another mistake of ours")

    core.deciding = {Deciding("one"): None, Deciding("two"): None}
    Drain(core, None).end_what_is_left()
    assert sorted(ended) == ["one", "one's connection", "two", "two's connection"]


@pytest.mark.parametrize("error", [ValueError("no"), GeneratorExit(), SystemExit(3)])
def test_whatever_is_raised_in_what_is_contained_is_recorded(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    contained(fail)
    (entry,) = caplog.records
    assert entry.__dict__["event"] == "connection.failed"
