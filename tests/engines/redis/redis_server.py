"""A Redis server of the tests' own, and a proxy before it that can hurt connections."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import trio

from tests.proxies.running import free_port, program_path

__all__ = ["Proxy", "RedisServer"]


class RedisServer:
    """A server in a folder, which can be killed, stopped and started again on the same port.

    Args:
        folder: for its files.
        options: of its configuration, such as `("appendonly", "yes")`.
    """

    def __init__(self, folder: Path, *options: tuple[str, str], port: int | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.program = program_path("redis-server")
        self._options = options
        self.port = free_port() if port is None else port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def command_line(self) -> list[str]:
        """Return the command that starts it."""
        command = [self.program, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        for name, value in (("save", ""), *self._options):
            command += [f"--{name}", value]
        return command

    async def start(self, *options: tuple[str, str]) -> None:
        """Start it, and wait until it answers."""
        assert self._process is None
        command = self.command_line()
        for name, value in options:
            command += [f"--{name}", value]
        self._process = subprocess.Popen(  # noqa: ASYNC220 - it outlives the task
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with trio.fail_after(20):
            while not await self._answers():
                assert self._process.poll() is None, f"redis-server ended: {command}"
                await trio.sleep(0.01)

    async def _answers(self) -> bool:
        try:
            answer = await self.command("PING")
            return b"PONG" in answer or b"NOAUTH" in answer
        except OSError:
            return False

    async def command(self, *words: str) -> bytes:
        """Send a command on a connection of its own, and return the first part of the reply."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream:
            encoded = [word.encode(errors="surrogateescape") for word in words]
            parts = [b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)]
            try:
                await stream.send_all(b"".join(parts))
                return bytes(await stream.receive_some(65536))
            except trio.BrokenResourceError as error:
                raise OSError(str(error)) from None

    async def free_tls_port(self) -> int:
        """Listen with TLS too, and return the port."""
        port = free_port()
        answer = await self.command("CONFIG", "SET", "tls-port", str(port))
        assert answer == b"+OK\r\n", answer
        return port

    def kill(self) -> None:
        """SIGKILL: what was not written is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP: connections stay, and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        await self.start()
        try:
            yield self
        finally:
            self.kill()


class Proxy:
    """A TCP proxy: what goes through it can be cut, delayed, or swallowed."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.delay = 0.0
        self.swallow = False
        self._connections: set[trio.CancelScope] = set()
        self._dead: set[trio.CancelScope] = set()

        self.accepted = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._connections)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, self._serve, 0)
            self.port = listeners[0].socket.getsockname()[1]
            yield self
            nursery.cancel_scope.cancel()

    def cut(self) -> None:
        """Break all connections."""
        for scope in list(self._connections):
            scope.cancel()

    async def ended(self) -> None:
        """Wait until the connections that there are have ended by themselves."""
        before = set(self._connections)
        while before & self._connections:  # noqa: ASYNC110
            await trio.sleep(0.01)

    def deaden(self) -> None:
        """Swallow what goes through the connections that there are, as a network does that lost them."""
        self._dead |= self._connections

    async def _serve(self, client: trio.SocketStream) -> None:
        self.accepted += 1
        with trio.CancelScope() as scope:
            self._connections.add(scope)
            try:
                server = await trio.open_tcp_stream("127.0.0.1", self.target)
                async with server, trio.open_nursery() as nursery:
                    nursery.start_soon(self._pass, client, server, scope)
                    await self._pass(server, client, scope)
            except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                self._connections.discard(scope)

    async def _pass(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        while data := await source.receive_some(65536):
            while self.swallow or scope in self._dead:  # noqa: ASYNC110 - a test sets it
                await trio.sleep(0.01)
            if self.delay:
                await trio.sleep(self.delay)
            await sink.send_all(data)
        scope.cancel()
