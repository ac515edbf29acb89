"""The Trio run inside an event loop, where it fails or meets something unusual."""

from __future__ import annotations

import asyncio

import pytest
import trio

from tests.asyncio.conftest import Run
from wsframework.asyncio.guest import Guest, cancel_again, outlast


def test_it_is_there_from_the_first_user_to_the_last(run: Run) -> None:
    async def main() -> None:
        first = await Guest.enter()
        second = await Guest.enter()
        assert first is second is Guest.here()
        await first.leave()
        await second.call_trio(trio.sleep, 0)
        await second.leave()
        with pytest.raises(RuntimeError, match="no server runs"):
            Guest.here()
        third = await Guest.enter()
        assert third is not first
        await third.leave()

    run(main)


def test_one_who_comes_while_it_ends_gets_a_new_one(run: Run) -> None:
    async def main() -> None:
        first = await Guest.enter()
        leaving = asyncio.create_task(first.leave())
        await asyncio.sleep(0)
        second = await Guest.enter()
        assert second is not first
        await leaving
        await second.leave()

    run(main)


def test_a_crash_of_the_run_itself_ends_the_calls_and_is_raised(run: Run) -> None:
    async def main() -> None:
        guest = await Guest.enter()
        call = asyncio.create_task(guest.call_trio(trio.sleep_forever))
        await asyncio.sleep(0.01)

        async def fail() -> None:
            raise OSError("of a system task")

        trio.lowlevel.spawn_system_task(fail)
        with pytest.raises(RuntimeError, match="has ended"):
            await call
        with pytest.raises(trio.TrioInternalError):
            await guest.leave()

    run(main)


def test_outlast_waits_through_every_cancellation(run: Run) -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        times: list[int] = []
        waiting = asyncio.create_task(outlast(future, lambda: times.append(1)))
        for _ in range(3):
            await asyncio.sleep(0)
            waiting.cancel()
        await asyncio.sleep(0)
        assert not waiting.done()
        future.set_result(None)
        assert await waiting
        assert len(times) == 3

    run(main)


def test_a_cancellation_that_is_given_back_counts_once(run: Run) -> None:
    async def main() -> None:
        async def late() -> None:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError as cancelled:
                cancel_again(cancelled)
            await asyncio.sleep(1000)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await late()

    run(main)
