"""Rate limits for clients: token buckets without a clock of their own, one for each connection and address.

A client that comes back on a new connection has a full bucket there, so what counts in the long run is the
bucket of its address.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import attrs

from wsframework import Address, Close

__all__ = ["CONNECTIONS_PER_ADDRESS", "Rate", "Throttle", "Visit", "Visitors"]

CONNECTIONS_PER_ADDRESS = 100

logger = logging.getLogger("wsframework.chat")

_IPV6_PREFIX_BITS = 64
"""What a provider assigns to one customer at least. All its addresses are one (see `Limits`)."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""All of IPv4, where a translator stands before the server (RFC 6052 §2.1)."""


@attrs.frozen(kw_only=True)
class Rate:
    """How many requests a connection, or all connections of an address, may make.

    Attributes:
        per_second: requests per second in the long run. 20; a fast typist with typing notices makes 3.
        burst: requests at once after a quiet time. 60; a page that reconnects to 20 rooms makes 21.
        tolerance: requests over the rate that are refused with an answer before the connection is closed
            with 1008. The count restarts when the client has been quiet long enough for a full burst.
    """

    per_second: float = attrs.field(default=20.0, validator=attrs.validators.gt(0))
    burst: int = attrs.field(default=60, validator=attrs.validators.ge(1))
    tolerance: int = attrs.field(default=60, validator=attrs.validators.ge(0))

    def for_addresses(self) -> Rate:
        """Return the rate of an address whose connections have this one: three busy ones, or five bursts."""
        return attrs.evolve(self, per_second=3 * self.per_second, burst=5 * self.burst)


class Throttle:
    """The rate limit of one connection or address."""

    __slots__ = ("_at", "_rate", "_refused", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._tokens = float(rate.burst)
        self._at = now
        self._refused = 0

    def take(self, now: float) -> float:
        """Ask for one request at the moment `now`, in seconds.

        Returns:
            0.0 when it may go ahead, else the seconds after which one may.
        """
        rate = self._rate
        self._tokens = min(rate.burst, self._tokens + (now - self._at) * rate.per_second)
        self._at = now
        if self._tokens >= rate.burst:
            self._refused = 0
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        self._refused += 1
        return (1 - self._tokens) / rate.per_second

    def refuse(self) -> None:
        """Count a request as refused that something else than this rate forbids."""
        self._refused += 1

    def is_full(self, now: float) -> bool:
        """Whether it has been quiet for long enough for a full burst."""
        return self._tokens + (now - self._at) * self._rate.per_second >= self._rate.burst

    @property
    def exhausted(self) -> bool:
        """Whether more requests were refused than the rate tolerates."""
        return self._refused > self._rate.tolerance


@attrs.define(eq=False)
class _Visitor:
    """What is known of an address."""

    throttle: Throttle
    connections: int = 0


class Visit:
    """One connection and its rate limits: its own, and that of its address if it has one."""

    def __init__(self, own: Throttle, shared: Throttle | None) -> None:
        self._own = own
        self._shared = shared

    def take(self, now: float) -> float:
        """Ask for one request, as `Throttle.take` does."""
        wait = self._own.take(now)
        if not wait and self._shared is not None:
            wait = self._shared.take(now)
            if wait:
                self._own.refuse()
        return wait

    @property
    def exhausted(self) -> bool:
        """Whether more of the connection's requests were refused than its rate tolerates."""
        return self._own.exhausted


class Visitors:
    """All connections, counted by address. Unix sockets have none.

    Args:
        rate: of each connection.
        address_rate: of all connections of an address together. A new connection counts as one request.
        connections: how many an address may have at once, or None.
    """

    def __init__(self, rate: Rate, address_rate: Rate, connections: int | None) -> None:
        self._rate = rate
        self._address_rate = address_rate
        self._connections = connections
        self._visitors: dict[str, _Visitor] = {}
        # Without connections, the one that left last at the end: forgotten when their buckets are full.
        self._gone: dict[str, None] = {}
        self._has_warned = False

    def __len__(self) -> int:
        return len(self._visitors)

    @contextmanager
    def visit(self, address: Address, now: float) -> Iterator[Visit]:
        """Count a connection for as long as the block lasts.

        Raises:
            Close: its address has too many, or makes too many requests.
        """
        own, network = Throttle(self._rate, now), _network(address)
        if network is None:
            yield Visit(own, None)
            return
        self._forget(now)
        visitor = self._visitors.get(network)
        if visitor is None:
            visitor = self._visitors[network] = _Visitor(Throttle(self._address_rate, now))
        self._gone.pop(network, None)
        visitor.connections += 1
        try:
            if self._connections is not None and visitor.connections > self._connections:
                self._refuse("connections", network)
            if visitor.throttle.take(now):
                self._refuse("requests", network)
            yield Visit(own, visitor.throttle)
        finally:
            visitor.connections -= 1
            if not visitor.connections:
                self._gone[network] = None

    def _refuse(self, what: str, network: str) -> NoReturn:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "the chat refuses clients: too many %s from %s; if that is a proxy, the server must trust it",
                what,
                network,
            )
        raise Close(1008, f"too many {what} from your address")

    def _forget(self, now: float) -> None:
        while self._gone:
            network = next(iter(self._gone))
            if not self._visitors[network].throttle.is_full(now):
                return
            del self._gone[network], self._visitors[network]


def _network(address: Address) -> str | None:
    """Return what an address is counted by, or None if it is a unix socket."""
    try:
        ip = ipaddress.ip_address(address.host)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    embedded = _embedded(ip)
    if embedded is not None:
        return str(embedded)
    # The prefix of a link is shared by all of its hosts.
    bits = 128 if ip.is_link_local else _IPV6_PREFIX_BITS
    return str(ipaddress.ip_network((int(ip), bits), strict=False))


def _embedded(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that stands for its client, as the server counts it (see `Limits`)."""
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
