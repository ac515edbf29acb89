"""The test kit's own failure: something that a test waited for did not come in time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any

import trio

__all__ = [
    "DEADLINE_SECONDS",
    "DeadlineExceeded",
    "fail_after",
    "innermost_place",
    "running_frames",
    "waiting_frames",
]

DEADLINE_SECONDS = 5.0
"""How long a test waits for one thing before it fails. On a virtual clock it costs nothing; on a real one it
is long enough for a loaded machine and short enough to wait for."""

_TRIO = str(Path(trio.__file__).parent)
_OURS = str(Path(__file__).parent.parent)


class DeadlineExceeded(AssertionError):
    """What a test waited for did not come in time; the message says what it was and what came instead."""


@contextmanager
def fail_after(seconds: float, explain: Callable[[], str]) -> Iterator[None]:
    """Raise `DeadlineExceeded` with `explain()` when the block takes longer than `seconds`."""
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise DeadlineExceeded(explain())


def innermost_place(frames: Iterable[FrameType]) -> str:
    """Name the place of frames, outermost first: the innermost of users' code, and our method it calls."""
    theirs = ours = ""
    for frame in frames:
        file = frame.f_code.co_filename
        if file.startswith(_OURS):
            ours = ours or _place(frame)
        elif not file.startswith(_TRIO):
            theirs, ours = _place(frame), ""
    return ", in ".join(filter(None, (theirs, ours))) or "an unknown place"


def waiting_frames(awaited: Any) -> Iterator[FrameType]:
    """Return the frames of a suspended coroutine and of all that it awaits."""
    while awaited is not None:
        match awaited:
            case CoroutineType():
                frame, awaited = awaited.cr_frame, awaited.cr_await
            case GeneratorType():
                frame, awaited = awaited.gi_frame, awaited.gi_yieldfrom
            case _:
                return
        if frame is not None:
            yield frame


def running_frames(frame: FrameType | None, outermost: CodeType) -> list[FrameType]:
    """Return the frames that are running, from the one inside `outermost` to `frame`."""
    frames: list[FrameType] = []
    while frame is not None and frame.f_code is not outermost:
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def _place(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_qualname} ({Path(code.co_filename).name}:{frame.f_lineno})"
