"""Exit the process when the server does not stop in time, from a thread outside the event loop.

A task that shields itself, waits for a thread or swallows its cancellation cannot be ended from inside, and
while a task blocks the event loop no other task runs. Therefore a thread waits for one byte in a pipe, which
is all that a signal handler can safely write, and which says that the server is stopping. When stopping takes
too long, the thread logs which tasks are stuck and where, and exits the process with status 1 at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
import threading
import time

import trio

from wsframework.config import Timeouts
from wsframework.records import record
from wsframework.server.stacks import Standing, of_running, of_task, walk_tasks

__all__ = ["LastResort"]

_STUCK_SECONDS = 3.0
"""How long after the deadline the process may still run, for example while a cancelled handler cleans up."""

_LOG_SECONDS = 2.0
"""How long writing the log may take; it may be stuck too."""

_SWITCH_SECONDS = 1e-4
"""For how long a thread may keep the interpreter's lock meanwhile; Python's default is 50 times as long."""

_LOOKS = 100
"""How many times the tasks are looked at until none has run meanwhile."""

_SIGNALS = 3
"""After this many signals the process exits without a further wait."""


class LastResort:
    """Exits the process when stopping takes too long: from `begin`, in the Trio run, to `close`, after it.

    Args:
        timeouts: of these, `drain` and `lifespan` apply.
    """

    _thread: threading.Thread | None = None

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts

    def begin(self) -> None:
        """Begin to watch. Call it in a task, in the thread of the event loop."""
        root = trio.lowlevel.current_root_task()
        assert root is not None  # we are in one of its descendants
        self._root = root
        self._thread_id = threading.get_ident()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._thread = threading.Thread(target=self._run, name="wsframework last resort", daemon=True)
        self._thread.start()

    def signalled(self) -> None:
        """Take note of a signal to stop; may be called from a signal handler."""
        self._tell(b"s")

    def stopping(self) -> None:
        """Take note that the server has begun to stop."""
        self._tell(b"d")

    def drained(self) -> None:
        """Take note that all connections and handlers have ended, and only lifespans are left."""
        self._tell(b"l")

    def ended(self) -> None:
        """Take note that only Trio's own end is left.

        Trio closes async generators that a handler has abandoned, and waits for its system tasks: both are
        user code as well.
        """
        self._tell(b"e")

    def close(self) -> None:
        """End the thread, if it was started: the Trio run has ended."""
        if self._thread is None:
            return
        self._tell(b"q")
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)

    def _tell(self, what: bytes) -> None:
        with contextlib.suppress(BlockingIOError):  # thousands of signals have filled the pipe
            os.write(self._writer, what)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        deadline: float | None = None
        signals = 0
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            if not poll.poll(left):
                break
            now = time.monotonic()
            match os.read(self._reader, 1):
                case b"s":
                    signals += 1
                    if signals >= _SIGNALS:
                        break
                    seconds = self._timeouts.drain if signals == 1 else 0.0
                case b"d":
                    seconds = self._timeouts.drain
                case b"l":
                    # The drain is over, so the deadline is now that of the lifespans.
                    deadline = None
                    seconds = self._timeouts.lifespan if signals < 2 else 0.0
                case b"e":
                    deadline = None
                    seconds = 0.0
                case _:
                    return
            deadline = min(deadline or now + 1e9, now + seconds + _STUCK_SECONDS)
        standings = self._look()
        # Writing a log needs the interpreter's lock dozens of times, and a task that spins keeps it for an
        # interval each time.
        sys.setswitchinterval(_SWITCH_SECONDS)
        logger = threading.Thread(target=self._log, args=(standings,), daemon=True)
        logger.start()
        logger.join(_LOG_SECONDS)
        os._exit(1)

    def _look(self) -> list[tuple[str, Standing]]:
        """Return where the tasks are, all in one moment: a loop that spins runs on between two looks."""
        for _ in range(_LOOKS):
            frame = sys._current_frames().get(self._thread_id)
            instruction = None if frame is None else frame.f_lasti
            standings = [] if frame is None else [("running", of_running(frame))]
            standings += [(task.name, of_task(task)) for task in walk_tasks(self._root)]
            if frame is None:
                break
            if sys._current_frames().get(self._thread_id) is frame and frame.f_lasti == instruction:
                break
        return standings

    def _log(self, standings: list[tuple[str, Standing]]) -> None:
        for name, standing in standings:
            if standing.function is not None:
                record(
                    logging.ERROR, "task.stuck", task=name, function=standing.function, stack=standing.stack
                )
        record(
            logging.CRITICAL, "server.left", status=1, error="something did not end in time, see task.stuck"
        )
        for handler in logging.getLogger().handlers:
            handler.flush()
