from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from wsframework import Address, Close
from wsframework.chat.rate import Rate, Throttle, Visitors


def test_a_burst_goes_through_and_then_the_rate_counts() -> None:
    throttle = Throttle(Rate(per_second=2, burst=3), now=100.0)
    assert [throttle.take(100.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert throttle.take(100.0) == pytest.approx(0.5)
    assert throttle.take(100.4) == pytest.approx(0.1)
    assert throttle.take(100.5) == 0.0
    assert throttle.take(100.5) == pytest.approx(0.5)


def test_quiet_time_saves_up_one_burst_and_no_more() -> None:
    throttle = Throttle(Rate(per_second=2, burst=3), now=0.0)
    assert [throttle.take(1e6) == 0.0 for _ in range(4)] == [True, True, True, False]


def test_patience_ends_after_so_many_refusals() -> None:
    throttle = Throttle(Rate(per_second=1, burst=1, tolerance=2), now=0.0)
    throttle.take(0.0)
    for exhausted in (False, False, True):
        assert throttle.take(0.0) > 0
        assert throttle.exhausted is exhausted


def test_patience_is_back_after_a_quiet_time() -> None:
    throttle = Throttle(Rate(per_second=1, burst=2, tolerance=1), now=0.0)
    for _ in range(3):
        throttle.take(0.0)
    assert not throttle.exhausted
    throttle.take(2.0)
    throttle.take(2.0)
    throttle.take(2.0)
    assert not throttle.exhausted
    throttle.take(2.0)
    assert throttle.exhausted


def test_a_slow_trickle_over_the_rate_is_still_a_flood() -> None:
    throttle = Throttle(Rate(per_second=1, burst=2, tolerance=10), now=0.0)
    for number in range(60):
        throttle.take(number * 0.5)
    assert throttle.exhausted


@pytest.mark.parametrize("mistake", [{"per_second": 0}, {"burst": 0}, {"tolerance": -1}])
def test_a_rate_that_means_nothing_is_refused(mistake: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Rate(**mistake)


RATE = Rate(per_second=2, burst=4, tolerance=3)


def visitors(connections: int | None = None) -> Visitors:
    return Visitors(RATE, Rate(per_second=3, burst=10, tolerance=0), connections)


def test_coming_back_on_a_new_connection_gives_no_new_burst() -> None:
    house = visitors()
    now, said = 0.0, 0
    for _ in range(1000):
        with suppress(Close), house.visit(Address("192.0.2.1", 1), now) as visit:
            while not visit.take(now):
                said += 1
        now += 0.1
    assert said <= 10 + 3 * 100


def test_the_first_refused_address_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    house = visitors(connections=0)
    for _ in range(3):
        with pytest.raises(Close), house.visit(Address("192.0.2.1"), 0.0):
            raise AssertionError("one too many")
    (record,) = caplog.records
    assert (
        "too many connections from 192.0.2.1; if that is a proxy, the server must trust it"
        in record.getMessage()
    )


def test_each_address_has_a_rate_of_its_own_and_each_connection_too() -> None:
    house = visitors()
    with house.visit(Address("192.0.2.1", 1), 0.0) as one, house.visit(Address("192.0.2.2", 1), 0.0) as other:
        assert [one.take(0.0) == 0.0 for _ in range(5)] == [True] * 4 + [False]
        assert other.take(0.0) == 0.0


def test_a_client_that_goes_on_over_the_rate_of_its_address_is_exhausted() -> None:
    house = visitors()
    with house.visit(Address("192.0.2.1", 1), 0.0) as one, house.visit(Address("192.0.2.1", 2), 0.0) as other:
        for _ in range(4):
            assert one.take(0.0) == 0.0
            assert other.take(0.0) == 0.0
    with house.visit(Address("192.0.2.2", 1), 0.0) as third:
        assert third.take(0.0) == 0.0
    # Ten requests came from the address.
    refused = pytest.raises(Close, match="too many requests from your address")
    with refused, house.visit(Address("192.0.2.1", 3), 0.0):
        raise AssertionError("the address has had its burst")
    assert one.take(2.0) == 0.0  # both have saved up
    assert [one.take(2.0) > 0 for _ in range(4)][-1]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::1%eth0", True),
        ("fe80::1%eth0", "fe80::2%eth0", False),
        ("192.0.2.1", "64:ff9b::192.0.2.1", True),
        ("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.2", False),
        ("2002:c000:201::1", "2002:c000:201:ffff::1", True),
        ("2001:0:4136:e378:8000:63bf:3fff:fdfe", "2001:0:4136:e378:8000:63bf:3fff:fdff", False),
    ],
)
def test_connections_are_counted_by_address(one: str, other: str, same: bool) -> None:
    house = visitors(connections=1)
    with house.visit(Address(one, 1), 0.0):
        if same:
            with (
                pytest.raises(Close, match="too many connections from your address"),
                house.visit(Address(other), 0),
            ):
                raise AssertionError("one too many")
        else:
            with house.visit(Address(other, 1), 0.0):
                pass
        assert len(house) == 2 - same
    with house.visit(Address(other, 1), 0.0):
        pass


@pytest.mark.parametrize("path", ["", "/run/chat.sock", "./1.2.3.4"])
def test_unix_sockets_are_no_addresses(path: str) -> None:
    house = visitors(connections=0)
    with house.visit(Address(path), 0.0) as visit:
        assert visit.take(0.0) == 0.0
    assert len(house) == 0


def test_an_address_is_forgotten_when_it_has_a_full_burst_again() -> None:
    house = visitors()
    for number in range(100):
        with house.visit(Address(f"192.0.2.{number}"), 0.0) as visit:
            visit.take(0.0)
    with house.visit(Address("198.51.100.1"), 0.1):
        assert len(house) == 101
    with house.visit(Address("198.51.100.1"), 1.0):
        assert len(house) == 1
