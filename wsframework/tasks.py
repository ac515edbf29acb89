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

import functools
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import trio

from wsframework.records import describe, record

__all__ = ["GivenUp", "Limit", "UserTasks", "begin_deciding", "end_deciding", "giving_up"]


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


class GivenUp(Exception):
    """Nobody needs the decision any more that a user's code was making."""


class Limit:
    """The scope around a user's code that decides about a request: a guard, a page.

    It is made when there is something to wait for, and not for every request: entering and leaving a scope is
    a twentieth of what a connection costs. In a task of `UserTasks` it shields from its nursery.

    Args:
        seconds: how long it may take.
    """

    __slots__ = ("_given_up", "_scope", "_task")

    def __init__(self, seconds: float) -> None:
        self._task = trio.lowlevel.current_task()
        self._scope = trio.CancelScope(deadline=trio.current_time() + seconds, shield=self._task in _limits)
        self._given_up = False

    def __enter__(self) -> None:
        if self._task in _limits:
            _limits[self._task] = self
        self._scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._task in _limits:
            _limits[self._task] = None
        caught = bool(self._scope.__exit__(kind, error, traceback))
        if self._given_up and (caught or error is None):
            raise GivenUp
        return caught

    def give_up(self) -> None:
        """Cancel what is in it; leaving it raises `GivenUp`."""
        self._given_up = True
        self._scope.cancel(reason="nobody needs the answer any more")


_limits: dict[trio.lowlevel.Task, Limit | None] = {}
"""Of every task that decides about a request, the limit that it is in."""


def begin_deciding() -> Callable[[], None]:
    """Take note that this task decides about a request; return what ends that when nobody needs it."""
    _limits[trio.lowlevel.current_task()] = None
    return giving_up()


def giving_up() -> Callable[[], None]:
    """Return what ends the decision that this task is making, whoever has begun it."""
    return functools.partial(_give_up, trio.lowlevel.current_task())


def end_deciding() -> None:
    """Take note that it has decided."""
    _limits.pop(trio.lowlevel.current_task(), None)


def _give_up(task: trio.lowlevel.Task) -> None:
    limit = _limits.get(task)
    if limit is not None:
        limit.give_up()
