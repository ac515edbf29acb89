"""What holds for every test. Those that take minutes run on request only: `make attack`, `make chaos`."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import outcome
import pytest
import trio
import trio.testing

from wsframework.server import blocking


@pytest.fixture(autouse=True, scope="session")
def _busy_machine() -> Iterator[None]:
    """Let an event loop stand still for seconds without a record: other programs use the processors too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocking, "_BLOCKED_SECONDS", 3.0)
        yield


def _run_virtually(test: Callable[[], Awaitable[Any]], **options: Any) -> Any:
    """Run a test as `trio.run` does, on the clock of `virtual_time`."""
    return trio.run(test, **options | {"clock": trio.testing.MockClock(autojump_threshold=0)})


def _run_in_asyncio(test: Callable[[], Awaitable[Any]], **options: Any) -> Any:
    """Run a test as `trio.run` does, as a guest in an asyncio event loop."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[outcome.Outcome[Any]] = loop.create_future()
        trio.lowlevel.start_guest_run(
            test,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            run_sync_soon_not_threadsafe=loop.call_soon,
            done_callback=done.set_result,
            host_uses_signal_set_wakeup_fd=True,
            **options,
        )
        return (await done).unwrap()

    return asyncio.run(main())


def pytest_collection_finish() -> None:
    """Keep what was collected from Python's collector, which would look at all of it again and again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("virtual_time") and not item.get_closest_marker("real_time"):
            item.add_marker(pytest.mark.trio(run=_run_virtually), append=False)
        if item.get_closest_marker("in_asyncio"):
            item.add_marker(pytest.mark.trio(run=_run_in_asyncio), append=False)
    left_out = [marker for marker in ("attack", "chaos") if marker not in config.option.markexpr]
    long = [item for item in items if any(map(item.get_closest_marker, left_out))]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
