"""The scripts of a chat in Redis, and what they tell all processes.

Theory of operation
-------------------
Everything that changes is changed by a script, in one step, and told on one channel. Over the engine's
connection, messages of the channel and answers arrive in the order in which Redis did it. So all processes
see one order of messages, names and rooms, and an answer comes behind what it has changed.

A script that is run again because its answer was lost does the same once: a message has a key or a tag, a
name and a room have their guest. So `run` tries again, over the next connection, for a while.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

import trio

from wsframework import ConfigurationError, Engine, RoomUnavailable
from wsframework.engines.redis import RedisEngine, RedisError, Script

__all__ = ["Argument", "Store", "store_of"]

logger = logging.getLogger("wsframework.chat")

Argument = bytes | str | int

_PAUSE_SECONDS = 0.02
_COMPLAIN_SECONDS = 1.0
"""Redis is away, or out of memory, for all clients at once: it is logged so often."""


@cache
def _script(name: str) -> Script:
    scripts = files("wsframework.chat.redis").joinpath("scripts")
    texts = [scripts.joinpath(f"{part}.lua").read_text(encoding="utf-8") for part in ("common", name)]
    return Script.of("\n".join(texts))


_NAMES = (
    *("append", "prune", "follow", "newest", "after"),
    *("claim", "enter", "leave", "depart", "lease", "reap", "restore", "typing", "people", "rooms", "counts"),
)


class Store:
    """A chat's part of Redis.

    Args:
        engine: what is connected; its keys' prefix is the chat's too.

    Attributes:
        engine: as given.
    """

    def __init__(self, engine: RedisEngine) -> None:
        self.engine = engine
        self._commands = engine.commands
        self._base = f"{self._commands.prefix}:{{chat}}:"
        self._complained_at = float("-inf")
        self._commands.load(*map(_script, _NAMES))

    def listen(self, begin: Callable[[], None], heard: Callable[[bytes, bytes], None]) -> None:
        """Hear what scripts tell.

        Args:
            begin: called with each new connection; what was told before is not heard.
            heard: called with the kind and the value of what is told.
        """

        def hear(payload: bytes | None) -> None:
            if payload is None:
                begin()
            else:
                kind, _, value = payload.partition(b" ")
                heard(kind, value)

        self._commands.listen(f"{self._base}events", hear)

    async def ready(self) -> None:
        """Find out whether scripts can be run.

        Raises:
            ConfigurationError: they cannot.

        Cancellation: nothing is left behind.
        """
        try:
            await self.run("counts")
        except ConfigurationError:
            raise ConfigurationError(
                "the RedisEngine of the chat does not run: write app.install(engine) before app.install(chat)"
            ) from None
        except RoomUnavailable as error:
            raise ConfigurationError(f"the chat cannot begin: {error}") from None

    async def run(self, name: str, *arguments: Argument) -> Any:
        """Run a script and return its answer; try again when the connection is lost.

        Raises:
            RoomUnavailable: there was no answer for the engine's `outage`, or Redis refuses it.

        Cancellation: it may have been done.
        """
        command = _script(name).call([self._base], *arguments)
        unknown = False
        with trio.move_on_after(self.engine.outage):
            while True:
                try:
                    return await self._commands.call(*command)
                except RoomUnavailable as error:
                    unknown = unknown or error.unknown
                except RedisError as error:
                    self._complain(str(error))
                    raise RoomUnavailable(f"Redis refuses it: {error}", unknown=unknown) from None
                await trio.sleep(_PAUSE_SECONDS)
        self._complain("it does not answer")
        raise RoomUnavailable("Redis does not answer", unknown=True)

    def soon(self, name: str, *arguments: Argument) -> None:
        """Run a script without waiting for it; without effect if there is no connection."""
        self._commands.call_soon(*_script(name).call([self._base], *arguments))

    def _complain(self, why: str) -> None:
        now = trio.current_time()
        if now - self._complained_at >= _COMPLAIN_SECONDS:
            self._complained_at = now
            logger.error("the chat cannot use Redis: %s; requests are refused", why)

    async def shortcomings(self) -> list[str]:
        """Return what Redis' configuration lacks to keep every acknowledged message through a crash.

        Raises:
            RoomUnavailable: it does not answer.

        Cancellation: nothing is left behind.
        """
        wanted = {"appendonly": "yes", "appendfsync": "always"}
        try:
            reply = await self._commands.call("CONFIG", "GET", "append*")
        except RedisError as error:
            return [f"its configuration cannot be read to see if appendfsync is 'always' ({error})"]
        known = {key.decode(): value.decode() for key, value in reply.items()}
        return [
            f"{name} is {known.get(name)!r} instead of {value!r}"
            for name, value in wanted.items()
            if known.get(name) != value
        ]


def store_of(engine: Engine) -> Store:
    """Return the store of a chat that has this engine.

    Raises:
        ConfigurationError: it is no engine that can store a chat.
    """
    if not isinstance(engine, RedisEngine):
        raise ConfigurationError(
            f"Chat(engine=…): {type(engine).__name__} has no store for messages; give a RedisEngine"
        )
    return Store(engine)
