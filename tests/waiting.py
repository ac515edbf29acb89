"""Waiting for what no event tells."""

from __future__ import annotations

from collections.abc import Callable

import trio

PATIENCE_SECONDS = 60.0


async def until(condition: Callable[[], object], *, what: str = "") -> float:
    """Wait for a condition; how long it may take is not what is tested.

    Returns:
        The seconds that it took.
    """
    start = trio.current_time()
    while not condition():
        if trio.current_time() - start > PATIENCE_SECONDS:
            raise AssertionError(f"not within {PATIENCE_SECONDS:g} s: {what or condition}")
        await trio.sleep(0.005)
    return trio.current_time() - start
