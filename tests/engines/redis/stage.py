"""The stage on which things happen to rooms: for a few seconds in CI, for longer in `make chaos`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import trio

from tests.engines.redis.judge import Conversation
from tests.engines.redis.redis_server import Proxy, RedisServer
from wsframework import History
from wsframework.engines.redis import RedisEngine

__all__ = ["SECONDS", "SEED", "Stage"]

SECONDS = float(os.environ.get("CHAOS_SECONDS", "2.5"))
SEED = int(os.environ.get("CHAOS_SEED", "2026"))


@attrs.define
class Stage:
    """A server, three nodes with a proxy each, and what they say."""

    server: RedisServer
    proxies: list[Proxy]
    engines: list[RedisEngine]
    talk: Conversation

    @classmethod
    @asynccontextmanager
    async def set(
        cls, folder: Path, *options: tuple[str, str], history: History | None = None, account: str = ""
    ) -> AsyncIterator[Stage]:
        """Begin a conversation.

        Args:
            folder: for the server's files.
            options: of the server.
            history: of the rooms, instead of the engines' own.
            account: "user:password" of a user who may do everything, instead of the default user.
        """
        server = RedisServer(folder, *options)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(server.running())
            if account:
                user, _, password = account.partition(":")
                rights = ("on", f">{password}", "~*", "&*", "+@all")
                assert await server.command("ACL", "SETUSER", user, *rights) == b"+OK\r\n"
            proxies, engines = [], []
            for _ in range(3):
                proxy = Proxy(server.port)
                await stack.enter_async_context(proxy.running())
                url = proxy.url.replace("://", f"://{account}@" if account else "://")
                engine = RedisEngine(url, timeout=1.0, outage=5.0, lease=2.0)
                await stack.enter_async_context(engine.run())
                proxies.append(proxy)
                engines.append(engine)
            talk = Conversation(engines, SEED, history)
            talk.subscribe()
            await talk.settled()
            yield cls(server, proxies, engines, talk)

    async def suffer(self, fault: Callable[[Stage], Awaitable[None]]) -> None:
        """Talk while something happens, however long it takes, and judge."""
        over = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.talk.talk, SECONDS, over)
            await fault(self)
            over.set()
        await self.talk.settled()
        self.talk.judge()
        await self.talk.meets()
        # I10: afterwards all is well again, without help.
        before = len(self.talk.acknowledged)
        await self.talk.talk(0.3)
        await self.talk.settled()
        self.talk.judge()
        assert len(self.talk.acknowledged) > before
