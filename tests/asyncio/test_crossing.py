"""Calls from asyncio tasks into Trio and back: results, exceptions, contexts, cancellation both ways."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
import trio

from tests import waiting
from tests.asyncio.conftest import Run, until
from wsframework import App
from wsframework.asyncio import from_asyncio, from_trio, serve

color: ContextVar[str] = ContextVar("color", default="none")


async def double(number: int) -> int:
    await trio.lowlevel.checkpoint()
    return 2 * number


async def triple(number: int) -> int:
    await asyncio.sleep(0)
    return 3 * number


def test_each_world_calls_the_other_and_gets_the_result(run: Run) -> None:
    async def trio_side(number: int) -> int:
        return await from_trio(triple, await double(number))

    async def main() -> None:
        async with serve(App(), port=0) as house:
            assert await from_asyncio(double, 4) == 8
            assert await house.from_asyncio(trio_side, 5) == 30
            numbers = await asyncio.gather(*(from_asyncio(trio_side, number) for number in range(100)))
            assert numbers == [6 * number for number in range(100)]

    run(main)


class Special(BaseException):
    pass


def raiser(error: BaseException) -> Callable[[], Any]:
    async def function() -> None:
        raise error

    return function


@pytest.mark.parametrize("error", [ValueError("wrong"), Special(), SystemExit(3), KeyboardInterrupt()])
def test_exceptions_of_any_kind_cross_over_as_they_are(run: Run, error: BaseException) -> None:
    async def through_trio() -> None:
        with pytest.raises(type(error)) as raised:
            await from_trio(raiser(error))
        assert raised.value is error

    async def main() -> None:
        async with serve(App(), port=0):
            with pytest.raises(type(error)) as raised:
                await from_asyncio(raiser(error))
            assert raised.value is error
            await from_asyncio(through_trio)

    run(main)


def test_a_function_that_fails_before_it_awaits_fails_in_its_caller(run: Run) -> None:
    def no_function() -> Any:
        raise ZeroDivisionError

    async def through_trio() -> None:
        with pytest.raises(ZeroDivisionError):
            await from_trio(no_function)

    async def main() -> None:
        async with serve(App(), port=0):
            await from_asyncio(through_trio)

    run(main)


def test_the_context_goes_along(run: Run) -> None:
    async def in_asyncio() -> str:
        return color.get()

    async def in_trio() -> str:
        assert color.get() == "red"
        color.set("blue")
        return await from_trio(in_asyncio)

    async def main() -> None:
        async with serve(App(), port=0):
            color.set("red")
            assert await from_asyncio(in_trio) == "blue"
            assert color.get() == "red"

    run(main)


def test_a_cancelled_asyncio_task_cancels_what_it_waits_for_in_trio(run: Run) -> None:
    events: list[str] = []

    async def wait() -> None:
        try:
            events.append("waiting")
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.01)
            events.append("cleaned up")

    async def main() -> None:
        async with serve(App(), port=0):
            task = asyncio.create_task(from_asyncio(wait))
            await until(lambda: events)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert events == ["waiting", "cleaned up"]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await from_asyncio(trio.sleep_forever)

    run(main)


def test_a_cancelled_trio_task_cancels_what_it_waits_for_in_asyncio(run: Run) -> None:
    events: list[str] = []

    async def wait() -> None:
        try:
            events.append("waiting")
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0.01)
            events.append("cleaned up")

    async def in_trio() -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(from_trio, wait)
            await waiting.until(lambda: events)
            nursery.cancel_scope.cancel()
        assert events == ["waiting", "cleaned up"]
        # Before it is called, and before its task has started.
        with trio.CancelScope() as scope:
            scope.cancel()
            await from_trio(wait)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(from_trio, wait)
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        return "done"

    async def main() -> None:
        async with serve(App(), port=0):
            assert await from_asyncio(in_trio) == "done"
        assert events in (["waiting", "cleaned up"], ["waiting", "cleaned up"] * 2)

    run(main)


def test_a_result_that_was_there_before_the_cancellation_is_not_lost(run: Run) -> None:
    async def main() -> None:
        async with serve(App(), port=0):
            send, receive = trio.open_memory_channel[int](1)
            results: list[object] = []

            async def take() -> None:
                results.append(await from_asyncio(receive.receive))
                try:
                    await asyncio.sleep(1000)
                except asyncio.CancelledError:
                    results.append("cancelled")
                    raise

            task = asyncio.create_task(take())
            await asyncio.sleep(0.05)
            # The waiting task has the message from here on, although it has not run.
            send.send_nowait(7)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert results == [7, "cancelled"]
            assert task.cancelling() == 1

    run(main)


def test_a_trio_task_that_does_not_end_when_cancelled_is_waited_for(run: Run) -> None:
    scopes: list[trio.CancelScope] = []

    async def stubborn() -> str:
        asyncio.get_running_loop().call_soon(scopes[0].cancel)
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            return "all the same"
        raise AssertionError

    async def in_trio() -> str:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            result = await from_trio(stubborn)
            assert scope.cancel_called
            with pytest.raises(trio.Cancelled):
                await trio.lowlevel.checkpoint()
            return result
        raise AssertionError

    async def main() -> None:
        async with serve(App(), port=0):
            assert await from_asyncio(in_trio) == "all the same"

    run(main)


async def leak() -> None:
    task = asyncio.get_running_loop().create_future()
    task.cancel()
    await task


def test_a_cancelled_error_that_nobody_asked_for_is_the_functions_mistake(run: Run) -> None:
    async def in_trio() -> None:
        with pytest.raises(asyncio.CancelledError):
            await from_trio(leak)

    async def leaks_through_trio() -> None:
        await from_trio(leak)

    async def main() -> None:
        async with serve(App(), port=0):
            await from_asyncio(in_trio)
            with pytest.raises(RuntimeError, match="CancelledError through") as raised:
                await from_asyncio(leaks_through_trio)
            assert isinstance(raised.value.__cause__, asyncio.CancelledError)

    run(main)


def test_a_task_that_damages_itself_hurts_no_other(run: Run) -> None:
    async def damage() -> None:
        await trio.open_nursery().__aenter__()

    async def main() -> None:
        async with serve(App(), port=0):
            other = asyncio.create_task(from_asyncio(trio.sleep, 0.1))
            with pytest.raises(RuntimeError, match="corrupted"):
                await from_asyncio(damage)
            await other
            assert await from_asyncio(double, 1) == 2

    run(main)


def test_without_a_server_asyncio_is_told_what_to_do() -> None:
    async def main() -> None:
        with pytest.raises(
            RuntimeError, match=r"enter `async with wsframework\.asyncio\.serve\(app\):` first"
        ):
            await from_asyncio(trio.sleep, 0)

    asyncio.run(main())


async def test_in_a_plain_trio_program_a_handler_is_told_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"serve the App by `async with wsframework\.asyncio\.serve"):
        await from_trio(triple, 1)


def test_calls_that_are_open_when_the_last_server_ends_say_so(run: Run) -> None:
    async def main() -> None:
        async with serve(App(), port=0):
            call = asyncio.create_task(from_asyncio(trio.sleep_forever))
            await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="the last server in this event loop has ended"):
            await call

    run(main)


def test_the_cancel_scopes_of_anyio_work_around_both(run: Run) -> None:
    async def in_trio() -> str:
        with anyio.move_on_after(0.01) as scope:
            await from_trio(asyncio.sleep, 1000)
        return f"{scope.cancelled_caught}"

    async def main() -> None:
        async with serve(App(), port=0):
            for _ in range(2):
                with anyio.move_on_after(0.01) as scope:
                    await from_asyncio(trio.sleep_forever)
                assert scope.cancelled_caught
            assert await from_asyncio(in_trio) == "True"
            send, receive = trio.open_memory_channel[int](1)
            with anyio.CancelScope() as scope:
                asyncio.get_running_loop().call_later(0.05, send.send_nowait, 7)
                asyncio.get_running_loop().call_later(0.05, scope.cancel)
                assert await from_asyncio(receive.receive) == 7
                await anyio.sleep(1000)
            assert scope.cancelled_caught
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0

    run(main)


def test_a_function_that_cancels_its_caller_at_once_is_cancelled(run: Run) -> None:
    events: list[str] = []

    async def in_trio() -> str:
        with trio.CancelScope() as scope:

            async def cancel_the_caller() -> None:
                scope.cancel()
                try:
                    await asyncio.sleep(1000)
                finally:
                    events.append("ended")

            await from_trio(cancel_the_caller)
        assert events == ["ended"]
        return f"{scope.cancelled_caught}"

    async def main() -> None:
        async with serve(App(), port=0):
            assert await from_asyncio(in_trio) == "True"

    run(main)
