"""What a test's own block raises is what comes out."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from wsframework.testing.background import open_background


async def fail() -> None:
    raise ZeroDivisionError


async def test_the_blocks_exception_comes_out_as_it_is_and_ends_the_tasks() -> None:
    error = KeyError("mine")

    async def test() -> None:
        async with open_background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise error

    with pytest.raises(KeyError) as caught:
        await test()
    assert caught.value is error


async def test_a_group_of_the_blocks_own_stays_a_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_background():
            raise ExceptionGroup("mine", [KeyError()])
    assert caught.value.message == "mine"


async def test_a_tasks_exception_ends_the_block_and_comes_out_without_a_group() -> None:
    async def test() -> None:
        async with open_background() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()

    with pytest.raises(ZeroDivisionError):
        await test()


async def test_when_both_fail_the_blocks_exception_comes_out_with_the_tasks_as_its_cause() -> None:
    async def fail_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError

    async def test() -> None:
        async with open_background() as nursery:
            nursery.start_soon(fail_late)
            await trio.testing.wait_all_tasks_blocked()
            raise KeyError

    with pytest.raises(KeyError) as caught:
        await test()
    assert isinstance(caught.value.__cause__, BaseExceptionGroup)


async def test_a_cancellation_from_outside_passes() -> None:
    with trio.move_on_after(0.01) as limit:
        async with open_background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()
    assert limit.cancelled_caught


async def test_an_interrupt_in_a_task_is_about_all_tests_and_comes_out_though_the_block_fails() -> None:
    async def interrupt() -> None:
        raise KeyboardInterrupt

    async def test() -> None:
        async with open_background() as nursery:
            nursery.start_soon(interrupt)
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("because of it")

    with pytest.raises(KeyboardInterrupt):
        await test()
