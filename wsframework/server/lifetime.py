"""From the start of a server to its end: who says that it stops, how soon, and what it then raises.

Three things stop a server: a call of `stop`, a KeyboardInterrupt from anywhere, and a mistake of ours in a
part that all connections depend on. The first two begin the drain. The third ends the server at once: a
server that is only half alive would be worse than none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from wsframework.crashes import interrupt_in, split_cancelled, unwrap_group

__all__ = ["Lifetime"]


class Lifetime:
    """The state of one server between its start and its end.

    Args:
        on_failure: called with the first mistake of ours that ends the server.

    Attributes:
        stopping: set when the server begins to stop.
        stopped: set when every connection is closed and every handler has ended.
        drain_limit: the scope around the drain.
        failure: the mistake of ours that ended the server.
        interrupted: the KeyboardInterrupt that stopped it.
    """

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        self.stopping = trio.Event()
        self.stopped = trio.Event()
        self.drain_limit = trio.CancelScope()
        self.failure: BaseException | None = None
        self.interrupted: KeyboardInterrupt | None = None
        self._on_failure = on_failure

    @property
    def cause(self) -> BaseException | None:
        """What the server raises at its end."""
        return self.failure or self.interrupted

    def stop(self) -> None:
        """Begin to stop; a second call cuts the drain short."""
        if self.stopping.is_set():
            self.drain_limit.cancel(reason="the server was told twice to stop")
        self.stopping.set()

    def interrupt(self, interrupt: KeyboardInterrupt) -> None:
        """Begin to stop, and raise this at the end: it is about the whole program.

        Code may raise it again and again, an observer at every event, so a second one does not cut the drain
        short.
        """
        self.interrupted = self.interrupted or interrupt
        self.stopping.set()

    def fail(self, error: BaseException) -> None:
        """Close every connection that can still be told, and end the server with this exception.

        Args:
            error: a mistake of ours that is not about a single connection.
        """
        if (interrupt := interrupt_in(error)) is not None:
            self.interrupt(interrupt)
        elif self.failure is None:
            self.failure = error
            self._on_failure(error)
        self.stopping.set()
        # Without what has failed the drain cannot go on: it may be needed to wake the tasks that wait.
        self.drain_limit.cancel(reason="the server has failed")

    @trio.lowlevel.enable_ki_protection
    async def run_vital(
        self, function: Callable[..., Awaitable[object]], task_status: trio.TaskStatus[Any] | None = None
    ) -> None:
        """Run a part without which there is no server; what it raises is `fail`'s.

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
        """Wait; a Ctrl-C that Trio delivers here, in the main task, stops the server, as `stop` does.

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
