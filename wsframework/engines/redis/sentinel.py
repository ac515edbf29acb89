"""Where the master is: at a fixed address, or where sentinels say.

Sentinels watch a master and its replicas, and promote a replica when the master is gone. Whenever there is no
connection, they are asked anew, one after the other; the one that answered is asked first the next time.
While there is one, it is asked every second whether that server is still the master: an old master that was
cut off may go on answering until it learns of its end.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from wsframework.engines.redis.address import Address, RedisAddress, SentinelAddress
from wsframework.engines.redis.codec import Command, LinkLost
from wsframework.engines.redis.link import Link
from wsframework.engines.redis.login import locate, where
from wsframework.errors import ConfigurationError

__all__ = ["Master", "Sentinels"]

_LOOK_SECONDS = 1.0
"""How often a sentinel is asked. A failover takes longer: sentinels wait for `down-after-milliseconds`."""


class Sentinels:
    """Sentinels, the most promising first.

    Args:
        address: what a URL says of them.
    """

    def __init__(self, address: SentinelAddress) -> None:
        self.address = address
        self._order = list(address.sentinels)

    def order(self) -> Sequence[RedisAddress]:
        """Return in which order to ask them."""
        return tuple(self._order)

    def answered(self, sentinel: RedisAddress) -> None:
        """Ask this one first from now on."""
        self._order.remove(sentinel)
        self._order.insert(0, sentinel)

    def failure(self, errors: Sequence[Exception]) -> Exception:
        """Return what to raise because of these errors, one of each sentinel."""
        kind = ConfigurationError if any(isinstance(e, ConfigurationError) for e in errors) else LinkLost
        reasons = "; ".join(str(error) for error in errors)
        return kind(f"no sentinel says where the master {self.address.master!r} is: {reasons}")


class Master:
    """The server to connect to.

    Args:
        address: its address, or those of sentinels.
        timeout: seconds within which each server answers.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        self._address = address
        self._sentinels = Sentinels(address) if isinstance(address, SentinelAddress) else None
        self._timeout = timeout

    async def open(self, scripts: Sequence[bytes], trials: Sequence[Command]) -> Link:
        """Connect to it.

        Raises:
            LinkLost: it cannot be reached, or is no master now.
            ConfigurationError: something is wrong that trying again does not mend.

        Cancellation: the connection is closed.
        """
        if isinstance(self._address, RedisAddress):
            return await Link.open(self._address, self._timeout, scripts, trials)
        try:
            link, master = await self._ask()
            await link.aclose()
            return await Link.open(master, self._timeout, scripts, trials)
        except (LinkLost, ConfigurationError) as error:
            raise type(error)(f"{self._address}: {error}") from None

    async def watch(self, current: RedisAddress) -> None:
        """Return when another server is the master; never if there are no sentinels.

        That no sentinel answers is no reason: rooms need none while the master answers.

        Cancellation: nothing is left behind.
        """
        if self._sentinels is None:
            await trio.sleep_forever()
        link, master = None, current
        try:
            while master == current:
                await trio.sleep(_LOOK_SECONDS)
                try:
                    if link is None:
                        link, master = await self._ask()
                    else:
                        master = await self._ask_again(link)
                except (LinkLost, ConfigurationError):
                    if link is not None:
                        await link.aclose()
                    link = None
        finally:
            if link is not None:
                with trio.CancelScope(shield=True):
                    await link.aclose()

    async def _ask_again(self, link: Link) -> RedisAddress:
        assert self._sentinels is not None
        try:
            with trio.fail_after(self._timeout):
                return self._at(await link.take(where(link.address, self._sentinels.address.master)))
        except (trio.TooSlowError, trio.BrokenResourceError) as error:
            raise LinkLost(str(error)) from None

    async def _ask(self) -> tuple[Link, RedisAddress]:
        """Ask the sentinels; return a connection to the one that answered, and the master."""
        assert self._sentinels is not None
        errors: list[Exception] = []
        for sentinel in self._sentinels.order():
            steps = locate(sentinel, self._sentinels.address.master)
            try:
                # So that one which hangs leaves time for the next.
                link, found = await Link.follow(sentinel, self._timeout / 2, steps)
            except (LinkLost, ConfigurationError) as error:
                errors.append(error)
                continue
            self._sentinels.answered(sentinel)
            return link, self._at(found)
        raise self._sentinels.failure(errors)

    def _at(self, found: tuple[str, int]) -> RedisAddress:
        assert self._sentinels is not None
        return self._sentinels.address.at(*found)
