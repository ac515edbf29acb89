"""Serve an App in an asyncio program, for as long as a block lasts."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl as ssl_module
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from wsframework.app import App
from wsframework.asyncio.guest import Guest, outlast
from wsframework.server import Server

__all__ = ["House", "serve"]

ResultT = TypeVar("ResultT")


class House:
    """A server in an asyncio program.

    Attributes:
        server: the server. Its async methods are Trio's: `await house.from_asyncio(server.wait_stopping)`.
    """

    def __init__(self, server: Server, guest: Guest) -> None:
        self.server = server
        self._guest = guest

    @property
    def port(self) -> int:
        """The TCP port, as `Server.port`.

        Raises:
            RuntimeError: the server listens on a unix socket.
        """
        return self.server.port

    @property
    def urls(self) -> tuple[str, ...]:
        """A ws:// or wss:// URL for each address that has one."""
        return self.server.urls

    async def from_asyncio(self, function: Callable[..., Awaitable[ResultT]], *args: Any) -> ResultT:
        """Call an async function of Trio's from an asyncio task, as `wsframework.asyncio.from_asyncio` does.

        Args:
            function: an async function that needs Trio, such as `ws.send`.
            args: its arguments.

        Returns:
            What it returns.

        Cancellation: as for `wsframework.asyncio.from_asyncio`.
        """
        return await self._guest.call_trio(function, *args)


class _Serving:
    """The server of one block: where its start is reported, and its end."""

    def __init__(self, guest: Guest, start: Callable[..., Awaitable[None]]) -> None:
        self._guest = guest
        self._start = start
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()
        self.server: Server | None = None
        self.failure: BaseException | None = None
        self.task = loop.create_task(self._run(), name="wsframework server")

    def started(self, value: Server | None = None) -> None:
        """Take the server once it listens: this is a task status."""
        self.server = value
        self.begun.set_result(None)

    async def _run(self) -> None:
        try:
            await self._guest.call_trio(functools.partial(self._start, task_status=self))
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            # asyncio lets a task's KeyboardInterrupt end the whole loop; it belongs to the block.
            self.failure = error
        finally:
            if not self.begun.done():
                self.begun.set_result(None)

    def stop(self) -> None:
        """Begin to stop; a second call cuts the drain short."""
        if self.server is None:
            self.task.cancel()
        elif not self.server.stopped:
            self.server.stop()

    async def end(self, raised: BaseException | None) -> asyncio.CancelledError | None:
        """Stop, and wait for the end; return what this task was cancelled with after what it has raised."""
        self.stop()
        return await outlast(self.task, self.stop, raised)


@asynccontextmanager
async def serve(
    app: App,
    host: str | None = "127.0.0.1",
    port: int = 8000,
    *,
    ssl: ssl_module.SSLContext | None = None,
    unix_path: str | None = None,
    sockets: Sequence[socket.socket] | None = None,
    unix_mode: int | None = None,
    proxy_protocol: bool = False,
    allow_hosts: str | Iterable[str] = (),
) -> AsyncIterator[House]:
    """Serve an App in an asyncio program, from the start of a block to its end.

        async with wsframework.asyncio.serve(app, port=3000):
            ...

    Trio runs as a guest in the asyncio event loop, uvloop's too, in the same thread. The block is entered
    once the App's lifespans were entered and the server listens. At its end the server drains, as when
    `App.serve` is cancelled, and the lifespans are left. Several blocks may be open at a time, each in any
    task of the loop.

    The program is asyncio's: signals are its own to handle, and what ends the block ends the server. A
    Ctrl-C under `asyncio.run` cancels the main task, so the server drains. Cancelling the block's task again
    cuts the drain short.

    Args:
        app: the App. Its handlers, guards and lifespans are Trio's, as everywhere.
        host: as for `App.serve`, like the rest.
        port: 0 lets the system choose, see `House.port`.

    Raises:
        ListenError: an address or socket cannot be listened on.
        ConfigurationError: as for `App.serve`.
        KeyboardInterrupt: one was raised in a handler; the block's task was cancelled, and the server has
            drained.
        Exception: the server or a lifespan failed, while the block's task was cancelled; or a lifespan failed
            at its end.
        BaseExceptionGroup: the same, and the block has raised something else.

    Cancellation:
        The server drains, and then the cancellation goes on.
    """
    block = asyncio.current_task()
    if block is None:
        raise RuntimeError("wsframework.asyncio.serve belongs into an asyncio task")
    guest = await Guest.enter()
    try:
        start = functools.partial(
            app.serve,
            host,
            port,
            ssl=ssl,
            unix_path=unix_path,
            sockets=sockets,
            unix_mode=unix_mode,
            proxy_protocol=proxy_protocol,
            allow_hosts=allow_hosts,
        )
        serving = _Serving(guest, start)
        if (cancelled := await outlast(serving.begun, serving.stop)) is not None:
            await outlast(serving.task, serving.stop)
            raise cancelled
        if serving.server is None:
            await outlast(serving.task)
            raise serving.failure or RuntimeError("the server stopped before it listened")
        async with _block(serving, block):
            yield House(serving.server, guest)
    finally:
        await guest.leave()


@asynccontextmanager
async def _block(serving: _Serving, block: asyncio.Task[Any]) -> AsyncIterator[None]:
    """Cancel the block if its server fails; end the server after it, and say which of the two has failed."""
    cancelled_before = block.cancelling()
    interrupting = False

    def server_ended(_: object) -> None:
        nonlocal interrupting
        if serving.failure is not None:
            interrupting = True
            block.cancel("the server has failed")

    serving.task.add_done_callback(server_ended)
    raised: BaseException | None = None
    try:
        yield
    except BaseException as error:
        raised = error
    finally:
        serving.task.remove_done_callback(server_ended)
    cancelled = await serving.end(raised)
    if interrupting and block.uncancel() <= cancelled_before and isinstance(raised, asyncio.CancelledError):
        # Nobody else has cancelled it.
        raised = None
    if cancelled is not None and raised is None:
        raise cancelled
    failure = serving.failure
    try:
        if raised is not None and failure is not None and not isinstance(raised, asyncio.CancelledError):
            raise BaseExceptionGroup("the block and its server have failed", [raised, failure])
        if raised is not None or failure is not None:
            raise raised or failure  # type: ignore[misc]
    finally:
        del raised, failure  # their frames refer to this one
