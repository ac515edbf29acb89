"""Call what waits in the other world: Trio functions in asyncio tasks, asyncio functions in Trio tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from wsframework.asyncio.guest import Guest

__all__ = ["from_asyncio", "from_trio"]

ResultT = TypeVar("ResultT")


async def from_asyncio(function: Callable[..., Awaitable[ResultT]], *args: Any) -> ResultT:
    """Call an async function of Trio's from an asyncio task, and wait for it.

        await from_asyncio(ws.send, "hello")

    The function runs in a Trio task, in a copy of the caller's context. Plain functions, such as
    `room.broadcast` and `ws.send_nowait`, need no such call: both worlds share one thread.

    Args:
        function: an async function that needs Trio.
        args: its arguments.

    Returns:
        What it returns.

    Raises:
        RuntimeError: no server runs in this event loop, or the last one ended before the function did.
        BaseException: what the function raises.

    Cancellation:
        The function is cancelled, and waited for. If it returns all the same, its result is returned, and
        this task is cancelled at its next wait.
    """
    return await Guest.here().call_trio(function, *args)


async def from_trio(function: Callable[..., Awaitable[ResultT]], *args: Any) -> ResultT:
    """Call an async function of asyncio's from a Trio task, such as a handler, and wait for it.

        rows = await from_trio(database.fetch, "SELECT …")

    The function runs in an asyncio task, in a copy of the caller's context.

    Args:
        function: an async function that needs asyncio, or a plain one that returns an awaitable.
        args: its arguments.

    Returns:
        What it returns.

    Raises:
        RuntimeError: this program has no asyncio event loop, because the App is not served by
            `wsframework.asyncio.serve`.
        asyncio.CancelledError: the function let it through, and was not cancelled from here.
        BaseException: what the function raises.

    Cancellation:
        The function's asyncio task is cancelled, and waited for.
    """
    return await Guest.around().call_asyncio(function, *args)
