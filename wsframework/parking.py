"""How a task waits for a message, with less work than Trio's own functions need.

An echo of a small message costs two system calls and about three microseconds of Python. Half a microsecond
of that was `wait_task_rescheduled` and `outcome.Value`, made anew for every message. What replaces them is
made of Trio's own parts; `docs/performance.md` has the measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import outcome
from trio.lowlevel import Abort, wait_task_rescheduled

__all__ = ["ENDED", "Handed", "NEVER_PARKED", "Parked", "TAKE"]


class Handed(outcome.Value):  # type: ignore[misc,type-arg]
    """A message on its way to the task that waits for it: an `outcome.Value` that takes 40 % of the time.

    An outcome remembers that it was unwrapped, to catch a second time; this one goes only from
    `Endpoint.deliver` through Trio to the task.
    """

    __slots__ = ()

    def __init__(self, value: object) -> None:
        _set_value(self, value)

    def unwrap(self) -> Any:
        """Return the message, or None for the one in `Endpoint.handed`, or `ENDED`."""
        return self.value


# Past the frozen class's __setattr__.
_set_value = vars(outcome.Value)["value"].__set__

ENDED = object()
"""What a task gets when no message will come."""

TAKE = Handed(None)
"""For a task whose message is in `Endpoint.handed`. It is the same one every time, which saves an object and
a call for each message. Only a second task that receives before the first has run gets a `Handed` of its own.
"""


class Parked:
    """Waiting for a message: `await wait_task_rescheduled(abort)`, made ready once for all waits.

    What Trio's function yields to the run loop says the same every time, so one is kept. It is Trio's own
    object, taken from Trio's own function.
    """

    __slots__ = ("_trap",)

    def __init__(self, abort: Callable[[Any], Abort]) -> None:
        waiting = wait_task_rescheduled(abort)  # noqa: ASYNC105 - only its first step is wanted
        self._trap = waiting.send(None)
        waiting.close()

    def __await__(self) -> Generator[Any, outcome.Outcome[Any], Any]:
        return (yield self._trap).unwrap()


NEVER_PARKED = Parked(lambda _: Abort.FAILED)
"""For connections from which no task can receive any more."""
