"""The lifespan of a mounted application: started before the server is ready, shut down after the drain.

The application runs in a system task for as long as its App does, because it must outlive the cancellation
that begins the drain.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import Any

import trio

from wsframework.crashes import forget_earlier_frames, hint_in, interrupt_in, is_of_the_code
from wsframework.errors import MountError
from wsframework.mounting.mounts import Mount
from wsframework.mounting.worlds import Message, Scope, World, current_world
from wsframework.records import describe, record

__all__ = ["mounted"]

_LAST_SECONDS = 1.0
"""How long an application may take to return after it has said that its shutdown is complete."""


@asynccontextmanager
async def mounted(mount: Mount, shutdown_seconds: float) -> AsyncIterator[None]:
    """Start a mounted application, and shut it down at the end.

    Args:
        mount: where it is.
        shutdown_seconds: how long that may take; then it is cancelled.

    Raises:
        MountError: it could not start.

    Cancellation: a start-up is cancelled; a shutdown is not, except by its own limit.
    """
    lifespan = _Lifespan(mount, current_world())
    if not mount.running:
        await lifespan.start()
    mount.running += 1
    try:
        yield
    finally:
        mount.running -= 1
        await lifespan.stop(shutdown_seconds)


class _Lifespan:
    """One run of an application's lifespan."""

    def __init__(self, mount: Mount, world: World) -> None:
        self._mount = mount
        self._world = world
        self._scope = trio.CancelScope()
        self._state: dict[str, Any] = {}
        self._received = 0
        self._started = trio.Event()
        self._stopping = trio.Event()
        self._stopped = trio.Event()  # as the application says
        self._ended = trio.Event()
        self._failure: str | None = None
        self._complete = False
        self._interrupt: KeyboardInterrupt | None = None

    async def start(self) -> None:
        """Wait for the end of the start-up."""
        self._mount.state = None
        trio.lowlevel.spawn_system_task(self._run, name=self._mount.name, context=copy_context())
        try:
            await self._started.wait()
        except BaseException:
            await self._end()
            raise
        if self._interrupt is not None:
            raise self._interrupt
        if self._failure is not None:
            await self._end()
            hint = hint_in(self._failure)
            advice = "" if hint is None else f" ({hint})"
            raise MountError(f"{self._mount.name} could not start: {self._failure}{advice}")
        if self._complete:
            self._mount.state = self._state

    async def stop(self, seconds: float) -> None:
        """Shut the application down, if it has a lifespan."""
        if not self._complete or self._ended.is_set():
            return
        self._stopping.set()
        with trio.CancelScope(shield=True):
            with trio.move_on_after(seconds) as limit:
                await self._stopped.wait()
            if limit.cancelled_caught:
                record(logging.WARNING, "mount.shutdown_timeout", mount=self._mount.path, seconds=seconds)
            else:
                with trio.move_on_after(_LAST_SECONDS):
                    await self._ended.wait()
        await self._end()

    async def _end(self) -> None:
        self._scope.cancel(reason="the App has ended")
        with trio.CancelScope(shield=True):
            await self._ended.wait()

    # In the system task

    async def _run(self) -> None:
        scope: Scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        error: BaseException | None = None
        try:
            with self._scope:
                await self._world.run(self._mount.app, scope, self._receive, self._send)
        except BaseException as raised:
            error = raised
            forget_earlier_frames(error)
        finally:
            if error is not None:
                self._tell(error)
            del error
            self._started.set()
            self._stopped.set()
            self._ended.set()

    def _tell(self, error: BaseException) -> None:
        self._interrupt = interrupt_in(error)
        if self._interrupt is not None or not is_of_the_code(error):
            return
        path = self._mount.path
        if self._complete:
            record(logging.ERROR, "mount.crashed", exc_info=error, mount=path, error=describe(error))
        elif self._failure is not None:
            pass  # it has said so
        elif self._received:
            # "the server must continue but not send any lifespan events"
            record(logging.WARNING, "mount.without_lifespan", mount=path, error=describe(error))
        else:
            record(logging.DEBUG, "mount.without_lifespan", mount=path, error=describe(error))

    async def _receive(self) -> Message:
        self._received += 1
        if self._received == 1:
            await self._world.call(trio.lowlevel.checkpoint)
            return {"type": "lifespan.startup"}
        await self._world.call(self._stopping.wait if self._received == 2 else trio.sleep_forever)
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        await self._world.call(trio.lowlevel.checkpoint)
        match message["type"]:
            case "lifespan.startup.complete":
                self._complete = True
                self._started.set()
            case "lifespan.startup.failed":
                self._failure = str(message.get("message") or "it has not said why")
                self._started.set()
            case "lifespan.shutdown.complete":
                self._stopped.set()
            case "lifespan.shutdown.failed":
                why = message.get("message", "")
                record(logging.ERROR, "mount.shutdown_failed", mount=self._mount.path, error=why)
                self._stopped.set()
            case other:
                raise RuntimeError(f"an application sends no {other!r} in its lifespan")
