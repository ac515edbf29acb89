from __future__ import annotations

import time

import trio
import trio.testing

from wsframework.server.blocking import LoopWatch
from wsframework.timers import Timers


async def test_who_blocks_the_loop_is_seen(nursery: trio.Nursery) -> None:
    told: list[float] = []
    timers = Timers(on_blocked=told.append)
    timers.beating = True
    watch = LoopWatch(timers)
    nursery.start_soon(timers.run)
    await trio.sleep(0.05)
    assert watch.take() is None

    async def blocking_handler() -> None:
        time.sleep(1.5)  # noqa: ASYNC251 - what this is about

    nursery.start_soon(blocking_handler)
    await trio.sleep(0.05)
    await trio.testing.wait_all_tasks_blocked()  # the timers may be the last to run after it
    assert sum(told) > 1
    seen = watch.take()
    assert seen is not None
    assert seen.function is not None
    assert "blocking_handler" in seen.stack
    assert watch.take() is None, "one standstill is told of once"
    watch.stop()
