"""Cancel a piece of code everywhere it can be cancelled, one place a run.

Theory of operation
-------------------
A scenario is run again and again, the first time cancelled at its first cancel point, then at its second, and
so on until a run comes to its end without having been cancelled. Code is cancelled at three kinds of points,
and each behaves differently, so each counts:

    check   `trio.lowlevel.checkpoint_if_cancelled`, which raises if the scope was cancelled before and does
            nothing else: no task switch, so only the caller's own code can have cancelled it
    park    the task goes to sleep, and is cancelled while it sleeps: its abort function runs
    wake    what it slept for has happened, its result is on the way, *and* then it is cancelled: the result
            must not be lost, and the next point of any kind raises

The scenario's coroutine is driven by hand between Trio and us: each trap it yields to Trio is a park, each
value that Trio sends back a wake. Checks never reach Trio; they are seen by a profile function, which is set
only while the coroutine itself runs (a profile function because debuggers and coverage use the other one).
"""

from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal

import attrs
import trio

from wsframework.testing.deadline import (
    DEADLINE_SECONDS,
    fail_after,
    innermost_place,
    running_frames,
    waiting_frames,
)

__all__ = ["CancelPoint", "CancelReport", "cancel_everywhere"]

_CHECK = trio.lowlevel.checkpoint_if_cancelled.__code__

_MAX_POINTS = 1000
"""A scenario with more points than this waits in a loop, and so would never be through."""


@attrs.frozen
class CancelPoint:
    """One place where a scenario was cancelled.

    Attributes:
        number: the first is 1.
        kind: "check", "park" or "wake", see the module.
        place: the function, file and line.
        cancelled: True when the scenario ended by this cancellation; False when it came to its end (or ended
            otherwise) all the same, as it does when there is no other cancel point after this one.
    """

    number: int
    kind: Literal["check", "park", "wake"]
    place: str
    cancelled: bool

    def __str__(self) -> str:
        how = "cancelled" if self.cancelled else "went on to its end"
        return f"{self.number:4} {self.kind:5} {self.place}: {how}"


@attrs.frozen
class CancelReport:
    """What `cancel_everywhere` did.

    Attributes:
        points: where the scenario was cancelled, one a run.
    """

    points: tuple[CancelPoint, ...]

    @property
    def cancelled(self) -> int:
        """How many runs ended by their cancellation."""
        return sum(point.cancelled for point in self.points)

    @property
    def survived(self) -> int:
        """How many runs came to their end although they were cancelled."""
        return len(self.points) - self.cancelled

    def __str__(self) -> str:
        lines = [f"{len(self.points)} points, cancelled at {self.cancelled} of them"]
        return "\n".join([*lines, *map(str, self.points)])


async def cancel_everywhere(
    scenario: Callable[..., Awaitable[object]],
    check: Callable[..., Awaitable[object] | None] | None = None,
    *,
    setup: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
    deadline: float = DEADLINE_SECONDS,
) -> CancelReport:
    """Run a scenario again and again, cancelled at its 1st, 2nd … last cancel point, and then not at all.

    Only the scenario's own task is cancelled; the points of tasks that it starts are not counted.

    Args:
        scenario: an async function; with `setup`, of what that yields.
        check: called after each run, the last one included, with the same arguments: what must still hold.
            An async function or a plain one.
        setup: makes an async context manager that is entered anew around each run and its check, and is never
            cancelled. Without it all runs share whatever the scenario closes over.
        deadline: seconds that one run and its check may take each.

    Returns:
        Where the scenario was cancelled.

    Raises:
        DeadlineExceeded: a run or a check did not come to its end.
        RuntimeError: after 1,000 points the scenario still reaches new ones.
        Exception: what the scenario, the check or the set-up raised, with a note of the point.

    Cancellation: the run in progress is cancelled with it, and its set-up left.
    """
    points: list[CancelPoint] = []
    for number in itertools.count(1):
        if number > _MAX_POINTS:
            raise RuntimeError(f"the scenario still has new cancel points after {_MAX_POINTS} runs: a loop?")
        run = _Run(number)
        try:
            async with (setup or _no_setup)() as made:
                arguments = () if setup is None else (made,)
                with fail_after(deadline, lambda: _late("the scenario", deadline)), run.scope:
                    await run.drive(_call(scenario, arguments))
                with fail_after(deadline, lambda: _late("the check", deadline)):
                    await _call(check, arguments)
        except Exception as error:
            error.add_note(run.note())
            raise
        if run.kind is None:
            return CancelReport(tuple(points))
        points.append(CancelPoint(number, run.kind, run.place, run.scope.cancelled_caught))
    raise AssertionError("the loop returns or raises")


@asynccontextmanager
async def _no_setup() -> Any:
    yield None


async def _call(function: Callable[..., Awaitable[object] | None] | None, arguments: tuple[Any, ...]) -> None:
    if function is not None:
        result = function(*arguments)
        if result is not None:
            await result


def _late(what: str, seconds: float) -> str:
    return f"{what} did not come to its end within {seconds:g} s"


class _Run:
    """One run: counts points, and cancels at the one it was made for."""

    def __init__(self, number: int) -> None:
        self.scope = trio.CancelScope()
        self.kind: Literal["check", "park", "wake"] | None = None
        self.place = ""
        self._left = number
        self._number = number
        self._coroutine: Coroutine[Any, Any, None] | None = None

    def note(self) -> str:
        if self.kind is None:
            return f"cancel_everywhere: in run {self._number}, in which nothing was cancelled"
        return f"cancel_everywhere: in run {self._number}, cancelled at a {self.kind} in {self.place}"

    @types.coroutine
    def drive(self, coroutine: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        """Stand between a coroutine and Trio."""
        self._coroutine = coroutine
        step: Callable[[Any], Any] = coroutine.send
        value: Any = None
        while True:
            try:
                trap = self._run(step, value)
            except StopIteration:
                return
            self._reach("park")
            try:
                value = yield trap
                step = coroutine.send
            except BaseException as error:
                value = error
                step = coroutine.throw
            self._reach("wake")

    def _run(self, step: Callable[[Any], Any], value: Any) -> Any:
        previous = sys.getprofile()
        sys.setprofile(self._profile)
        try:
            return step(value)
        finally:
            sys.setprofile(previous)

    def _profile(self, frame: types.FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is _CHECK:
            self._reach("check", running_frames(frame, outermost=_Run._run.__code__))

    def _reach(
        self, kind: Literal["check", "park", "wake"], frames: Iterable[types.FrameType] | None = None
    ) -> None:
        self._left -= 1
        if self._left == 0:
            self.kind = kind
            self.place = innermost_place(frames or waiting_frames(self._coroutine))
            self.scope.cancel(reason="cancel_everywhere")
