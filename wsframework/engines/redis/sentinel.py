"""Where the master is: at a fixed address, or where sentinels say.

Sentinels watch a master and its replicas, and promote a replica when the master is gone. Whenever there is no
connection, they are asked anew, one after the other, until one names a server that can be used: they may
disagree, because one was cut off, or tells host names that only it knows. That one is asked first the next
time. While there is a connection, it is asked every second whether that server is still the master, which it
may know by another name: an old master that was cut off may go on answering until it learns of its end.
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

    def succeeded(self, sentinel: RedisAddress) -> None:
        """Ask this one, which named a server that can be used, first from now on."""
        self._order.remove(sentinel)
        self._order.insert(0, sentinel)

    def failure(self, errors: Sequence[Exception]) -> Exception:
        """Return what to raise because of these errors, one of each sentinel."""
        kind = ConfigurationError if any(isinstance(e, ConfigurationError) for e in errors) else LinkLost
        reasons = "; ".join(dict.fromkeys(str(error) for error in errors))
        return kind(f"no sentinel leads to the master {self.address.master!r}: {reasons}")


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
        if self._sentinels is None:
            assert isinstance(self._address, RedisAddress)
            return await Link.open(self._address, self._timeout, scripts, trials)
        errors: list[Exception] = []
        masters: dict[RedisAddress, Exception] = {}
        for sentinel in self._sentinels.order():
            try:
                asked, master = await self._ask(sentinel)
                await asked.aclose()
            except (LinkLost, ConfigurationError) as error:
                errors.append(error)
                continue
            if master not in masters:
                try:
                    link = await Link.open(master, self._timeout, scripts, trials)
                except (LinkLost, ConfigurationError) as error:
                    masters[master] = error
                else:
                    self._sentinels.succeeded(sentinel)
                    return link
        failure = self._sentinels.failure([*masters.values()] or errors)
        raise type(failure)(f"{self._address}: {failure}")

    async def watch(self, link: Link) -> None:
        """Return when another server than that of a connection is the master; never without sentinels.

        That no sentinel answers is no reason: rooms need none while the master answers.

        Cancellation: nothing is left behind.
        """
        if self._sentinels is None:
            await trio.sleep_forever()
        asked: Link | None = None
        try:
            while True:
                await trio.sleep(_LOOK_SECONDS)
                try:
                    if asked is None:
                        asked, master = await self._ask_any()
                    else:
                        master = await self._ask_again(asked)
                except (LinkLost, ConfigurationError):
                    if asked is not None:
                        await asked.aclose()
                    asked = None
                    continue
                if not await _leads_to(link, master):
                    return
        finally:
            if asked is not None:
                with trio.CancelScope(shield=True):
                    await asked.aclose()

    async def _ask_again(self, link: Link) -> RedisAddress:
        assert self._sentinels is not None
        try:
            with trio.fail_after(self._timeout):
                return self._at(await link.take(where(link.address, self._sentinels.address.master)))
        except (trio.TooSlowError, trio.BrokenResourceError) as error:
            raise LinkLost(str(error)) from None

    async def _ask_any(self) -> tuple[Link, RedisAddress]:
        """Ask the sentinels; return a connection to the first one that answers, and the master."""
        assert self._sentinels is not None
        errors: list[Exception] = []
        for sentinel in self._sentinels.order():
            try:
                return await self._ask(sentinel)
            except (LinkLost, ConfigurationError) as error:
                errors.append(error)
        raise self._sentinels.failure(errors)

    async def _ask(self, sentinel: RedisAddress) -> tuple[Link, RedisAddress]:
        assert self._sentinels is not None
        # So that one which hangs leaves time for the next.
        link, found = await Link.follow(
            sentinel, self._timeout / 2, locate(sentinel, self._sentinels.address.master)
        )
        return link, self._at(found)

    def _at(self, found: tuple[str, int]) -> RedisAddress:
        assert self._sentinels is not None
        return self._sentinels.address.at(*found)


async def _leads_to(link: Link, address: RedisAddress) -> bool:
    """Whether an address is that of a connection's server, maybe by another name."""
    if address == link.address:
        return True
    try:
        found = await trio.socket.getaddrinfo(address.host, address.port, type=trio.socket.SOCK_STREAM)
    except OSError:
        # It could not be connected to now, and the server that answers may be the same.
        return True
    return link.peer in [place[:2] for *_, place in found]
