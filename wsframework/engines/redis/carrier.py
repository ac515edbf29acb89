"""The connection to Redis, again and again: made, used until it is lost, and made anew."""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import trio

from wsframework.engines.redis.address import Address
from wsframework.engines.redis.codec import Command, LinkLost, RedisError, pack
from wsframework.engines.redis.link import Link
from wsframework.engines.redis.places import Malformed
from wsframework.engines.redis.sentinel import Master
from wsframework.errors import ConfigurationError
from wsframework.records import record, record_failure

__all__ = ["Carrier", "Ignored"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two attempts to connect; each is shortened at random, up to a half."""

_STEADY_SECONDS = 2.0
"""A connection that lasts for less is lost for a reason that is still there."""


class Ignored:
    """Takes a reply that tells nothing, unless another connection is needed."""

    def replied(self, reply: Any) -> None:
        """Give up the connection at an error of it."""
        if isinstance(reply, RedisError) and reply.is_of_connection:
            raise reply

    def lost(self) -> None:
        """Do nothing: the next connection begins anew."""


class Carrier:
    """What keeps an engine connected.

    Args:
        address: the server, or the sentinels that know it.
        timeout: seconds after which a server that owes an answer counts as gone.
        scripts: texts of the scripts that are loaded into each server.
        trials: commands that have to succeed there.
        begin: called with each new connection.
        end: called after each one.
        fill: called before each write to it.
        pushed: called with what arrives on channels.

    Attributes:
        link: the connection, or None while there is none.
        generation: how many there have been.
    """

    def __init__(
        self,
        address: Address,
        timeout: float,
        scripts: Sequence[bytes],
        trials: Sequence[Command],
        *,
        begin: Callable[[Link], None],
        end: Callable[[], None],
        fill: Callable[[Link], None],
        pushed: Callable[[Sequence[Any]], None],
    ) -> None:
        self.link: Link | None = None
        self.generation = 0
        self._address = address
        self._master = Master(address, timeout)
        self._timeout = timeout
        self._scripts = scripts
        self._trials = trials
        self._begin = begin
        self._end = end
        self._fill = fill
        self._pushed = pushed
        self._down_since: float | None = None

    def wake(self) -> None:
        """Have `fill` called soon, if there is a connection."""
        if self.link is not None:
            self.link.wake()

    @property
    def unanswered(self) -> int:
        """How many commands have no reply yet."""
        return 0 if self.link is None else self.link.unanswered

    async def open(self) -> Link:
        """Connect.

        Raises:
            LinkLost, ConfigurationError: as `Master.open`.
        """
        return await self._master.open(self._scripts, self._trials)

    async def run(self, link: Link | None) -> None:
        """Stay connected until cancelled.

        Args:
            link: the first connection, if there is one.
        """
        pause = _FIRST_PAUSE
        while True:
            began = trio.current_time()
            try:
                if link is None:
                    link = await self.open()
                await self._use(link)
            except (LinkLost, RedisError, Malformed, ConfigurationError) as error:
                # At the start, mistakes in the configuration were reported. Now it is the server that has
                # changed, and may change back.
                self._went_down(str(error))
            except Exception as error:  # what answered is not Redis, and nearly speaks as it does
                record_failure(error)
                self._went_down("an error in the engine")
            link = None
            if trio.current_time() - began > _STEADY_SECONDS:
                pause = _FIRST_PAUSE
            await trio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _use(self, link: Link) -> None:
        self.link = link
        self.generation += 1
        self._came_up(link)
        try:
            self._begin(link)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.send, functools.partial(self._fill, link))
                nursery.start_soon(self._notice_silence, link)
                nursery.start_soon(self._notice_failover, link)
                await link.receive(self._pushed)
        except BaseExceptionGroup as group:
            known, other = group.split((LinkLost, RedisError, Malformed))
            if other is None and known is not None:
                raise _first(known) from None
            if not isinstance(other, ExceptionGroup):
                raise (other or group) from None
            # A bug, or a reply that no server sends: another connection begins with a clean state.
            record_failure(_first(other))
            raise LinkLost("an error in the engine") from None
        finally:
            self.link = None
            with trio.CancelScope(shield=True):
                await link.aclose()
            self._end()

    async def _notice_silence(self, link: Link) -> None:
        period = self._timeout / 4
        while True:
            began = trio.current_time()
            await trio.sleep(period)
            now = trio.current_time()
            if now - began > 2 * period:
                continue  # it was this process that did not listen
            if now - link.quiet_since > self._timeout:
                raise LinkLost(f"{self._address} has not answered for {self._timeout:g} s")
            if not link.unanswered and now - link.heard_at > self._timeout / 2:
                link.ask(pack((b"PING",)), Ignored())

    async def _notice_failover(self, link: Link) -> None:
        await self._master.watch(link)
        raise LinkLost(f"{self._address}: {link.address} is no longer the master")

    def _came_up(self, link: Link) -> None:
        if link.eviction is not None:
            record(
                logging.WARNING,
                "redis.evicts",
                server=str(link.address),
                policy=link.eviction,
                hint="set maxmemory-policy to noeviction: rooms whose keys are removed have gaps",
            )
        if self._down_since is not None:
            seconds = round(trio.current_time() - self._down_since, 3)
            record(logging.INFO, "redis.up", server=str(link.address), after_seconds=seconds)
            self._down_since = None

    def _went_down(self, why: str) -> None:
        if self._down_since is None:
            self._down_since = trio.current_time()
            record(logging.WARNING, "redis.down", server=str(self._address), why=why)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
