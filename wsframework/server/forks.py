"""A process that user code has forked ends when it returns to the event loop.

`os.fork()` copies the event loop with the process, and both have the same sockets, listeners and epoll. A
child that returned from its handler, raised an exception (`sys.exit()` is one) or waited for anything would
continue as a second server: it would take connections and messages away from the first, and shut down what
both have open. So the child ends with the step of its task, before any other task runs. What runs until then
is the program's: `os._exit`, an exec, the target of a process pool's worker.

A child process of `subprocess` does not return, and one of `multiprocessing` only calls its target.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager

import trio

__all__ = ["serving_here"]

_STATUS = 1

_MESSAGE = (
    b"wsframework: a process forked by this server came back to the event loop, and was ended with status 1. "
    b"End the child with os._exit, or start it with subprocess or multiprocessing.\n"
)

_servers: trio.lowlevel.RunVar[int] = trio.lowlevel.RunVar("wsframework_servers", 0)


@contextmanager
def serving_here() -> Iterator[None]:
    """Watch the forks of this Trio run for the length of the block."""
    _servers.set(_servers.get() + 1)
    try:
        yield
    finally:
        _servers.set(_servers.get() - 1)


class _Ending(trio.abc.Instrument):
    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        try:
            # Trio would go on after an exception here, and a stderr that is not read would hold the child.
            if select.select((), (2,), (), 0)[1]:
                os.write(2, _MESSAGE)
        finally:
            os._exit(_STATUS)


def _forked() -> None:
    try:
        if _servers.get():
            trio.lowlevel.add_instrument(_Ending())
    except RuntimeError:
        return  # forked by another thread than the event loop's, which the child does not have


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
