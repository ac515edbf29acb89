"""Commands, scripts and channels of a program's own, over the connection of its engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from wsframework.engines.redis.carrier import Carrier
from wsframework.engines.redis.codec import RedisError, pack
from wsframework.engines.redis.counters import Counters
from wsframework.engines.redis.feed import contain
from wsframework.engines.redis.link import Link
from wsframework.engines.redis.names import Script
from wsframework.errors import RoomUnavailable

__all__ = ["Commands", "Heard"]

Heard = Callable[[bytes | None], None]
"""Take a message of a channel; or None, because a connection begins, before which messages may be lost."""


class Commands:
    """What a program does in Redis beside its rooms: `engine.commands`.

        commands = engine.commands
        await commands.call("HSET", f"{commands.prefix}:seen", "ada", "today")

    Everything goes over one connection, also for the rooms, in one order: what is called first is done first,
    and a message that a command publishes is heard before the command's answer is there. So a command that
    blocks, such as BLPOP, would stop the rooms, and a slow one delays them.

    Attributes:
        prefix: what the engine's keys begin with. Keys of the program that begin with it too can be named in
            one line of an access control list.
        outage: seconds for which `call` waits for a connection.
    """

    def __init__(
        self,
        prefix: str,
        carrier: Carrier,
        scripts: list[bytes],
        outage: float,
        check: Callable[[str], None],
        counters: Counters,
    ) -> None:
        self.prefix = prefix
        self._counters = counters
        self._carrier = carrier
        self._scripts = scripts
        self.outage = outage
        self._check = check
        self._begun = trio.Event()
        self._channels: dict[bytes, Heard] = {}

    def load(self, *scripts: Script) -> None:
        """Have scripts loaded into each server, for `call(*script.call(keys, …))`.

        Call it before the engine runs.
        """
        self._scripts += [script.text for script in scripts if script.text not in self._scripts]

    async def call(self, *command: bytes | str | int) -> Any:
        """Do a command and return its reply, as Redis gives it: texts are bytes.

        Raises:
            RedisError: Redis refuses it.
            RoomUnavailable: there was no connection within the engine's `outage`; or it was lost before the
                reply, and then `unknown` is True, because the command may have been done.
            ConfigurationError: the engine does not run.
            WrongThread: this is not the engine's thread.

        Cancellation: a command that was sent is done nevertheless.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check("engine.commands")
        if self._carrier.link is None:
            with trio.move_on_after(self.outage):
                while self._carrier.link is None:
                    await self._begun.wait()
        call = _Call()
        self._ask(command, call)
        await call.settled.wait()
        if isinstance(call.outcome, Exception):
            raise call.outcome
        return call.outcome

    def call_soon(self, *command: bytes | str | int) -> bool:
        """Send a command and ignore its reply; return whether there is a connection to send it over.

        Raises:
            ConfigurationError, WrongThread: as for `call`.
        """
        call = _Call()
        self._ask(command, call)
        return not call.settled.is_set()

    def _ask(self, command: tuple[bytes | str | int, ...], call: _Call) -> None:
        self._check("engine.commands")
        if self._carrier.link is None:
            call.outcome = RoomUnavailable("there is no connection to Redis")
            call.settled.set()
        else:
            self._carrier.link.ask(pack(command), call)

    def listen(self, channel: str, heard: Heard) -> None:
        """Hand each message of a channel to a function, which must not block, until the engine ends.

        The function is called with None at the beginning of each connection, the first one too: what was
        published before is not heard. What it calls then is done after the channel was subscribed to.

        Args:
            channel: its name, which begins with the engine's prefix if access is limited to it.
            heard: its exceptions are logged.
        """
        self._channels[channel.encode()] = heard
        if self._carrier.link is not None:
            self._carrier.link.subscribe(channel.encode())
            self._hand(heard, None)

    # What the engine calls

    def begin(self, link: Link) -> None:
        """Continue over a new connection: first what `listen`'s functions call, then what has waited."""
        for channel, heard in self._channels.items():
            link.subscribe(channel)
            self._hand(heard, None)
        begun, self._begun = self._begun, trio.Event()
        begun.set()

    def pushed(self, channel: bytes, payload: bytes) -> None:
        """Take a message of a channel, which may be none of the program's."""
        heard = self._channels.get(channel)
        if heard is not None:
            self._hand(heard, payload)

    def _hand(self, heard: Heard, payload: bytes | None) -> None:
        try:
            heard(payload)
        except BaseException as error:  # a mistake in the program, or a stranger's message: the rooms go on
            contain(error, self._counters.failed)


class _Call:
    """A command that waits for its reply."""

    def __init__(self) -> None:
        self.outcome: Any = None
        self.settled = trio.Event()

    def replied(self, reply: Any) -> None:
        if isinstance(reply, RedisError) and reply.is_of_connection:
            # Such as READONLY: it was not done, and another connection may lead to the master.
            self.outcome = RoomUnavailable(str(reply))
            self.settled.set()
            raise reply
        self.outcome = reply
        self.settled.set()

    def lost(self) -> None:
        if not self.settled.is_set():
            self.outcome = RoomUnavailable("the connection to Redis was lost", unknown=True)
            self.settled.set()
