"""Nurseries for tasks that run user code, so that a failing task affects no other task.

Theory of operation
-------------------
A nursery is cancelled when one of its tasks fails, and user code can make its task fail in ways that no
`except` inside that task sees: a handler that breaks out of an async generator with a nursery in it returns
normally, and Trio then replaces the outcome of the whole task ("Nursery stack corrupted"). So such tasks run
in nurseries of their own:

- A *holder* task keeps one nursery open. What the tasks need (hub, timers, transports) runs elsewhere.
- The nursery's cancellation does not reach the tasks: each task shields its waits.
- A nursery that a failure has cancelled is replaced at once, and ends with the last task in it. So the number
  of such nurseries is bounded by the number of running tasks.

No code catches the exception of a failing task. The task reports it itself, in a `finally` without a wait,
before Trio checks the task's nurseries and cancel scopes.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import trio

from wsframework.records import describe, record

__all__ = [
    "GivenUp",
    "Limit",
    "UserTasks",
    "begin_deciding",
    "end_deciding",
    "giving_up",
    "is_late",
    "standing_still",
    "start_beside",
]


class UserTasks:
    """The tasks of one server that run user code."""

    def __init__(self) -> None:
        self._holders: trio.Nursery | None = None
        self._nursery: trio.Nursery | None = None
        self._closed = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the nurseries open until `close` was called and the last task has ended.

        Cancellation:
            It does not reach the tasks. Call `close`, and end the tasks by other means.
        """
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as self._holders:
                await self._holders.start(self._hold)
                task_status.started()

    def start(self, function: Callable[..., Awaitable[object]], *args: Any, name: object = None) -> None:
        """Start a task.

        Args:
            function: reports its own failure, and shields its waits, from its first checkpoint on.
            args: its arguments.
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
            # Each task has reported its exception. This is the same one, or one that Trio raised.
            record(logging.DEBUG, "task.corrupted", error=describe(error))


def start_beside(function: Callable[..., Awaitable[object]], *args: Any, name: object = None) -> None:
    """Start a task beside this one, which `UserTasks` has started; the arguments are those of its `start`."""
    nursery = trio.lowlevel.current_task().parent_nursery
    assert nursery is not None
    # It is open for as long as this task is in it, even if a failure of another task has cancelled it.
    nursery.start_soon(function, *args, name=name)


class GivenUp(Exception):
    """The answer of a guard or an HTTP handler is no longer needed."""


class Limit:
    """The cancel scope around user code that decides about a request: a guard or an HTTP handler.

    It is created only when there is user code to call, because entering and leaving a scope is a twentieth of
    the cost of a connection. In a task of `UserTasks` it shields from the nursery.

    Args:
        seconds: how long the code may take.
    """

    __slots__ = ("_given_up", "_left", "_scope", "_task", "_waits")

    def __init__(self, seconds: float) -> None:
        self._waits = 0  # blocks of `paused` that have not ended
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

    @property
    def deadline(self) -> float:
        """When the time is over, on Trio's clock."""
        return self._scope.deadline

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let no time pass for the code in the scope during the block."""
        self._waits += 1
        if self._waits == 1:
            self._left = self._scope.deadline - trio.current_time()
            self._scope.deadline = math.inf
        try:
            yield
        finally:
            self._waits -= 1
            if not self._waits:
                self._scope.deadline = trio.current_time() + self._left

    def give_up(self) -> None:
        """Cancel the code in the scope; leaving the scope raises `GivenUp`."""
        self._given_up = True
        self._scope.cancel(reason="the answer is no longer needed")


_limits: dict[trio.lowlevel.Task, Limit | None] = {}
"""For each task that decides about a request, the limit that it is in."""


@contextmanager
def standing_still(task: trio.lowlevel.Task | None) -> Iterator[None]:
    """Pause the limit that a deciding task is in, if there is one, during the block."""
    limit = None if task is None else _limits.get(task)
    if limit is None:
        yield
    else:
        with limit.paused():
            yield


def begin_deciding() -> Callable[[], None]:
    """Register that this task decides about a request; return a function that gives the decision up."""
    _limits[trio.lowlevel.current_task()] = None
    return giving_up()


def giving_up() -> Callable[[], None]:
    """Return a function that gives up the decision of this task."""
    return functools.partial(_give_up, trio.lowlevel.current_task())


def end_deciding(task: trio.lowlevel.Task | None = None) -> None:
    """Register that a task, by default this one, has decided, or that it decides too late."""
    _limits.pop(task or trio.lowlevel.current_task(), None)


def is_late(task: trio.lowlevel.Task, seconds: float) -> bool:
    """Whether the limit that a deciding task is in has been over for so long: it resists its cancellation."""
    limit = _limits.get(task)
    return limit is not None and trio.current_time() > limit.deadline + seconds


def _give_up(task: trio.lowlevel.Task) -> None:
    limit = _limits.get(task)
    if limit is not None:
        limit.give_up()
