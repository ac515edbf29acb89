"""The limits on connections. Each is counted from the accepted socket to the end of its handler.

A connection over a limit is refused, and the number of refusals in progress has a limit of its own. A TLS
handshake in flight costs a client nothing and the server 45 KiB. When there are too many, the oldest one is
closed: an honest client needs two round trips, and the oldest handshake has had more time than that. If the
newest one were refused instead, a client that holds all handshakes open would shut out all other clients.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

import trio

from wsframework.authority import parse_address
from wsframework.config import Limits
from wsframework.forwarded import Proxies
from wsframework.observer import Observer
from wsframework.records import record
from wsframework.request import Address
from wsframework.server.descriptors import descriptor_limit, room_for_connections
from wsframework.server.heap import give_back_memory
from wsframework.server.networks import network_of
from wsframework.server.rated import RatedRecord
from wsframework.timers import Timers

__all__ = ["Admission", "Handshake"]

_REFUSALS_AT_ONCE = 64
"""Connections over the limit that get an answer at the same time. Each may take the close timeout, so without
this limit they would be a way around the other one. Further ones are closed without an answer."""

_STORM = 200
"""Fewer connections leave less than 10 MB behind, which is not worth a search of the heap."""

_CALM_SECONDS = 2.0
"""The memory of a storm is given back this long after three quarters of its connections have closed."""


class Handshake(Protocol):
    """A TLS handshake in flight."""

    def make_room(self) -> None:
        """End, unless the bytes that have come complete it; `end_handshake` is called in both cases."""


class _InScope:
    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope

    def make_room(self) -> None:
        self._scope.cancel(reason="there are too many TLS handshakes")


class Admission:
    """The connections of one server, counted.

    Attributes:
        open: connections now, including those in their handshake and those whose handler is in its grace, and
            code that runs on although its client has been answered.
        accepted: connections since the start, including refused ones.
        refused: how many of them were refused, over a limit or for lack of descriptors.
    """

    def __init__(
        self, limits: Limits, timers: Timers, observer: Observer, proxies: Proxies | None = None
    ) -> None:
        self.open = 0
        self.accepted = 0
        self.refused = 0
        self._limits = limits
        self._timers = timers
        self._observer = observer
        self._proxies = proxies
        self._connections = limits.connections
        self._by_network: Counter[str | bytes] = Counter()
        self._refusing = 0
        self._handshakes: dict[Handshake, None] = {}
        self._empty: trio.Event | None = None
        self._peak = 0
        self._giving_back = False
        self._shortages = RatedRecord(timers, logging.ERROR, "server.out_of_resources")

    def fit_descriptors(self, *, known: bool = False) -> None:
        """Lower the limit of connections to the file descriptors that there are, and log it.

        Args:
            known: whether it has been logged, by another process; then it is for debugging only.
        """
        wanted, room = self._limits.connections, room_for_connections()
        if room is None or (wanted is not None and wanted <= room):
            return
        self._connections = room
        # A default that is slightly too high deserves no warning.
        slight = wanted is not None and room >= 0.9 * wanted
        record(
            logging.DEBUG if slight or known else logging.WARNING,
            "server.connections_limited",
            connections=room,
            wanted="no limit" if wanted is None else wanted,
            descriptors=descriptor_limit(),
        )

    # Connections

    @property
    def is_full(self) -> bool:
        """Whether a new connection would be over `Limits.connections`, or over what descriptors allow."""
        return self._connections is not None and self.open >= self._connections

    def admit(self, remote: Address) -> bool:
        """Count a new connection; return False if it is over a limit."""
        self.accepted += 1
        if self._connections is not None and self.open >= self._connections:
            self.refused += 1
            return False
        if self._limits.connections_per_address is not None and not self._enter(remote):
            self.refused += 1
            return False
        self.open += 1
        if self.open > self._peak:
            self._peak = self.open
        return True

    def identify(self, client: Address) -> bool:
        """Count the client of an admitted connection whose peer is a trusted proxy, unless it has too many.

        The proxy itself was not counted. If this returns True, the connection is to depart as `client`.
        """
        if self._limits.connections_per_address is None or self._enter(client):
            return True
        self.refused += 1
        self._observer.connection_refused(client)
        return False

    def forget(self, client: Address) -> None:
        """Take note that a trusted proxy's connection is no longer this client's."""
        if self._limits.connections_per_address is not None:
            network = self._network(client)
            if network is not None:
                self._by_network[network] -= 1
                if not self._by_network[network]:
                    del self._by_network[network]

    def linger(self, remote: Address) -> None:
        """Count code that runs on without its connection, as the connection was counted; it departs too."""
        self.open += 1
        if self._limits.connections_per_address is not None:
            network = self._network(remote)
            if network is not None:
                self._by_network[network] += 1

    def _enter(self, remote: Address) -> bool:
        network = self._network(remote)
        if network is None:
            return True
        crowded = self._limits.connections_per_address
        if crowded is not None and self._by_network[network] >= crowded:
            return False
        self._by_network[network] += 1
        return True

    def _network(self, remote: Address) -> str | bytes | None:
        """Return what the connections of an address are counted by; None if they are not."""
        if self._proxies is not None and self._proxies.trusts(remote):
            return None
        # A unix socket has no port; nor has a client whose proxy names none, but that one has an address.
        if remote.port is None and parse_address(remote.host) is None:
            return None
        return network_of(remote.host, self._limits)

    def depart(self, remote: Address) -> None:
        """Count an admitted connection as gone."""
        self.open -= 1
        self.forget(remote)
        if not self.open and self._empty is not None:
            self._empty.set()
        if self.open * 4 < self._peak:
            self._storm_is_over()

    async def wait_empty(self) -> None:
        """Wait until no connection is open; for one task at a time."""
        while self.open:
            self._empty = trio.Event()
            await self._empty.wait()

    # Refusals

    def turn_away(self) -> Literal[False]:
        """Count a connection that is refused for another reason than the limits."""
        self.accepted += 1
        self.refused += 1
        return False

    def begin_refusal(self, remote: Address) -> bool:
        """Tell observers of a refused connection; return whether there is room to answer its client."""
        self._observer.connection_refused(remote)
        if self._refusing >= _REFUSALS_AT_ONCE:
            return False
        self._refusing += 1
        return True

    def end_refusal(self) -> None:
        """Take note that a refused connection was answered and closed."""
        self._refusing -= 1

    def short_of(self, error: OSError | MemoryError) -> None:
        """Log that the system had no resources for a connection."""
        text = error.strerror if isinstance(error, OSError) else "out of memory"
        self._shortages.write(error=text, connections=self.open)

    # TLS handshakes in flight

    def begin_handshake(self, handshake: Handshake) -> None:
        """Count a TLS handshake whose first bytes have come; close the oldest one if there are too many."""
        limit = self._limits.tls_handshakes
        while limit is not None and len(self._handshakes) >= limit:
            oldest = next(iter(self._handshakes))
            oldest.make_room()
            self._handshakes.pop(oldest, None)
        self._handshakes[handshake] = None

    def end_handshake(self, handshake: Handshake) -> None:
        """Stop counting a handshake that is complete or lost. One that was never counted is ignored."""
        self._handshakes.pop(handshake, None)

    @contextmanager
    def handshaking(self, scope: trio.CancelScope) -> Iterator[None]:
        """Count the block as a TLS handshake; `scope`, which encloses it, is cancelled to make room."""
        handshake = _InScope(scope)
        self.begin_handshake(handshake)
        try:
            yield
        finally:
            self.end_handshake(handshake)

    # Memory

    def _storm_is_over(self) -> None:
        if self._peak >= _STORM and not self._giving_back:
            self._giving_back = True
            self._timers.after(_CALM_SECONDS, self._give_back)
        elif self._peak < _STORM:
            self._peak = self.open

    def _give_back(self) -> None:
        self._giving_back = False
        self._peak = self.open
        give_back_memory()
