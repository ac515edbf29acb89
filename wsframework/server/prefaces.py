"""The beginning of a connection if proxies announce their clients: a header of the PROXY protocol.

It comes before TLS, and the limits on the time and size of a handshake include it. The peer must be a trusted
proxy, because any other peer could claim any address. Other peers, and malformed or missing headers, are
refused without an answer. This is logged at a limited rate: the usual reason is a wrong setting.
"""

from __future__ import annotations

import logging
from typing import Protocol

from wsframework.errors import HandshakeError
from wsframework.forwarded import UNKNOWN, Client, Proxies
from wsframework.proxy_protocol import ProxyHeader, ProxyHeaderReader
from wsframework.request import Address, Response
from wsframework.server.admission import Admission
from wsframework.server.opening import crowded_response
from wsframework.server.rated import RatedRecord
from wsframework.timers import Timers

__all__ = ["Preface", "Prefaces"]


class _Incoming(Protocol):
    remote: Address
    secure: bool
    client: Client | None

    def answer(self, response: Response) -> None:
        """Answer in HTTP and end the connection."""

    def abort(self) -> None:
        """Close the connection without an answer."""


class Prefaces:
    """The headers of a server whose connections all begin with one.

    Args:
        proxies: who may connect.
        admission: counts the clients that are announced.
        timers: for the record's rate.
        max_bytes: the most that one header may have.
    """

    def __init__(self, proxies: Proxies, admission: Admission, timers: Timers, max_bytes: int) -> None:
        self._proxies = proxies
        self._admission = admission
        self._max_bytes = max_bytes
        self._refusals = RatedRecord(timers, logging.WARNING, "proxy.refused")

    def welcome(self, peer: Address) -> bool:
        """Whether a peer may announce clients; one that may not is counted as refused."""
        if self._proxies.trusts(peer):
            return True
        self._admission.turn_away()
        self.refuse(peer, "it is not a trusted proxy, and this port is for those only")
        return False

    def refuse(self, peer: Address, error: str) -> None:
        """Log why a connection is closed."""
        self._refusals.write(remote=peer, error=error)

    def begin(self) -> Preface:
        """Begin to read the header of one connection."""
        return Preface(self, self._admission, ProxyHeaderReader(self._max_bytes))


class Preface:
    """The header of one connection.

    Attributes:
        complete: whether it is read.
    """

    __slots__ = ("_admission", "_prefaces", "_reader", "complete")

    def __init__(self, prefaces: Prefaces, admission: Admission, reader: ProxyHeaderReader) -> None:
        self.complete = False
        self._prefaces = prefaces
        self._admission = admission
        self._reader = reader

    @property
    def wants(self) -> int:
        """How many bytes may be read next, at most: what follows is for TLS or HTTP."""
        return self._reader.wants

    def take(self, incoming: _Incoming, data: bytes | bytearray) -> bool:
        """Take what was read; return whether the connection continues. If not, it was answered or aborted.

        Once the header is complete, `incoming` has the client's address.
        """
        if not data:
            incoming.abort()  # a probe, or a proxy's health check: not logged
            return False
        try:
            header = self._reader.feed(bytes(data))
        except HandshakeError as error:
            self._prefaces.refuse(incoming.remote, str(error))
            incoming.abort()
            return False
        if header is None:
            return True
        self.complete = True
        if header.local:
            incoming.client = Client(incoming.remote, incoming.secure, local=True)
            return True
        return self._introduce(incoming, header)

    def _introduce(self, incoming: _Incoming, header: ProxyHeader) -> bool:
        remote = UNKNOWN if header.source is None else header.source
        if not self._admission.identify(remote):
            if incoming.secure:
                incoming.abort()  # an answer would cost a handshake
            else:
                incoming.answer(crowded_response())
            return False
        incoming.remote, incoming.client = remote, Client(remote, header.secure or incoming.secure)
        return True
