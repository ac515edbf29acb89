"""Who may come in, and what is counted."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from wsframework.config import Limits
from wsframework.request import Address
from wsframework.server.admission import Admission

HERE, THERE = Address("192.0.2.1", 1000), Address("192.0.2.2", 1000)


def test_no_more_connections_are_open_than_may_be() -> None:
    admission = Admission(Limits(connections=2))
    assert [admission.admit(HERE), admission.admit(THERE), admission.admit(HERE)] == [True, True, False]
    assert (admission.open, admission.accepted, admission.refused) == (2, 3, 1)
    admission.depart(THERE)
    assert admission.admit(HERE)


def test_an_address_has_no_more_connections_than_it_may_have() -> None:
    admission = Admission(Limits(connections_per_address=1))
    assert [admission.admit(HERE), admission.admit(HERE), admission.admit(THERE)] == [True, False, True]
    admission.depart(HERE)
    assert admission.admit(HERE)


def test_refusals_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsframework.server.admission._REFUSALS_AT_ONCE", 1)
    admission = Admission(Limits())
    assert [admission.begin_refusal(), admission.begin_refusal()] == [True, False]
    admission.end_refusal()
    assert admission.begin_refusal()


async def test_it_is_empty_when_the_last_has_gone_whoever_came_in_between(
    autojump_clock: trio.testing.MockClock,
) -> None:
    admission = Admission(Limits())
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
