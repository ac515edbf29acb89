"""How one of several servers accepts, counts and tells; real processes are in tests/workers."""

from __future__ import annotations

import socket as stdlib_socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import get_args

import attrs
import pytest
import trio
import trio.testing

from tests.server.serving import echo_app
from tests.waiting import until
from wsframework import App
from wsframework.config import Limits
from wsframework.observer import Observer
from wsframework.request import Address
from wsframework.server import Server
from wsframework.server.admission import Admission
from wsframework.server.crowd import Figures, Phase
from wsframework.server.native import NativeServer, TransportChoice
from wsframework.server.sharing import BEAT_SECONDS, SLACK, Politeness, Presence, SharedAdmission
from wsframework.testing import connection_pair
from wsframework.timers import Timers

HERE = Address("192.0.2.1", 1000)


@attrs.define
class OneAndOthers:
    """A crowd in which the test plays the others."""

    least: int | None = None
    other_connections: int = 0
    told: list[int] = attrs.field(factory=list)
    phases: list[Phase] = attrs.field(factory=list)
    beats: list[tuple[float, Figures]] = attrs.field(factory=list)

    def enter(self, phase: Phase) -> None:
        if self.phases[-1:] != [phase]:
            self.phases.append(phase)

    def tell(self, connections: int) -> None:
        self.told.append(connections)

    def beat(self, figures: Figures) -> None:
        self.beats.append((trio.current_time(), figures))

    def fewest(self) -> int | None:
        return self.least

    def others(self) -> int:
        return self.other_connections


@pytest.fixture
def crowd() -> OneAndOthers:
    return OneAndOthers()


def new_politeness(crowd: OneAndOthers, connections: int, limit: int | None = None) -> Politeness:
    admission = Admission(Limits(connections=limit), Timers(), Observer())
    admission.open = connections
    return Politeness(crowd, admission)


# How many are accepted


@pytest.mark.parametrize(
    ("mine", "least", "most"),
    [
        (0, 0, 8),
        (0, 100, 8),
        (101, 100, 8),
        (102, 100, 7),
        (108, 100, 1),
        (109, 100, 0),
        (5000, 0, 0),
        (0, None, 64),
        (5000, None, 64),
    ],
)
def test_who_has_more_than_the_least_of_the_others_accepts_less_or_nothing(
    crowd: OneAndOthers, mine: int, least: int | None, most: int
) -> None:
    crowd.least = least
    assert new_politeness(crowd, mine).most(0.0) == most


def test_the_pauses_of_a_server_that_looks_away_grow_and_then_it_accepts_all_the_same(
    crowd: OneAndOthers,
) -> None:
    politeness = new_politeness(crowd, 100)
    crowd.least = 0
    now, pauses = 1000.0, []
    while not (most := politeness.most(now)):
        pauses.append(politeness.pause)
        now += politeness.pause
        politeness.ask_again(now)
        now += 0.0001
    assert pauses[:7] == pytest.approx([0.001, 0.002, 0.003, 0.004, 0.005, 0.005, 0.005])
    assert now - 1000.0 == pytest.approx(0.1, abs=0.006)
    assert most == 8
    # What comes next waits as long.
    assert politeness.most(now) == 0
    assert politeness.pause == 0.001


def test_patience_begins_anew_when_the_queue_was_empty(crowd: OneAndOthers) -> None:
    politeness = new_politeness(crowd, 100)
    crowd.least = 0
    now = 1000.0
    for _ in range(100):
        assert politeness.most(now) == 0
        assert politeness.pause == 0.001
        now += politeness.pause
        politeness.ask_again(now)
        now += 0.006


def test_patience_ends_though_the_event_loop_is_late(crowd: OneAndOthers) -> None:
    politeness = new_politeness(crowd, 100)
    crowd.least = 0
    now = 1000.0
    for _ in range(4):
        assert politeness.most(now) == 0
        now += politeness.pause + 0.03
        politeness.ask_again(now)
    assert politeness.most(now) == 8


def test_a_server_that_is_full_leaves_it_to_the_others_however_long(crowd: OneAndOthers) -> None:
    politeness = new_politeness(crowd, 10, limit=10)
    crowd.least = 500
    now = 1000.0
    for _ in range(200):
        assert politeness.most(now) == 0
        now += politeness.pause
        politeness.ask_again(now)
    assert crowd.phases == [Phase.FULL]
    # If none of them can, it accepts, and the client gets a 503.
    crowd.least = None
    assert politeness.most(now) == 64


def test_a_server_that_is_no_longer_full_says_so(crowd: OneAndOthers) -> None:
    admission = Admission(Limits(connections=1), Timers(), Observer())
    # It has two listeners, and the second one alone is used later.
    first, second = Politeness(crowd, admission), Politeness(crowd, admission)
    assert admission.admit(HERE)
    first.most(0.0)
    admission.depart(HERE)
    second.most(0.0)
    assert crowd.phases == [Phase.FULL, Phase.SERVING]


# Limits


def test_the_limit_of_connections_is_for_all_servers_together(crowd: OneAndOthers) -> None:
    admission = SharedAdmission(crowd, Limits(connections=10), Timers(), Observer())
    crowd.other_connections = 8
    assert [admission.admit(HERE) for _ in range(4)] == [True, True, False, False]
    assert (admission.open, admission.accepted, admission.refused) == (2, 4, 2)
    crowd.other_connections = 7
    assert admission.admit(HERE)
    admission.depart(HERE)
    assert crowd.told == [1, 2, 3, 2]


def test_without_a_limit_the_others_do_not_matter(crowd: OneAndOthers) -> None:
    admission = SharedAdmission(crowd, Limits(connections=None), Timers(), Observer())
    crowd.other_connections = 10**6
    assert admission.admit(HERE)


def test_the_limit_for_one_address_is_each_servers_own(crowd: OneAndOthers) -> None:
    admission = SharedAdmission(crowd, Limits(connections_per_address=2), Timers(), Observer())
    crowd.other_connections = 5
    assert [admission.admit(HERE) for _ in range(3)] == [True, True, False]
    assert crowd.told[-1] == 2


# Heartbeats


async def test_it_beats_twice_a_second(
    crowd: OneAndOthers, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    timers = Timers()
    nursery.start_soon(timers.run)
    started = trio.current_time()
    admission = SharedAdmission(crowd, Limits(connections=1), timers, Observer())
    presence = Presence(crowd, timers)
    presence.begin(admission)
    assert crowd.phases == [Phase.SERVING]
    admission.admit(HERE)
    admission.admit(HERE)
    await trio.sleep(2.1)
    assert [at - started for at, _ in crowd.beats] == pytest.approx([0, 0.5, 1.0, 1.5, 2.0])
    (_, last) = crowd.beats[-1]
    assert (last.accepted, last.refused) == (2, 1)
    assert last.loop_lag == pytest.approx(0)
    presence.drain()
    presence.end()
    assert crowd.phases == [Phase.SERVING, Phase.DRAINING, Phase.STOPPED]


@pytest.mark.parametrize("forgiven", [0.0, 3.0])
async def test_a_heartbeat_tells_how_late_it_comes(
    crowd: OneAndOthers, autojump_clock: trio.testing.MockClock, forgiven: float
) -> None:
    timers = Timers()
    presence = Presence(crowd, timers)
    presence.begin(Admission(Limits(), timers, Observer()))
    async with trio.open_nursery() as nursery:
        await trio.sleep(BEAT_SECONDS + forgiven + 0.2)
        timers.forgiven = forgiven
        nursery.start_soon(timers.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert crowd.beats[-1][1].loop_lag == pytest.approx(0.2 + forgiven)


async def test_the_messages_of_open_and_closed_connections_are_summed_every_two_seconds(
    crowd: OneAndOthers, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    timers = Timers()
    nursery.start_soon(timers.run)
    presence = Presence(crowd, timers)
    presence.begin(Admission(Limits(), timers, Observer()))

    def counted() -> tuple[int, int, int]:
        _, last = crowd.beats[-1]
        return last.websockets, last.messages_received, last.messages_sent

    async with connection_pair() as (stays, one), connection_pair() as (leaves, two):
        for ws in (stays, leaves):
            presence.connection_opened(ws, "")
        for client in (one, one, two):
            await client.send("in")
        for _ in range(5):
            await stays.send("out")
        await leaves.send("out")
        await trio.sleep(1.8)
        assert counted() == (2, 0, 0)
        await trio.sleep(0.3)
        assert counted() == (2, 3, 6)
        presence.connection_closed(leaves, "")
        await stays.send("out")
        await trio.sleep(2)
        assert counted() == (1, 3, 7)


# In a server

TRANSPORTS = [choice for choice in get_args(TransportChoice) if choice != "auto"]


@asynccontextmanager
async def serving(
    app: App, crowd: OneAndOthers, listener: stdlib_socket.socket, transport: TransportChoice
) -> AsyncIterator[tuple[Server, Callable[[], None]]]:
    native = NativeServer(
        app.decide,
        limits=app.limits,
        timeouts=app.timeouts,
        keepalive=app.keepalive,
        transport=transport,
        crowd=crowd,
    )
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:

            async def run(*, task_status: trio.TaskStatus[Server]) -> None:
                await native.run([listener.dup()], None, task_status)

            yield await nursery.start(run), nursery.cancel_scope.cancel
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_server_with_too_many_leaves_a_client_to_the_others_until_they_take_too_long(
    crowd: OneAndOthers, transport: TransportChoice
) -> None:
    with stdlib_socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving(echo_app(), crowd, listener, transport) as (server, _):
            port = listener.getsockname()[1]
            clients = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(SLACK + 2)]
            await until(lambda: server.statistics().connections == SLACK + 2)
            crowd.least = 0
            started = trio.current_time()
            clients.append(await trio.open_tcp_stream("127.0.0.1", port))
            await until(lambda: server.statistics().connections == SLACK + 3)
            assert trio.current_time() - started > 0.09
            for client in clients:
                await client.aclose()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("least", [0, None])
async def test_what_is_in_the_queue_at_the_end_is_accepted_only_if_no_other_server_does(
    crowd: OneAndOthers, transport: TransportChoice, least: int | None
) -> None:
    crowd.least = 0
    with stdlib_socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving(echo_app(), crowd, listener, transport) as (server, stop):
            port = listener.getsockname()[1]
            clients = [stdlib_socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
            crowd.least = least
            stop()
            await until(lambda: server.draining)
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
                assert server.statistics().accepted == (3 if least is None else 0)
        for client in clients:
            client.close()
    assert crowd.phases == [Phase.SERVING, Phase.DRAINING, Phase.STOPPED]


def test_a_lack_of_descriptors_is_logged_by_the_first_of_several_servers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wsframework.server.admission.room_for_connections", lambda: 3)
    for least in (None, 0):
        crowd = OneAndOthers(least=least)
        SharedAdmission(crowd, Limits(connections=100), Timers(), Observer()).fit_descriptors()
    (entry,) = caplog.records
    assert entry.__dict__["event"] == "server.connections_limited"
