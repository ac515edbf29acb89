"""One Trio run inside an asyncio event loop, and calls from each of the two into the other.

Theory of operation
-------------------
Trio's guest mode runs Trio's scheduler in callbacks of the asyncio event loop, and waits for sockets in a
thread. So tasks of both run in one thread, one at a time, and plain functions may be called from both sides:
a broadcast to a room from asyncio only appends to outboxes and wakes a task. What waits must cross over:

    from_asyncio   an asyncio task starts a Trio task, and waits for a future that this one sets
    from_trio      a Trio task starts an asyncio task, and is woken by its end

A cancellation crosses as well, and the caller still waits until the other side has ended. So nothing runs on
behind its back, and nothing that has happened is lost: if the other side has returned in spite of the
cancellation, the caller gets the result, and is cancelled at its next wait. Trio does so by itself; asyncio
has to be told.

Each loop has one guest at a time, for all servers in it. It begins with the first and ends with the last.
Trio tasks run as `UserTasks`, because what one of them does to its task must not end the others.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, TypeVar

import outcome
import trio

from wsframework.calling import name_of
from wsframework.crashes import interrupt_in, is_a, unwrap_group
from wsframework.mounting.worlds import ASGIApp, Receive, Scope, Send, use_world
from wsframework.tasks import UserTasks

__all__ = ["Guest", "cancel_again", "outlast"]

ResultT = TypeVar("ResultT")

_guests: dict[asyncio.AbstractEventLoop, Guest] = {}

_current: trio.lowlevel.RunVar[Guest] = trio.lowlevel.RunVar("wsframework.asyncio.guest")


class Guest:
    """A Trio run in an asyncio event loop.

    Args:
        loop: the running event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._users = 0
        self._tasks = UserTasks()
        self._calls: dict[asyncio.Future[Any], trio.CancelScope] = {}
        self._ready: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[outcome.Outcome[None]] = loop.create_future()
        self._leave = trio.Event()

    @classmethod
    def here(cls) -> Guest:
        """Return the guest of the running event loop.

        Raises:
            RuntimeError: there is none, or this is no asyncio task.
        """
        guest = _guests.get(asyncio.get_running_loop())
        if guest is None:
            raise RuntimeError(
                "no server runs in this event loop: enter `async with wsframework.asyncio.serve(app):` first"
            )
        return guest

    @classmethod
    def around(cls) -> Guest:
        """Return the guest that is the running Trio run.

        Raises:
            RuntimeError: this Trio run is none.
        """
        try:
            return _current.get()
        except LookupError:
            raise RuntimeError(
                "no asyncio event loop runs here: in an asyncio program, serve the App by "
                "`async with wsframework.asyncio.serve(app):`"
            ) from None

    @classmethod
    async def enter(cls) -> Guest:
        """Return the guest of the running event loop, started if necessary; `leave` must follow.

        Cancellation: it may have to be left at once, which this does.
        """
        loop = asyncio.get_running_loop()
        while (guest := _guests.get(loop)) is not None and guest._leave.is_set():
            # There may be one run at a time, and this one is ending.
            if (cancelled := await outlast(guest._ended)) is not None:
                raise cancelled
        if guest is None:
            guest = cls(loop)
            guest._start()
            _guests[loop] = guest
        guest._users += 1
        if (cancelled := await outlast(guest._ready)) is not None:
            await guest.leave()
            raise cancelled
        return guest

    async def leave(self) -> None:
        """Take note that a server has ended; with the last one, end the Trio run and wait for it.

        Cancellation: it ends first.
        """
        self._users -= 1
        if self._users:
            return
        self._leave.set()
        cancelled = await outlast(self._ended)
        self._ended.result().unwrap()
        if cancelled is not None:
            raise cancelled

    def _start(self) -> None:
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._loop.call_soon_threadsafe,
            run_sync_soon_not_threadsafe=self._loop.call_soon,
            done_callback=self._run_ended,
            # asyncio and uvloop do, and two of them would take the signals from each other.
            host_uses_signal_set_wakeup_fd=True,
        )

    async def _main(self) -> None:
        _current.set(self)
        use_world(_AsyncioWorld(self))
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._tasks.run)
                self._ready.set_result(None)
                try:
                    await self._leave.wait()
                finally:
                    for scope in list(self._calls.values()):
                        scope.cancel(reason="the last server in this event loop has ended")
                    self._tasks.close()
        except BaseExceptionGroup as group:
            # Of a Ctrl-C, in a program whose event loop leaves SIGINT to Python, and so to Trio.
            raise interrupt_in(group) or unwrap_group(group) from None

    def _run_ended(self, result: outcome.Outcome[None]) -> None:
        _guests.pop(self._loop, None)
        self._ended.set_result(result)
        if not self._ready.done():
            self._ready.set_result(None)
        # A bug in Trio or a crash of its scheduler: no task is left to answer.
        while self._calls:
            done, _ = self._calls.popitem()
            done.set_result(None)

    # From asyncio

    async def call_trio(self, function: Callable[..., Awaitable[ResultT]], *args: Any) -> ResultT:
        """Call an async function of Trio from an asyncio task, as `from_asyncio` says."""
        done: asyncio.Future[outcome.Outcome[ResultT] | None] = self._loop.create_future()
        scope = trio.CancelScope(shield=True)
        self._tasks.start(self._run, scope, done, function, args, name=name_of(function))
        self._calls[done] = scope
        cancelled = await outlast(
            done, functools.partial(scope.cancel, reason="the asyncio task that waits was cancelled")
        )
        result = done.result()
        if result is None:
            if cancelled is not None:
                raise cancelled
            raise RuntimeError("the last server in this event loop has ended, and this call with it")
        if cancelled is not None and isinstance(result, outcome.Value):
            # What has happened is not lost: the cancellation comes at the next wait.
            cancel_again(cancelled)
        return result.unwrap()

    async def _run(
        self,
        scope: trio.CancelScope,
        done: asyncio.Future[outcome.Outcome[ResultT] | None],
        function: Callable[..., Awaitable[ResultT]],
        args: tuple[Any, ...],
    ) -> None:
        result: outcome.Outcome[ResultT] | None = None
        try:
            with scope:
                result = outcome.Value(await function(*args))
        except BaseException as error:
            result = outcome.Error(_told_apart(error))
        finally:
            if self._calls.pop(done, None) is not None:
                done.set_result(result)

    # From Trio

    async def call_asyncio(self, function: Callable[..., Awaitable[ResultT]], *args: Any) -> ResultT:
        """Call an async function of asyncio from a Trio task, as `from_trio` says."""
        await trio.lowlevel.checkpoint_if_cancelled()
        call = _AsyncioCall(self._loop, function, args)
        # Not at once: this is a step of a Trio task, and an eager asyncio task would make its own first one.
        call.starting = self._loop.call_soon(call.start, context=copy_context())
        result: ResultT = await trio.lowlevel.wait_task_rescheduled(call.abort)
        return result


class _AsyncioWorld:
    """Runs mounted applications in asyncio tasks."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run an application; called in a Trio task, whose cancellation reaches it."""
        await self._guest.call_asyncio(app, scope, receive, send)

    async def call(self, function: Callable[..., Awaitable[ResultT]], *args: object) -> ResultT:
        """Await a function of Trio; called in a task of the application, whose cancellation reaches it."""
        return await self._guest.call_trio(function, *args)


class _AsyncioCall:
    """One call of an asyncio function for a Trio task."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        function: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
    ) -> None:
        self.starting: asyncio.Handle
        self._loop = loop
        self._function = function
        self._args = args
        self._waiting = trio.lowlevel.current_task()
        self._begun = False
        self._task: asyncio.Task[outcome.Outcome[Any]] | None = None
        self._raise_cancel: trio.lowlevel.RaiseCancelT | None = None

    def start(self) -> None:
        """Start the asyncio task."""
        self._begun = True
        self._task = self._loop.create_task(self._run(), name=name_of(self._function))
        self._task.add_done_callback(self._ended)
        if self._raise_cancel is not None:
            self._task.cancel()  # an eager one has cancelled its caller in its first step

    def abort(self, raise_cancel: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        """Cancel the asyncio task because the Trio task was cancelled."""
        if not self._begun:
            self.starting.cancel()
            return trio.lowlevel.Abort.SUCCEEDED
        self._raise_cancel = raise_cancel
        if self._task is not None:
            self._task.cancel()
        return trio.lowlevel.Abort.FAILED

    async def _run(self) -> outcome.Outcome[Any]:
        try:
            return outcome.Value(await self._function(*self._args))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # asyncio lets a task's SystemExit or KeyboardInterrupt end the whole loop.
            return outcome.Error(error)

    def _ended(self, task: asyncio.Task[outcome.Outcome[Any]]) -> None:
        try:
            result = task.result()
        except asyncio.CancelledError as error:
            # Without a cancellation of ours, it is the function's own mistake.
            raise_cancel = self._raise_cancel
            result = outcome.Error(error) if raise_cancel is None else outcome.capture(raise_cancel)
        except BaseException as error:
            result = outcome.Error(error)
        self._raise_cancel = None
        trio.lowlevel.reschedule(self._waiting, result)


def _told_apart(error: BaseException) -> BaseException:
    """Return what a Trio function raised, but not as if the asyncio task that waits for it was cancelled."""
    if not is_a(error, asyncio.CancelledError):
        return error
    leaked = RuntimeError("the Trio function let asyncio's CancelledError through")
    leaked.__cause__ = error
    return leaked


async def outlast(
    future: asyncio.Future[Any],
    on_cancel: Callable[[], object] | None = None,
    earlier: BaseException | None = None,
) -> asyncio.CancelledError | None:
    """Wait for a future, whatever happens to this task.

    Args:
        future: it is not cancelled.
        on_cancel: called at each cancellation.
        earlier: what this task has raised; a repetition of it is no new cancellation.

    Returns:
        What this task was cancelled with meanwhile, or None. It must be raised as it is: the cancel scopes of
        AnyIO, which Starlette uses, know theirs by the text.
    """
    cancelled: asyncio.CancelledError | None = None
    known = {earlier.args} if isinstance(earlier, asyncio.CancelledError) else set()
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            if error.args and error.args in known:
                continue  # AnyIO's scopes cancel in every turn of the loop, until the task ends
            known.add(error.args)
            if on_cancel is not None:
                on_cancel()
            if cancelled is None or cancelled.args:
                cancelled = error  # of several, one that is not AnyIO's
    return cancelled


def cancel_again(cancelled: asyncio.CancelledError) -> None:
    """Have this asyncio task cancelled at its next wait, by a cancellation that it has caught."""
    task = asyncio.current_task()
    assert task is not None
    # asyncio.timeout() and TaskGroup count how often: once still.
    task.uncancel()
    task.cancel(*cancelled.args)
