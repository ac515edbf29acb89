"""Whom a request comes from behind a proxy: the header fields in which proxies name their clients.

X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host are a convention; Forwarded (RFC 7239) says the same
in one field. A proxy overwrites such a field, or adds what it has seen at its right end, behind what its own
peer has sent. So only the right end is known to come from a proxy, and fields are read from there:

    X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.0.0.2        from the peer 10.0.0.1; 10.0.0.0/8 is trusted
                     forged   the client   a trusted hop

The peer is trusted, so the last entry is true: its own peer was 10.0.0.2. This one is trusted too, so the
entry before is true: 203.0.113.9, which is not trusted. What stands left of it may be the client's invention.

A proxy passes on the fields that it does not write (nginx: Forwarded and X-Forwarded-Host, unless it is told
otherwise). So a field is read only if the operator has named it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence

import attrs

from wsframework.authority import parse_address
from wsframework.errors import ConfigurationError
from wsframework.request import Address
from wsframework.tokens import TOKEN

__all__ = ["DEFAULT_FIELDS", "UNKNOWN", "Client", "Proxies"]

DEFAULT_FIELDS = ("x-forwarded-for", "x-forwarded-proto")
"""What nearly every proxy writes, or is told to write in the configurations that its users copy."""

UNKNOWN = Address("unknown")
"""A client whose address its proxy does not know. It is not the proxy, so it is never trusted."""

_FOR, _PROTO, _HOST = _CONVENTION = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")
_STANDARD = "forwarded"

_SECURE = {"https": True, "wss": True, "http": False, "ws": False}

_LONGEST_HOP_CHARS = 64  # "[", 45 of an IPv6 address with an IPv4 address in it, "]:65535"

_NetworkT = ipaddress.IPv4Network | ipaddress.IPv6Network
_AddressT = ipaddress.IPv4Address | ipaddress.IPv6Address

# "node-port = port / obfport" (RFC 7239 §6). An IPv6 address needs brackets only when a port follows.
_HOP = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%[^\]]+)?)\]|([0-9.]+))(?::(?:([0-9]{1,5})|_[0-9A-Za-z._\-]+))?")

_UNIX_HOP = "unix:"
"""What nginx writes, as `$remote_addr`, for a peer on a unix socket of its own. HAProxy writes an empty
element, as `%[src]`."""

# A value that is no token should be quoted, but "for=[::1]:80" without quotes is common, and has one meaning.
_PAIR = rf"""({TOKEN})=([^\s",;\\]++|"(?:[^"\\]|\\.)*+")"""
_ELEMENT = re.compile(rf"[ \t]*+(?:{_PAIR})?(?:[ \t]*+;[ \t]*+(?:{_PAIR})?)*+[ \t]*+")
_PAIRS = re.compile(_PAIR)
_QUOTED_PAIR = re.compile(r"\\(.)")

_Hop = tuple[str, str | None, str | None]
"""What one proxy says of its client: the address, the scheme, the host."""


@attrs.frozen
class Client:
    """Whom a request comes from, as far as trusted proxies say.

    Attributes:
        remote: the address of the first one that is not trusted, or of the last hop that is known. It has no
            port if the proxy names none.
        secure: whether the client's own connection, to the outermost proxy, is TLS.
        host: the host that the client asked for, or None if no field says so.
        local: whether it is the proxy itself that has connected, as it says with the PROXY protocol. It may
            have a client all the same: HAProxy says so of those on a unix socket.
    """

    remote: Address
    secure: bool
    host: str | None = None
    local: bool = False


@attrs.frozen
class Proxies:
    """The proxies that are believed, and the fields in which they are.

    Attributes:
        networks: where they are.
        unix: whether peers on unix sockets are among them, ours and other proxies'.
        fields: names of the header fields that are read, in lower case.
    """

    networks: tuple[_NetworkT, ...] = ()
    unix: bool = False
    fields: frozenset[str] = frozenset(DEFAULT_FIELDS)

    @classmethod
    def parse(cls, trusted: str | Iterable[str], fields: str | Iterable[str] = DEFAULT_FIELDS) -> Proxies:
        """Read what a user has written.

        Args:
            trusted: networks (`10.0.0.0/8`), addresses (`192.0.2.1`, `::1`), and `unix` for unix sockets.
            fields: `x-forwarded-for`, `x-forwarded-proto` and `x-forwarded-host`, or `forwarded` alone.

        Raises:
            ConfigurationError: an entry is nothing of the kind, or fields are named that could disagree.
        """
        entries = _list_of(trusted, "trusted_proxies")
        return cls(
            networks=tuple(_network(entry) for entry in entries if entry != "unix"),
            unix="unix" in entries,
            fields=_check_fields(_list_of(fields, "proxy_fields")),
        )

    def extended(self, trusted: Iterable[str], fields: Iterable[str] | None = None) -> Proxies:
        """Return these and more proxies; the fields replace these, unless they are None.

        Raises:
            ConfigurationError: as for `parse`; or fields are named, and no proxy.
        """
        more = self.parse(trusted, self.fields if fields is None else fields)
        all_of_them = attrs.evolve(more, networks=self.networks + more.networks, unix=self.unix or more.unix)
        if fields is not None and not all_of_them.any:
            raise ConfigurationError(
                "a field of trusted proxies is named, and no proxy is, so it would not be read: write "
                "App(trusted_proxies=[…]) or --trusted-proxy NET"
            )
        return all_of_them

    @property
    def any(self) -> bool:
        """Whether a proxy is trusted at all."""
        return self.unix or bool(self.networks)

    def trusts(self, peer: Address) -> bool:
        """Whether what this peer says of its own client is believed."""
        address = parse_address(peer.host)
        if address is None:
            return self.unix and peer.port is None and peer != UNKNOWN
        return self._is_trusted(address)

    def _is_trusted(self, address: _AddressT) -> bool:
        return any(address in network for network in self.networks)

    def client_of(self, peer: Address, headers: Sequence[tuple[str, str]], *, secure: bool) -> Client:
        """Return whom a request comes from.

        Args:
            peer: the other end of the connection, which is trusted.
            headers: the request's fields, with names in lower case.
            secure: whether the connection with the peer is TLS.
        """
        remote, host = peer, None
        for name, scheme, own_host in self._hops(headers):
            # What the outer proxy leaves out, the inner ones may have passed on.
            secure = _SECURE.get((scheme or "").lower(), secure)
            host = own_host or host
            if name == _UNIX_HOP and self.unix:
                continue
            hop = _parse_hop(name)
            if hop is None:
                break  # hidden on purpose, or no address
            address, port = hop
            # "fe80::1%eth0": the zone is the proxy's, and no other machine's.
            remote = Address(str(address).partition("%")[0], port)
            if not self._is_trusted(address):
                break
        return Client(remote, secure, host)

    def _hops(self, headers: Sequence[tuple[str, str]]) -> Iterator[_Hop]:
        """Return what each proxy says, from ours outward; the first one always says something."""
        if _STANDARD in self.fields:
            return _read_forwarded([value for name, value in headers if name == _STANDARD])
        return _read_convention(
            *(_elements(headers, name) if name in self.fields else [] for name in _CONVENTION)
        )


def _elements(headers: Sequence[tuple[str, str]], name: str) -> list[str]:
    """Return the elements of a list field in all its lines, from the right.

    Empty ones too, though lists of RFC 9110 have none: if that is what a proxy has added, then the element
    left of it is its client's.
    """
    return [part.strip(" \t") for key, value in headers if key == name for part in value.split(",")][::-1]


def _read_convention(clients: list[str], schemes: list[str], hosts: list[str]) -> Iterator[_Hop]:
    # Proxies that append write one element each, so those at one place belong together. Others overwrite what
    # was there, or pass on what the outer proxy wrote: then there is one element for all.
    for place, client in enumerate(clients or ["unknown"]):
        yield (
            client or _UNIX_HOP,
            schemes[place] if place < len(schemes) else None,
            hosts[place] if place < len(hosts) else None,
        )


def _read_forwarded(lines: list[str]) -> Iterator[_Hop]:
    """Read the elements of Forwarded from the right, up to one that is malformed.

    From the right here too: a client that leaves a quoted string open must not change what the proxies behind
    it have written. Only one comma can be the one before the last element, because no element has an unquoted
    comma in it, and no quoted string an unquoted quotation mark. Each try to read ends at the next comma that
    it cannot read over, so all together take linear time.
    """
    for line in reversed(lines):
        end = len(line)
        while end >= 0:
            start = line.rfind(",", 0, end)
            while _ELEMENT.fullmatch(line, start + 1, end) is None:
                if start < 0:
                    return
                start = line.rfind(",", 0, start)
            pairs = _PAIRS.findall(line, start + 1, end)
            end = start
            if not pairs:
                continue
            values = {name.lower(): _unquote(value) for name, value in pairs}
            # "Each parameter MUST NOT occur more than once per field-value" (RFC 7239 §4).
            if len(values) < len(pairs):
                return
            yield values.get("for", ""), values.get("proto"), values.get("host")


def _unquote(value: str) -> str:
    return _QUOTED_PAIR.sub(r"\1", value[1:-1]) if value.startswith('"') else value


def _parse_hop(text: str) -> tuple[_AddressT, int | None] | None:
    """Read `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`; None for anything else."""
    if len(text) > _LONGEST_HOP_CHARS:
        return None
    found = _HOP.fullmatch(text)
    port = None
    if found is not None:
        text, digits = found[1] or found[2], found[3]
        port = int(digits) if digits else None
        if port is not None and port > 65535:
            return None
    address = parse_address(text)
    return None if address is None else (address, port or None)


def _list_of(entries: str | Iterable[str], what: str) -> list[str]:
    if not isinstance(entries, Iterable):
        raise ConfigurationError(f"{what} is a list of texts, not {entries!r}")
    return [entries] if isinstance(entries, str) else list(entries)


def _check_fields(fields: list[str]) -> frozenset[str]:
    names = frozenset(str(field).lower() for field in fields)
    for name in names:
        if name not in (*_CONVENTION, _STANDARD):
            raise ConfigurationError(
                f"{name!r} is no field in which proxies name clients: write {', '.join(_CONVENTION)}, or "
                f"{_STANDARD}"
            )
    if not names:
        raise ConfigurationError("proxy_fields is empty, so trusted proxies could say nothing: name a field")
    if _STANDARD in names and len(names) > 1:
        # A proxy writes the one and passes the client's own other one through.
        raise ConfigurationError(
            f"{_STANDARD!r} says what the others say: if your proxies write it, name it alone"
        )
    return names


def _network(entry: object) -> _NetworkT:
    if not isinstance(entry, str):
        raise ConfigurationError(f"a trusted proxy is a text such as '10.0.0.0/8', not {entry!r}")
    if "%" in entry:
        # Neither a peer's address nor an entry of a field has one that could be compared.
        raise ConfigurationError(
            f"{entry!r} has a zone, but its address would be trusted on every link; if it should be, leave "
            "the zone out"
        )
    try:
        # A socket for both families shows IPv4 peers without the prefix.
        address = parse_address(entry)
        network = ipaddress.ip_network(entry if address is None else address)
    except ValueError as error:
        why = "has bits behind its prefix" if "host bits" in str(error) else "is no network and no address"
        raise ConfigurationError(
            f"{entry!r} {why}: write trusted proxies as '10.0.0.0/8', '192.0.2.1' or '::1', and 'unix' for "
            "those that connect to a unix socket"
        ) from None
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            network = ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    if not network.prefixlen:
        raise ConfigurationError(
            f"{entry!r} is everyone: any client could claim any address; name the proxies"
        )
    return network
