"""A failure says what was waited for, and where."""

from __future__ import annotations

import sys

import pytest
import trio
import trio.testing

from wsframework.testing import DeadlineExceeded
from wsframework.testing.deadline import fail_after, innermost_place, running_frames, waiting_frames


async def test_what_takes_too_long_fails_with_the_explanation(autojump_clock: trio.abc.Clock) -> None:
    with pytest.raises(DeadlineExceeded, match="no bus came"), fail_after(3, lambda: "no bus came"):
        await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(3, abs=1e-6)


async def test_what_is_in_time_passes(autojump_clock: trio.abc.Clock) -> None:
    with fail_after(3, lambda: "never asked"):
        await trio.sleep(2.9)


async def test_deadline_exceeded_is_a_failed_assertion() -> None:
    assert issubclass(DeadlineExceeded, AssertionError)


async def inner() -> None:
    await trio.sleep_forever()


async def outer() -> None:
    await inner()


async def test_the_place_of_a_waiting_task_is_the_innermost_that_is_not_trios() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outer)
        await trio.testing.wait_all_tasks_blocked()
        [task] = nursery.child_tasks
        assert innermost_place(waiting_frames(task.coro)).startswith("inner (test_deadline.py:")
        nursery.cancel_scope.cancel()


def test_the_place_of_running_code_is_found_from_its_frame() -> None:

    def here() -> str:
        frames = running_frames(
            sys._getframe(), outermost=test_the_place_of_running_code_is_found_from_its_frame.__code__
        )
        return innermost_place(frames)

    assert ".here (test_deadline.py:" in here()


def test_a_place_that_is_not_known_is_called_so() -> None:
    assert innermost_place(waiting_frames(None)) == "an unknown place"
    assert innermost_place(waiting_frames(object())) == "an unknown place"
