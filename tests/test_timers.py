from __future__ import annotations

import gc
import itertools
import logging
import time
import weakref
from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from wsframework.timers import Timers

Log = list[tuple[str, float]]


def teller(log: Log, name: str) -> Callable[[], None]:
    start = trio.current_time()

    def tell() -> None:
        log.append((name, trio.current_time() - start))

    return tell


async def test_callbacks_run_once_each_at_their_time(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    timers = Timers()
    log: Log = []
    timers.after(3, teller(log, "before the task runs"))
    nursery.start_soon(timers.run)
    await wait_all_tasks_blocked()
    timers.after(5, teller(log, "late"))
    timers.after(1, teller(log, "early"))
    timers.after(0, teller(log, "now"))
    await trio.sleep(10)
    assert log == [("now", 0), ("early", 1), ("before the task runs", 3), ("late", 5)]


async def test_equal_deadlines_run_in_the_order_they_were_set(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    timers = Timers()
    nursery.start_soon(timers.run)
    log: Log = []
    for name in "abcde":
        timers.after(1, teller(log, name))
    await trio.sleep(1.5)
    assert [name for name, _ in log] == list("abcde")


async def test_a_callback_may_set_another_timer(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    timers = Timers()
    nursery.start_soon(timers.run)
    log: Log = []
    tell = teller(log, "second")

    def set_another() -> None:
        timers.after(2, tell)

    timers.after(1, set_another)
    await trio.sleep(5)
    assert log == [("second", 3)]


async def test_a_timer_set_just_as_another_is_due_is_not_missed(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    timers = Timers()
    log: Log = []
    nursery.start_soon(timers.run)
    timers.after(1, teller(log, "due"))
    late = teller(log, "set at the same moment")

    async def set_another() -> None:
        await trio.sleep(1)
        timers.after(1, late)

    nursery.start_soon(set_another)
    await trio.sleep(5)
    assert log == [("due", 1), ("set at the same moment", 2)]


async def test_a_cancelled_timer_does_not_run(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    timers = Timers()
    nursery.start_soon(timers.run)
    log: Log = []
    timer = timers.after(1, teller(log, "cancelled"))
    timers.after(1, teller(log, "kept"))
    timer.cancel()
    timer.cancel()
    await trio.sleep(5)
    assert log == [("kept", 1)]


async def test_cancelling_after_the_fact_is_harmless(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    timers = Timers()
    nursery.start_soon(timers.run)
    log: Log = []
    timer = timers.after(1, teller(log, "ran"))
    await trio.sleep(2)
    timer.cancel()
    timer.fire()
    assert log == [("ran", 1)]


async def test_a_timer_that_is_over_keeps_nothing_alive(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    class Connection:
        def abort(self) -> None:
            self.aborted = True

    timers = Timers()
    nursery.start_soon(timers.run)
    cancelled, fired = Connection(), Connection()
    references = [weakref.ref(cancelled), weakref.ref(fired)]
    husk = timers.after(1000, cancelled.abort)
    done = timers.after(1, fired.abort)
    husk.cancel()
    await trio.sleep(2)
    assert fired.aborted
    del cancelled, fired
    gc.collect()
    assert [reference() for reference in references] == [None, None]
    assert husk.deadline - done.deadline == 999


async def test_a_callback_that_fails_is_logged_and_the_others_still_run(
    autojump_clock: MockClock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError("broken callback")

    timers = Timers()
    nursery.start_soon(timers.run)
    log: Log = []
    timers.after(1, fail)
    timers.after(1, teller(log, "same time"))
    timers.after(2, teller(log, "later"))
    await trio.sleep(3)
    assert log == [("same time", 1), ("later", 2)]
    (entry,) = caplog.records
    assert (entry.levelno, entry.__dict__["event"]) == (logging.ERROR, "timer.failed")
    assert entry.exc_info is not None
    assert str(entry.exc_info[1]) == "broken callback"


async def test_pending_timers_die_with_their_task(autojump_clock: MockClock) -> None:
    timers = Timers()
    log: Log = []
    with trio.move_on_after(1):
        timers.after(2, teller(log, "dropped"))
        await timers.run()
    await trio.sleep(5)
    assert log == []


async def test_timers_that_are_due_together_let_other_tasks_run_in_between(nursery: trio.Nursery) -> None:
    timers = Timers()
    left = 100
    seen: list[int] = []

    def work() -> None:
        nonlocal left
        left -= 1
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass

    for _ in range(100):
        timers.after(0, work)
    nursery.start_soon(timers.run)
    with trio.fail_after(30):
        while left:
            await trio.lowlevel.checkpoint()
            seen.append(left)
    assert max(before - after for before, after in itertools.pairwise([100, *seen])) < 50
