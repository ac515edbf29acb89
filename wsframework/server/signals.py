"""Run a server until a signal stops it.

The first signal ends the start-up or begins the drain. The second one cuts short what is in progress then. If
something still does not end, the `LastResort` exits the process, at the third signal or after some seconds.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Collection, Iterator
from types import FrameType
from typing import Any

import trio

from wsframework.config import Timeouts
from wsframework.crashes import interrupt_in, unwrap_group
from wsframework.records import record
from wsframework.server.descriptors import raise_descriptor_limit
from wsframework.server.leaving import LastResort
from wsframework.server.server import Server
from wsframework.server.systemd import service_manager

__all__ = ["run_server", "serve_until_signalled"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_server(
    start: Callable[..., Awaitable[object]],
    on_listening: Callable[[Server], None] | None = None,
    timeouts: Timeouts | None = None,
    **settings: Any,
) -> None:
    """Run `serve_until_signalled` in a Trio run of its own, and exit the process if that run does not end.

    Args:
        start, on_listening, timeouts, settings: as for `serve_until_signalled`.
    """
    timeouts = timeouts or Timeouts()
    last_resort = LastResort(timeouts)
    try:
        trio.run(
            functools.partial(serve_until_signalled, last_resort, start, on_listening, timeouts, **settings)
        )
    finally:
        last_resort.close()


async def serve_until_signalled(
    last_resort: LastResort,
    start: Callable[..., Awaitable[object]],
    on_listening: Callable[[Server], None] | None,
    timeouts: Timeouts,
    *,
    signals: Collection[signal.Signals] = _SIGNALS,
    beside: Callable[[Callable[[bool, bool], None]], Awaitable[object]] | None = None,
) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP, through the drain, to the end of the lifespans.

    A service manager is told of all of it.

    Args:
        last_resort: the caller closes it.
        start: serves, and follows Trio's start protocol: `start(task_status=…)` reports a `Server`.
        on_listening: called with the server once it listens.
        timeouts: how long the drain and the end of the lifespans may take before the process exits with
            status 1.
        signals: the signals that stop it.
        beside: called before `start`, in a task that is cancelled when everything has ended. It gets a
            function that does what a signal does. Its arguments are whether another process takes this one's
            place, and whether to cut short what is in progress if the end has begun. A signal can only begin
            it then, because it may say the same as this function.
    """
    raise_descriptor_limit()
    manager = service_manager()
    last_resort.begin()
    everything = trio.CancelScope()
    server: Server | None = None
    told = False

    def note(again: bool) -> bool:
        """Take note of a word to stop, at once; return whether it is to be obeyed."""
        nonlocal told
        obeyed, told = again or not told, True
        if obeyed:
            last_resort.signalled()
        return obeyed

    def stop(number: int) -> None:
        record(logging.INFO, "server.signal", signal=signal.Signals(number).name)
        halt(False)

    def halt(restarting: bool) -> None:
        if server is None or server.stopped:
            # Lifespans are starting or ending.
            everything.cancel(reason="a signal said to stop")
        else:
            server.stop(restarting=restarting)

    async def serve(*, task_status: trio.TaskStatus[Server]) -> None:
        await start(task_status=task_status)
        nursery.cancel_scope.cancel(reason="the server has stopped")

    async def follow(server: Server) -> None:
        await server.wait_stopping()
        last_resort.stopping()
        manager.stopping(f"Draining; {server.statistics().connections} connections are open")
        await server.wait_stopped()
        last_resort.drained()
        with trio.move_on_after(timeouts.lifespan):
            await trio.sleep_forever()
        record(logging.WARNING, "lifespan.timeout", seconds=timeouts.lifespan)
        everything.cancel(reason="the lifespans did not end in time")

    def told_to_stop(restarting: bool, again: bool) -> None:
        if note(again):
            halt(restarting)

    try:
        with _signals(signals, stop, functools.partial(note, beside is None)), everything:
            async with trio.open_nursery() as nursery:
                if beside is not None:
                    nursery.start_soon(beside, told_to_stop)
                nursery.start_soon(manager.feed_watchdog)
                server = await nursery.start(serve)
                # A program's modules live as long as it does. Frozen, they are left out of full collections,
                # which otherwise stop a busy server for tens of milliseconds.
                gc.collect()
                gc.freeze()
                nursery.start_soon(follow, server)
                if on_listening is not None:
                    on_listening(server)
                manager.ready(f"Listening on {', '.join(map(str, server.addresses))}")
    except BaseExceptionGroup as group:
        # Made by our nursery.
        raise interrupt_in(group) or unwrap_group(group) from None
    finally:
        last_resort.ended()


@contextlib.contextmanager
def _signals(
    numbers: Collection[signal.Signals], stop: Callable[[int], None], note: Callable[[], bool]
) -> Iterator[None]:
    """For every signal, call `note` immediately, and if it returns True, `stop` in the event loop."""
    token = trio.lowlevel.current_trio_token()
    process = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            # A child that a handler has forked inherits this function, and the pipe of the last resort. The
            # signal gets the effect that it would have had without this function.
            signal.signal(number, before[number])
            os.kill(os.getpid(), number)
            return
        if note():
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(stop, number)

    before: dict[int, signal.Handlers | Callable[[int, FrameType | None], Any] | int] = {}
    try:
        for number in numbers:
            # Started by nohup, the process is meant to outlive the terminal.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                # None means that Python did not set the handler, and cannot restore it.
                before[number] = signal.getsignal(number) or signal.SIG_DFL
                signal.signal(number, handle)
        yield
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)
