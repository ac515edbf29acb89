"""Run a server until a signal says to stop."""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Awaitable, Callable

import trio

from wsframework.errors import unwrap_group
from wsframework.records import record
from wsframework.server.native import Server

__all__ = ["run_server"]


async def run_server(
    start: Callable[..., Awaitable[object]], on_listening: Callable[[Server], None] | None = None
) -> None:
    """Serve until SIGINT or SIGTERM and through the drain; a second signal cuts the drain short.

    Args:
        start: serves, with Trio's start protocol: `start(task_status=…)` reports a `Server`.
        on_listening: called with it once it listens.
    """
    try:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:

                async def stop_on_signals(server: Server) -> None:
                    async for number in signals:
                        record(logging.INFO, "server.signal", signal=signal.Signals(number).name)
                        server.stop()

                async def serve_and_leave(*, task_status: trio.TaskStatus[Server]) -> None:
                    await start(task_status=task_status)
                    nursery.cancel_scope.cancel(reason="the server has stopped")

                server: Server = await nursery.start(serve_and_leave)
                # The program's modules live as long as it does. Out of the collector's sight they cost its
                # full passes nothing, which otherwise stop a busy server for tens of milliseconds.
                gc.collect()
                gc.freeze()
                if on_listening is not None:
                    on_listening(server)
                nursery.start_soon(stop_on_signals, server)
    except BaseExceptionGroup as group:
        # Made by our nursery.
        raise unwrap_group(group) from None
