"""Functions that other threads have the server call, in order, without waiting for them.

A post goes into a queue, and Trio is asked to empty it in the server's thread. Trio itself would take any
number of functions, and its run would fail with the first one that raises.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any

import trio

from wsframework.calling import name_of
from wsframework.crashes import forget_earlier_frames, interrupt_in
from wsframework.errors import PostRefused
from wsframework.records import describe, record

__all__ = ["Posts"]

_SECONDS = 0.002
"""How long posts are run before the tasks of the server get their turn."""


class Posts:
    """What other threads have posted to one server.

    Args:
        most: how many may wait, or None.
        stopped: set when the server has ended.
        on_interrupt: called with a KeyboardInterrupt that a function raised.
    """

    def __init__(
        self, most: int | None, stopped: trio.Event, on_interrupt: Callable[[KeyboardInterrupt], None]
    ) -> None:
        self._most = most
        self._stopped = stopped
        self._on_interrupt = on_interrupt
        self._token = trio.lowlevel.current_trio_token()
        self._waiting: deque[tuple[Context, Callable[[], object]]] = deque()

    def add(self, function: Callable[..., object], *args: Any) -> None:
        """Have a function called in the server's thread.

        Raises:
            PostRefused: too many wait, or the server has ended.
            TypeError: it is an async function.
        """
        if inspect.iscoroutinefunction(function):
            raise TypeError(
                "server.post calls plain functions, which do not wait; for an async one, post one that "
                "starts a task, or call trio.from_thread.run(…, trio_token=server.trio_token)"
            )
        if self._stopped.is_set():
            raise PostRefused("the server has ended", ended=True)
        if self._most is not None and len(self._waiting) >= self._most:
            raise PostRefused(f"{self._most} functions wait already (Limits.posts)", ended=False)
        # No lock, because a signal handler may post while its own thread does. So threads that post at the
        # same moment may exceed the limit by one each. What was added before the end of the run is called.
        self._waiting.append((copy_context(), partial(function, *args)))
        try:
            self._token.run_sync_soon(self._run, idempotent=True)
        except trio.RunFinishedError:
            raise PostRefused("the server's Trio run has ended", ended=True) from None

    def _run(self) -> None:
        end = time.perf_counter() + _SECONDS
        while self._waiting:
            context, function = self._waiting.popleft()
            try:
                _check(context.run(function))
            except BaseException as error:  # the poster is elsewhere, and nobody else is concerned
                forget_earlier_frames(error)
                if (interrupt := interrupt_in(error)) is not None:
                    self._on_interrupt(interrupt)
                else:
                    record(
                        logging.ERROR,
                        "post.failed",
                        exc_info=error,
                        function=name_of(function),
                        error=describe(error),
                    )
            if self._waiting and time.perf_counter() > end:
                try:
                    self._token.run_sync_soon(self._run, idempotent=True)
                except trio.RunFinishedError:
                    continue  # this is the last time
                return


def _check(result: object) -> None:
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError("a posted function returned a coroutine, which nothing awaits; post a plain function")
