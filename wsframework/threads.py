"""Threads for HTTP handlers that are plain functions."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import trio

from wsframework.calling import name_of
from wsframework.crashes import forget_earlier_frames
from wsframework.records import describe, record

__all__ = ["HandlerThreads"]


class HandlerThreads:
    """Calls plain functions in threads, a limited number at once.

    The threads are not those of `trio.to_thread`'s default limiter: slow handlers would keep them from
    everything else that the program does in threads.
    """

    def __init__(self) -> None:
        # An App may serve in several runs, in several threads, and a limiter belongs to one.
        self._limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("threads")

    async def call(self, most: int, function: Callable[..., object], *args: Any, **kwargs: Any) -> object:
        """Call a function in a thread, once fewer than `most` are running.

        Raises:
            BaseException: what the function raises.

        Cancellation: the thread runs on, and counts until it ends. Its result is dropped; an exception of it
            is logged as `handler.abandoned`.
        """
        abandoned = False

        def run() -> object:
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                if abandoned:
                    forget_earlier_frames(error)
                    record(
                        logging.ERROR,
                        "handler.abandoned",
                        exc_info=error,
                        handler=name_of(function),
                        error=describe(error),
                    )
                raise
            if inspect.iscoroutine(result):
                result.close()
                raise TypeError(
                    f"{name_of(function)} is no async function (async def), so it was called in a thread, "
                    "and returned a coroutine: does a decorator around it lack an await, or functools.wraps?"
                )
            return result

        try:
            # It copies the context.
            return await trio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=self._limit(most))
        except trio.Cancelled:
            abandoned = True
            raise

    def _limit(self, most: int) -> trio.CapacityLimiter:
        try:
            return self._limiter.get()
        except LookupError:
            self._limiter.set(limiter := trio.CapacityLimiter(most))
            return limiter
