"""Find the user's code in the stacks of tasks, among frames of wsframework, Trio and the standard library."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable, Iterator
from types import FrameType

import attrs
import outcome
import trio

__all__ = ["Standing", "of_running", "of_task", "walk_tasks"]

_STACK_FRAMES = 12
"""How many of the innermost frames are reported."""


@attrs.frozen
class Standing:
    """Where a task is in its code.

    Attributes:
        function: the qualified name of the user's function that was called first, None if the task runs none.
        stack: the innermost frames as `file:line function`, one a line, the innermost one last.
    """

    function: str | None
    stack: str


def of_task(task: trio.lowlevel.Task) -> Standing:
    """Return where a waiting task is."""
    return _standing([(frame, line) for frame, line in task.iter_await_frames()])


def of_running(frame: FrameType) -> Standing:
    """Return where the running task is.

    Args:
        frame: the innermost frame of the event loop's thread.
    """
    frames: list[tuple[FrameType, int]] = []
    current: FrameType | None = frame
    while current is not None and current.f_code.co_name != _LOOP:
        frames.append((current, current.f_lineno))
        current = current.f_back
    # Without the frame of Trio's run loop no task runs: the loop waits for the kernel, or has not begun.
    return Standing(None, "") if current is None else _standing(reversed(frames))


def walk_tasks(root: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    """Yield a task and all below it. Also from another thread, where what it finds may change meanwhile."""
    left = [root]
    while left:
        task = left.pop()
        yield task
        for nursery in list(task.child_nurseries):
            left.extend(nursery.child_tasks)


def _standing(frames: Iterable[tuple[FrameType, int]]) -> Standing:
    function: str | None = None
    stack: list[str] = []
    for frame, line in frames:
        code = frame.f_code
        if code.co_filename.startswith(_TRIO):
            continue
        if function is None and _is_users(code.co_filename):
            function = code.co_qualname
        stack.append(f"{code.co_filename}:{line} {code.co_qualname}")
    return Standing(function, "\n".join(stack[-_STACK_FRAMES:]))


def _is_users(file: str) -> bool:
    if file.startswith(_OURS):
        return file.startswith(_CHAT)
    return not file.startswith(_STANDARD) or "site-packages" in file


def _folder(module: object) -> str:
    return os.path.dirname(str(getattr(module, "__file__", ""))) + os.sep


_LOOP = "unrolled_run"  # Trio's run loop: what it calls is a task
_OURS = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
_CHAT = os.path.join(_OURS, "chat", "")  # a plugin is a user, ours as well
_TRIO = (_folder(trio), _folder(outcome))
_STANDARD = (sysconfig.get_path("stdlib") + os.sep, "<frozen")
