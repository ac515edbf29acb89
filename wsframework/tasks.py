"""Where the tasks that run a user's code live, so that their end ends nothing else.

Theory of operation
-------------------
A nursery is cancelled by the first of its tasks that fails, and a user's code can make its task fail in ways
that no `except` inside that task sees: a handler that breaks out of an async generator which holds a nursery
returns normally, and Trio then replaces the outcome of the whole task ("Nursery stack corrupted"). So such
tasks live in nurseries that hold nothing else:

- A *holder* task holds one nursery open. What the tasks need (hub, timers, transports) lives elsewhere.
- The tasks are not reached by their nursery's cancellation: each shields what it waits for.
- A nursery that a failure has cancelled is replaced by a new one at once, and ends with the last task in it.
  So what it keeps of the failure is bounded by the tasks that are alive.

A task that fails has nobody who catches its exception: it reports what happened by itself, in a `finally`
that waits for nothing, before Trio looks at what it leaves behind.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from wsframework.records import describe, record

__all__ = ["UserTasks"]


class UserTasks:
    """The tasks of one server that run a user's code."""

    def __init__(self) -> None:
        self._holders: trio.Nursery | None = None
        self._nursery: trio.Nursery | None = None
        self._closed = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the nurseries until `close` was called and the last task has ended.

        Cancellation:
            It does not reach the tasks: `close`, and end them by other means.
        """
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as self._holders:
                await self._holders.start(self._hold)
                task_status.started()

    def start(self, function: Callable[..., Awaitable[object]], *args: Any, name: object = None) -> None:
        """Start a task.

        Args:
            function: reports its own failure, and shields what it waits for, from its first checkpoint on.
            args: what it is called with.
            name: the task's name, for debuggers.
        """
        if self._nursery is None or self._closed:
            raise RuntimeError("user tasks can be started only while they are held: call run() first")
        self._nursery.start_soon(function, *args, name=name)

    def close(self) -> None:
        """Start no more tasks, and let `run` end with the last of them."""
        self._closed = True
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel(reason="no more tasks will be started")

    async def _hold(self, *, task_status: trio.TaskStatus[None]) -> None:
        assert self._holders is not None
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    if not self._closed:
                        # A task has failed. The next nursery must be there before this one can close.
                        with trio.CancelScope(shield=True):
                            await self._holders.start(self._hold)
        except BaseException as error:
            # Each task has reported what it knew; this is Trio's own verdict on it, or says the same again.
            record(logging.DEBUG, "task.corrupted", error=describe(error))
