from __future__ import annotations

from typing import Any

import pytest

from wsframework.chat.rate import Rate, Throttle


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
