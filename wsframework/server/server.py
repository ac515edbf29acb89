"""A running server: its addresses and counters, and the methods that stop it."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import Any

import attrs
import trio

from wsframework.errors import WrongThread
from wsframework.request import Address
from wsframework.server.core import Core
from wsframework.server.posting import Posts
from wsframework.server.requests import Requests

__all__ = ["Server", "ServerStatistics"]


@attrs.frozen
class ServerStatistics:
    """A server's counters at one moment.

    Attributes:
        connections: open now, in their handshake, or with a handler in its grace; and code that runs on
            although its client was answered, or has left.
        websockets: open now and upgraded.
        accepted: TCP (or unix) connections accepted since the start.
        refused: how many of them were refused, over a limit or for lack of descriptors.
    """

    connections: int
    websockets: int
    accepted: int
    refused: int


class Server:
    """A server that listens; `await nursery.start(app.serve)` returns one.

    Attributes:
        addresses: where it listens.
        secure: whether it speaks TLS.
        trio_token: the token of its Trio run. Other threads call `post`, or, if they need the answer, wait
            for it: `trio.from_thread.run_sync(room.broadcast, …, trio_token=server.trio_token)`, and
            `trio.from_thread.run` for an async function.
    """

    def __init__(
        self, core: Core, requests: Requests, addresses: tuple[Address, ...], nursery: trio.Nursery
    ) -> None:
        self.addresses = addresses
        self.secure = core.secure
        self.trio_token = trio.lowlevel.current_trio_token()
        self._core = core
        self._requests = requests
        self._nursery = nursery
        self._thread = get_ident()
        self._posts = Posts(core.limits.posts, core.lifetime.stopped, core.lifetime.interrupt)

    @property
    def port(self) -> int:
        """The TCP port; the one that the system chose when it was asked for port 0.

        Raises:
            RuntimeError: the server listens on a unix socket.
        """
        for address in self.addresses:
            if address.port is not None:
                return address.port
        raise RuntimeError("this server listens on a unix socket, which has no port")

    @property
    def urls(self) -> tuple[str, ...]:
        """A ws:// or wss:// URL for each address that has one."""
        scheme = "wss" if self.secure else "ws"
        return tuple(f"{scheme}://{address}" for address in self.addresses if address.port is not None)

    def statistics(self) -> ServerStatistics:
        """Return the server's counters."""
        counted = self._core.admission
        return ServerStatistics(counted.open, len(self._core.transports), counted.accepted, counted.refused)

    def stop(self, *, restarting: bool = False) -> None:
        """Begin to stop, as cancelling the server's task does; a second call cuts the drain short.

        Args:
            restarting: whether clients get Close 1012, "service restart", instead of 1001: another process
                accepts from the same sockets, and clients may reconnect at once.

        Raises:
            WrongThread: this is not the server's thread.
        """
        self._check_thread("server.stop")
        self._core.lifetime.stop(restarting=restarting)

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Have a function called in the server's thread; do not wait for it. For other threads.

            server.post(room.broadcast, "It rains.")

        Functions are called one after the other, in the order of the calls of `post`, and each in a copy of
        its caller's context. What one returns is dropped. What it raises is logged as `post.failed`, and
        concerns nothing else, except that a KeyboardInterrupt stops the server.

        It may be called in any thread, the server's included, and in a signal handler.

        Args:
            function: a plain function.
            args: its arguments.

        Raises:
            PostRefused: `Limits.posts` functions wait already, or the server has ended.
            TypeError: it is an async function.
        """
        self._posts.add(function, *args)

    @property
    def draining(self) -> bool:
        """True once the server has begun to stop."""
        return self._core.lifetime.stopping.is_set()

    @property
    def stopped(self) -> bool:
        """True once every connection is closed and every handler has ended."""
        return self._core.lifetime.stopped.is_set()

    async def wait_stopping(self) -> None:
        """Wait until the server begins to stop.

        Raises:
            WrongThread: this is not the server's thread.

        Cancellation: nothing is left behind.
        """
        self._check_thread("server.wait_stopping")
        await self._core.lifetime.stopping.wait()

    async def wait_stopped(self) -> None:
        """Wait until every connection is closed and every handler has ended.

        Raises:
            WrongThread: this is not the server's thread.

        Cancellation: nothing is left behind.
        """
        self._check_thread("server.wait_stopped")
        await self._core.lifetime.stopped.wait()

    def serve_soon(self, stream: trio.abc.Stream, remote: Address, local: Address) -> None:
        """Serve one more connection, in addition to accepted ones, in a task of the server; do not wait.

        Args:
            stream: both directions of bytes; the server closes it.
            remote: the peer's address, for handlers.
            local: the server's address, for handlers.

        Raises:
            RuntimeError: the server has begun to stop.
            WrongThread: this is not the server's thread.
        """
        self._check_thread("server.serve_soon")
        if self.draining:
            raise RuntimeError("this server has begun to stop, so it can serve no stream")
        serve = self._requests.over_stream(stream, remote, local).serve
        self._nursery.start_soon(self._core.lifetime.run_vital, serve)

    def _check_thread(self, verb: str) -> None:
        if get_ident() != self._thread:
            raise WrongThread(verb)
