"""Who may come in, and what is counted."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from wsframework.config import Limits
from wsframework.forwarded import Proxies
from wsframework.observer import Observer
from wsframework.request import Address
from wsframework.server.admission import Admission
from wsframework.server.logged import LogObserver
from wsframework.timers import Timers

HERE, THERE = Address("192.0.2.1", 1000), Address("192.0.2.2", 1000)


def test_no_more_connections_are_open_than_may_be() -> None:
    admission = Admission(Limits(connections=2), Timers(), Observer())
    assert [admission.admit(HERE), admission.admit(THERE), admission.admit(HERE)] == [True, True, False]
    assert (admission.open, admission.accepted, admission.refused) == (2, 3, 1)
    admission.depart(THERE)
    assert admission.admit(HERE)


def test_an_address_has_no_more_connections_than_it_may_have() -> None:
    admission = Admission(Limits(connections_per_address=1), Timers(), Observer())
    assert [admission.admit(HERE), admission.admit(HERE), admission.admit(THERE)] == [True, False, True]
    admission.depart(HERE)
    assert admission.admit(HERE)


def test_a_network_is_counted_as_one_address() -> None:
    admission = Admission(Limits(connections_per_address=2), Timers(), Observer())
    neighbours = [Address(f"2001:db8::{number:x}", 1) for number in range(1, 5)]
    assert [admission.admit(remote) for remote in neighbours] == [True, True, False, False]
    assert admission.admit(Address("2001:db8:0:1::1", 1))
    admission.depart(neighbours[0])
    assert admission.admit(neighbours[3])
    assert admission.admit(HERE)
    assert admission.admit(Address(f"::ffff:{HERE.host}", 7))
    assert not admission.admit(Address(f"::ffff:{HERE.host}", 8))


@pytest.mark.parametrize("path", ["", "/run/chat.sock"])
def test_a_unix_socket_has_no_address_to_count(path: str) -> None:
    admission = Admission(Limits(connections_per_address=1), Timers(), Observer())
    assert all(admission.admit(Address(path)) for _ in range(5))
    admission.depart(Address(path))
    assert admission.open == 4


def test_a_connection_behind_a_trusted_proxy_is_its_clients() -> None:
    limits = Limits(connections_per_address=1)
    observer = Refusals()
    admission = Admission(limits, Timers(), observer, Proxies.parse(["192.0.2.1", "unix"]))
    # However many the proxy has: no client is known yet.
    assert all(admission.admit(proxy) for proxy in (HERE, HERE, HERE, HERE, Address("")))
    assert admission.identify(THERE)
    assert not admission.identify(Address(THERE.host))
    assert not admission.admit(THERE)
    assert admission.identify(Address("2001:db8::1"))
    assert not admission.identify(Address("2001:db8::2", 7))
    # The refused one has stayed the proxy's.
    admission.depart(HERE)
    assert not admission.identify(THERE)
    admission.depart(THERE)
    assert admission.identify(Address(THERE.host))
    # All hops are trusted: the proxy's own, or a client inside.
    assert all(admission.identify(inside) for inside in (HERE, Address(HERE.host), Address("")))
    assert (admission.open, admission.accepted, admission.refused) == (3, 6, 4)
    assert [str(remote) for remote in observer.refused] == ["192.0.2.2", "[2001:db8::2]:7", str(THERE)]
    for remote in (Address(THERE.host), Address("2001:db8::1"), Address("")):
        admission.depart(remote)
    assert (admission.open, admission._by_network) == (0, {})


class Refusals(Observer):
    def __init__(self) -> None:
        self.refused: list[Address] = []

    def connection_refused(self, remote: Address) -> None:
        self.refused.append(remote)


def test_without_a_limit_no_client_is_too_many() -> None:
    admission = Admission(Limits(), Timers(), Observer(), Proxies.parse("192.0.2.1"))
    for _ in range(10):
        assert admission.admit(HERE)
        assert admission.identify(THERE)
        admission.depart(THERE)
    assert (admission.open, admission._by_network) == (0, {})


async def test_refusals_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsframework.server.admission._REFUSALS_AT_ONCE", 1)
    admission = Admission(Limits(), Timers(), Observer())
    assert [admission.begin_refusal(HERE), admission.begin_refusal(HERE)] == [True, False]
    admission.end_refusal()
    assert admission.begin_refusal(HERE)


async def test_a_flood_of_refusals_is_a_line_now_and_then(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    timers = Timers()
    admission = Admission(Limits(), timers, LogObserver(timers))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        for _ in range(1000):
            admission.begin_refusal(HERE)
        assert [entry.getMessage() for entry in caplog.records] == [f"connection.refused remote={HERE}"]
        await trio.sleep(11)
        assert caplog.records[1].getMessage() == f"connection.refused remote={HERE} count=999 seconds=10.0"
        nursery.cancel_scope.cancel()


async def test_it_is_empty_when_the_last_has_gone_whoever_came_in_between(
    autojump_clock: trio.testing.MockClock,
) -> None:
    admission = Admission(Limits(), Timers(), Observer())
    await admission.wait_empty()
    admission.admit(HERE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admission.wait_empty)
        await trio.testing.wait_all_tasks_blocked()
        admission.admit(THERE)
        admission.depart(HERE)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        admission.depart(THERE)
        await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks


# Descriptors


@pytest.mark.parametrize(("wanted", "shown"), [(2000, 2000), (None, "no limit")])
def test_no_more_connections_than_descriptors_and_a_record_says_so(
    wanted: int | None, shown: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wsframework.server.admission.room_for_connections", lambda: 3)
    monkeypatch.setattr("wsframework.server.admission.descriptor_limit", lambda: 150)
    admission = Admission(Limits(connections=wanted), Timers(), Observer())
    admission.fit_descriptors()
    assert [admission.admit(HERE) for _ in range(4)] == [True, True, True, False]
    (entry,) = caplog.records
    assert entry.levelno == logging.WARNING
    assert entry.__dict__["event"] == "server.connections_limited"
    assert entry.__dict__["fields"] == {"connections": 3, "wanted": shown, "descriptors": 150}


@pytest.mark.parametrize("room", [None, 2, 1000])
def test_a_limit_that_fits_stands_and_nothing_is_said(
    room: int | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wsframework.server.admission.room_for_connections", lambda: room)
    admission = Admission(Limits(connections=2), Timers(), Observer())
    admission.fit_descriptors()
    assert [admission.admit(HERE) for _ in range(3)] == [True, True, False]
    assert caplog.records == []


# TLS handshakes


class Shaking:
    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.ended = False

    def make_room(self) -> None:
        self.ended = True
        self.admission.end_handshake(self)


def test_the_oldest_handshake_makes_room_for_the_newest() -> None:
    admission = Admission(Limits(tls_handshakes=2), Timers(), Observer())
    first, second, third, fourth = (Shaking(admission) for _ in range(4))
    for handshake in (first, second):
        admission.begin_handshake(handshake)
    admission.end_handshake(first)
    admission.end_handshake(first)
    admission.begin_handshake(third)
    assert not second.ended
    admission.begin_handshake(fourth)
    assert [handshake.ended for handshake in (first, second, third, fourth)] == [False, True, False, False]


def test_without_a_limit_no_handshake_has_to_go() -> None:
    admission = Admission(Limits(tls_handshakes=None), Timers(), Observer())
    handshakes = [Shaking(admission) for _ in range(5000)]
    for handshake in handshakes:
        admission.begin_handshake(handshake)
    assert not any(handshake.ended for handshake in handshakes)


async def test_a_handshake_in_a_task_is_cancelled_to_make_room() -> None:
    admission = Admission(Limits(tls_handshakes=1), Timers(), Observer())
    with trio.CancelScope() as scope, admission.handshaking(scope):
        admission.begin_handshake(Shaking(admission))
        await trio.sleep_forever()
    assert scope.cancelled_caught


# Memory


async def test_memory_is_given_back_when_a_storm_is_over_and_not_before(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    monkeypatch.setattr(
        "wsframework.server.admission.give_back_memory", lambda: given.append(trio.current_time())
    )
    timers = Timers()
    admission = Admission(Limits(), timers, Observer())

    async def come_and_go(count: int) -> None:
        for _ in range(count):
            admission.admit(HERE)
        await trio.sleep(10)
        for _ in range(count):
            admission.depart(HERE)
        await trio.sleep(10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        await come_and_go(100)
        assert given == []
        start = trio.current_time()
        await come_and_go(1000)
        await come_and_go(100)
        assert given == [pytest.approx(start + 12)]
        await come_and_go(1000)
        assert len(given) == 2
        nursery.cancel_scope.cancel()
