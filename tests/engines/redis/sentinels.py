"""Sentinels of the tests' own, and the servers that they watch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import trio

from tests.engines.redis.redis_server import RedisServer

__all__ = ["MASTER", "Sentinel", "Watched", "replica_of", "watched"]

MASTER = "rooms"
"""The name by which sentinels know the servers."""


class Sentinel(RedisServer):
    """A sentinel, which finds the others through the master that it watches.

    Args:
        folder: for its file.
        port: the master's.
        quorum: how many sentinels have to agree that it is gone.
        settings: further lines of its file.
    """

    def __init__(self, folder: Path, port: int, quorum: int, *settings: str) -> None:
        super().__init__(folder)
        self.master_port = port
        self._file = folder / "sentinel.conf"
        lines = (
            f"sentinel monitor {MASTER} 127.0.0.1 {port} {quorum}",
            f"sentinel down-after-milliseconds {MASTER} 500",
            f"sentinel failover-timeout {MASTER} 3000",
            *settings,
        )
        self._file.write_text("\n".join(lines) + "\n")

    def command_line(self) -> list[str]:
        options = ["--sentinel", "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        return [self.program, str(self._file), *options]

    async def others(self) -> int:
        """Return how many other sentinels it knows."""
        return (await self.command("SENTINEL", "SENTINELS", MASTER)).count(b"runid")

    async def replicas(self) -> int:
        """Return how many replicas it knows."""
        return (await self.command("SENTINEL", "REPLICAS", MASTER)).count(b"runid")


@asynccontextmanager
async def replica_of(server: RedisServer, folder: Path) -> AsyncIterator[RedisServer]:
    """Give a server that follows another one."""
    await server.command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    replica = RedisServer(folder, ("replicaof", f"127.0.0.1 {server.port}"))
    async with replica.running():
        with trio.fail_after(20):
            while b"master_link_status:up" not in await replica.command("INFO", "replication"):  # noqa: ASYNC110
                await trio.sleep(0.02)
        yield replica


@attrs.define
class Watched:
    """A master, a replica, and three sentinels."""

    master: RedisServer
    replica: RedisServer
    sentinels: list[Sentinel]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{each.port}' for each in self.sentinels)}/{MASTER}"


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[Watched]:
    """Give servers and sentinels that know all of each other."""
    master = RedisServer(folder / "master")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(master.running())
        replica = await stack.enter_async_context(replica_of(master, folder / "replica"))
        sentinels = []
        for number in range(3):
            sentinel = Sentinel(folder / f"sentinel{number}", master.port, 2)
            sentinels.append(await stack.enter_async_context(sentinel.running()))
        with trio.fail_after(30):
            for sentinel in sentinels:
                while (await sentinel.others(), await sentinel.replicas()) != (2, 1):  # noqa: ASYNC110
                    await trio.sleep(0.05)
        yield Watched(master, replica, sentinels)
