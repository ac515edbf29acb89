"""Waiting with a trap that is kept must be the same as waiting with one made anew."""

from __future__ import annotations

import outcome
import pytest
import trio
from trio.lowlevel import Abort, Task, current_task, reschedule
from trio.testing import wait_all_tasks_blocked

from wsframework.parking import NEVER_PARKED, Handed, Parked


class Waiter:
    """A task that waits again and again with one `Parked`."""

    def __init__(self) -> None:
        self.parked = Parked(self.abort)
        self.task: Task | None = None
        self.aborts = 0
        self.got: list[str] = []

    def abort(self, _: object) -> Abort:
        self.aborts += 1
        self.task = None
        return Abort.SUCCEEDED

    async def run(self, times: int) -> None:
        for _ in range(times):
            self.task = current_task()
            self.got.append(await self.parked)

    def wake(self, result: outcome.Outcome[str]) -> None:
        assert self.task is not None
        task, self.task = self.task, None
        reschedule(task, result)


async def test_a_parked_task_gets_what_it_is_handed_time_after_time(nursery: trio.Nursery) -> None:
    waiter = Waiter()
    nursery.start_soon(waiter.run, 3)
    for message in ("a", "b", "c"):
        await wait_all_tasks_blocked()
        waiter.wake(Handed(message))
    await wait_all_tasks_blocked()
    assert waiter.got == ["a", "b", "c"]


async def test_a_parked_task_is_cancelled_through_its_own_abort(nursery: trio.Nursery) -> None:
    waiter = Waiter()
    for count in (1, 2):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(waiter.run, 1)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        assert waiter.aborts == count
    nursery.start_soon(waiter.run, 1)
    await wait_all_tasks_blocked()
    waiter.wake(Handed("still works"))
    await wait_all_tasks_blocked()
    assert waiter.got == ["still works"]


async def test_an_error_is_raised_where_the_task_waits() -> None:
    waiter = Waiter()

    async def fails() -> None:
        with pytest.raises(KeyError, match="gone"):
            await waiter.run(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails)
        await wait_all_tasks_blocked()
        waiter.wake(outcome.Error(KeyError("gone")))


async def test_a_cancelled_task_that_waits_is_woken_at_once() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await Waiter().run(1)
    assert scope.cancelled_caught


def test_what_is_handed_is_a_value_of_trios_kind() -> None:
    handed = Handed("message")
    assert isinstance(handed, outcome.Value)
    assert handed.unwrap() == handed.value == "message"


def test_nobody_waits_with_the_one_for_closed_connections() -> None:
    assert isinstance(NEVER_PARKED, Parked)
