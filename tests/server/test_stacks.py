from __future__ import annotations

import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.testing import wait_all_tasks_blocked

from wsframework.server.stacks import Standing, of_running, of_task, walk_tasks


async def inner() -> None:
    await trio.sleep_forever()


async def outer() -> None:
    await inner()


async def test_a_task_that_waits_is_named_by_its_function_and_stands_in_the_innermost_one(
    nursery: trio.Nursery,
) -> None:
    nursery.start_soon(outer)
    await wait_all_tasks_blocked()
    (task,) = nursery.child_tasks
    standing = of_task(task)
    assert standing.function == "outer"
    frames = standing.stack.splitlines()
    assert [frame.split()[1] for frame in frames] == ["outer", "inner"]
    assert all(frame.startswith(f"{__file__}:") for frame in frames)


async def test_context_managers_of_the_standard_library_are_nobodys_function(nursery: trio.Nursery) -> None:
    @asynccontextmanager
    async def manager() -> AsyncIterator[None]:
        await inner()
        yield

    nursery.start_soon(manager().__aenter__)
    await wait_all_tasks_blocked()
    (task,) = nursery.child_tasks
    assert str(of_task(task).function).endswith("manager")


async def test_all_tasks_below_one_are_found(nursery: trio.Nursery) -> None:
    async def parent() -> None:
        async with trio.open_nursery() as below:
            below.start_soon(inner)

    nursery.start_soon(parent)
    await wait_all_tasks_blocked()
    (task,) = nursery.child_tasks
    assert [found.name.rpartition(".")[2] for found in walk_tasks(task)] == ["parent", "inner"]


async def test_a_task_that_runs_is_seen_from_another_thread() -> None:
    seen: list[Standing] = []
    loop = threading.get_ident()

    def look() -> None:
        time.sleep(0.05)
        seen.append(of_running(sys._current_frames()[loop]))

    def block() -> None:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    block()
    assert "block" in seen[0].stack


def test_outside_of_any_event_loop_no_task_runs() -> None:
    assert of_running(sys._getframe()) == Standing(None, "")
