from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from wsframework.tasks import GivenUp, Limit, UserTasks, begin_deciding, end_deciding


class Own(BaseException):
    """Of the application's own making."""


@pytest.fixture
async def tasks(nursery: trio.Nursery) -> AsyncIterator[UserTasks]:
    tasks = UserTasks()
    await nursery.start(tasks.run)
    yield tasks
    tasks.close()


async def fail() -> None:
    raise Own


async def damage() -> None:
    await trio.open_nursery().__aenter__()


async def live(seconds: float, log: list[float]) -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep(seconds)
        log.append(seconds)


@pytest.mark.parametrize("end", [fail, damage])
async def test_a_tasks_end_ends_no_other_task(
    tasks: UserTasks, autojump_clock: MockClock, end: object
) -> None:
    log: list[float] = []
    for seconds in (1, 2):
        tasks.start(live, seconds, log)
        tasks.start(end)  # type: ignore[arg-type]
    await wait_all_tasks_blocked()
    tasks.start(live, 3, log)
    tasks.start(end)  # type: ignore[arg-type]
    await trio.sleep(5)
    assert log == [1, 2, 3]


async def test_a_nursery_that_was_cancelled_goes_with_its_last_task(
    tasks: UserTasks, autojump_clock: MockClock
) -> None:
    alive = trio.lowlevel.current_statistics().tasks_living
    for _ in range(50):
        tasks.start(fail)
        await wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == alive


async def test_closed_it_ends_with_the_last_task_and_starts_no_more(autojump_clock: MockClock) -> None:
    tasks, log = UserTasks(), list[float]()
    async with trio.open_nursery() as nursery:
        await nursery.start(tasks.run)
        tasks.start(live, 3, log)
        tasks.close()
        with pytest.raises(RuntimeError, match="only while they are held"):
            tasks.start(live, 1, log)
    assert log == [3]
    assert trio.current_time() == 3


async def test_it_starts_nothing_before_it_runs() -> None:
    with pytest.raises(RuntimeError, match="only while they are held"):
        UserTasks().start(fail)


async def test_a_limit_ends_what_is_in_it_after_its_seconds(autojump_clock: MockClock) -> None:
    with Limit(3):
        await trio.sleep(60)
    assert trio.current_time() == 3


async def test_a_limit_that_is_given_up_says_so(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    give_up = begin_deciding()
    give_up()  # there is none yet

    async def leave() -> None:
        await trio.sleep(1)
        give_up()

    nursery.start_soon(leave)
    with pytest.raises(GivenUp), Limit(60):
        await trio.sleep_forever()
    assert trio.current_time() == 1
    end_deciding()
    give_up()  # there is none any more
    await trio.lowlevel.checkpoint()


async def test_what_is_raised_in_a_limit_comes_out_of_it(autojump_clock: MockClock) -> None:
    give_up = begin_deciding()

    async def fail_in_it() -> None:
        with Limit(60):
            give_up()
            raise Own

    with pytest.raises(Own):
        await fail_in_it()
    end_deciding()


async def test_only_a_task_that_decides_is_shielded_by_its_limit(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as around, Limit(60):
        await trio.sleep_forever()
    assert around.cancelled_caught
    begin_deciding()
    with trio.move_on_after(1), Limit(5):
        await trio.sleep_forever()
    end_deciding()
    assert trio.current_time() == 6
