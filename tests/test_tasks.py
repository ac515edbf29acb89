from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from wsframework.tasks import UserTasks


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
