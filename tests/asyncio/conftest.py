from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator

import pytest

Run = Callable[[Callable[[], Awaitable[object]]], None]

_HANGS_SECONDS = 120


def _factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if name == "asyncio":
        return None
    if name == "eager":

        def eager() -> asyncio.AbstractEventLoop:
            loop = asyncio.new_event_loop()
            loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
            return loop

        return eager
    uvloop = pytest.importorskip("uvloop")
    return uvloop.new_event_loop  # type: ignore[no-any-return]


LOOPS = ["asyncio", "uvloop"]
if hasattr(asyncio, "eager_task_factory"):
    LOOPS.append("eager")


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition is true."""
    while not condition():  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(0.005)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Run an async function in an event loop of each kind, as `asyncio.run` does."""

    def run(main: Callable[[], Awaitable[object]]) -> None:
        async def guarded() -> None:
            async with asyncio.timeout(_HANGS_SECONDS):
                await main()

        with asyncio.Runner(loop_factory=_factory(request.param)) as runner:
            runner.run(guarded())

    yield run
    gc.collect()  # a task that was left alone warns now
