"""The state of a server from its start to its end: why it stops, how fast, and what it raises then.

Three things stop a server: a call of `stop`, a KeyboardInterrupt from anywhere, and a bug in a part that all
connections depend on. The first two begin the drain. The third ends the server at once, because a server
without that part would accept connections and not serve them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from wsframework.closes import RESTARTING, SHUTTING_DOWN
from wsframework.crashes import interrupt_in, split_cancelled, unwrap_group

__all__ = ["Lifetime"]


class Lifetime:
    """The state of one server between its start and its end.

    Args:
        on_failure: called with the first internal error that ends the server.

    Attributes:
        stopping: set when the server begins to stop.
        stopped: set when every connection is closed and every handler has ended.
        drain_limit: the scope around the drain.
        close_frame: what clients get in the drain.
        failure: the internal error that ended the server.
        interrupted: the KeyboardInterrupt that stopped it.
    """

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        self.stopping = trio.Event()
        self.stopped = trio.Event()
        self.drain_limit = trio.CancelScope()
        self.close_frame = SHUTTING_DOWN
        self.failure: BaseException | None = None
        self.interrupted: KeyboardInterrupt | None = None
        self._on_failure = on_failure

    @property
    def cause(self) -> BaseException | None:
        """What the server raises at its end."""
        return self.failure or self.interrupted

    def stop(self, *, restarting: bool = False) -> None:
        """Begin to stop; a second call cuts the drain short.

        Args:
            restarting: whether clients are told that another server takes its place. The first call decides.
        """
        if self.stopping.is_set():
            self.drain_limit.cancel(reason="the server was told twice to stop")
        elif restarting:
            self.close_frame = RESTARTING
        self.stopping.set()

    def interrupt(self, interrupt: KeyboardInterrupt) -> None:
        """Begin to stop, and raise this KeyboardInterrupt at the end.

        A second one does not cut the drain short, because code may raise it repeatedly, such as an observer
        at every event.
        """
        self.interrupted = self.interrupted or interrupt
        self.stopping.set()

    def fail(self, error: BaseException) -> None:
        """Close every connection, and end the server with this exception.

        Args:
            error: an internal error that concerns more than one connection.
        """
        if (interrupt := interrupt_in(error)) is not None:
            self.interrupt(interrupt)
        elif self.failure is None:
            self.failure = error
            self._on_failure(error)
        self.stopping.set()
        # The drain cannot continue: the part that has failed may be needed to wake waiting tasks.
        self.drain_limit.cancel(reason="the server has failed")

    @trio.lowlevel.enable_ki_protection
    async def run_vital(
        self, function: Callable[..., Awaitable[object]], task_status: trio.TaskStatus[Any] | None = None
    ) -> None:
        """Run a part that all connections depend on; call `fail` with what it raises.

        Cancellation: passed on.
        """
        try:
            await (function() if task_status is None else function(task_status=task_status))
        except BaseException as error:
            cancelled, mistakes = split_cancelled(error)
            if mistakes is not None:
                self.fail(unwrap_group(mistakes))
            if cancelled is not None:
                raise cancelled from None

    async def outlast_interrupts(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Wait. A KeyboardInterrupt that Trio raises here, in the main task, has the effect of `stop`.

        Cancellation: passed on.
        """
        while True:
            try:
                await wait()
            except KeyboardInterrupt as interrupt:
                self.interrupted = self.interrupted or interrupt
                self.stop()
            else:
                return
