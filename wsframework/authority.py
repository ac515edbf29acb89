"""Host names and ports in the form of URIs (RFC 3986 §3.2), and the hosts that a server answers to.

A page can make its own host name resolve to an address of its visitor's machine or network: DNS rebinding.
Its requests then have the page's name in both `Host` and `Origin`, so that the two agree. A server that knows
its own names recognizes such requests and refuses them (421).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

import attrs
import idna

from wsframework.errors import ConfigurationError

__all__ = [
    "DEFAULT_PORTS",
    "LOOPBACK_HOSTS",
    "AllowedHosts",
    "Authority",
    "host_list",
    "is_host_field",
    "is_loopback",
    "parse_address",
    "parse_authority",
    "to_ascii",
]

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
"""The port of a URL that names none, by its scheme (RFC 9110 §4.2, RFC 6455 §3)."""

LOOPBACK_HOSTS = ("localhost", "*.localhost", "127.0.0.0/8", "[::1]")
"""What stands for this machine in any browser (RFC 6761 §6.3, RFC 1122 §3.2.1.3, RFC 4291 §2.5.3)."""

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# What browsers and tools send nearly always: labels of letters, digits, "-" and "_", and a port.
_PLAIN = re.compile(r"[0-9A-Za-z_\-]++(?:\.[0-9A-Za-z_\-]++)*+(?::[0-9]{1,4})?")
# reg-name is unreserved / pct-encoded / sub-delims (RFC 3986 §3.2.2); an empty label is no DNS name, and "."
# at the end is the root. "uri-host [ ":" port ]", and a port may be empty (RFC 9110 §7.2, RFC 3986 §3.2.3).
_LABEL = r"(?:[0-9A-Za-z\-_~!$&'()*+,;=]|%[0-9A-Fa-f]{2})++"
_AUTHORITY = re.compile(rf"(?:\[([0-9A-Fa-f:.]+)\]|({_LABEL}(?:\.{_LABEL})*+\.?))(?::([0-9]*+))?")


@attrs.frozen
class Authority:
    """A host and perhaps a port, in the one form that compares.

    Attributes:
        host: a name in lower case, or an address; an IPv6 address without its brackets.
        port: None when there is none.
    """

    host: str
    port: int | None = None


def parse_authority(text: str) -> Authority | None:
    """Read `host`, `host:port` or `[address]:port`; None when it is anything else, such as `user@host`."""
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        return None
    address, name, digits = found.groups()
    if address is not None:
        try:
            name = _as_browsers_write_it(ipaddress.IPv6Address(address))
        except ValueError:
            return None
    port = None
    if digits:
        # Not int() at once: it refuses thousands of digits in an error of its own.
        digits = digits.lstrip("0") or "0"
        if len(digits) > 5 or int(digits) > 65535:
            return None
        port = int(digits)
    return Authority(name.lower(), port)


def _as_browsers_write_it(address: ipaddress.IPv6Address) -> str:
    # From 3.13 on Python writes the IPv4 address in ::ffff:c000:201 with dots, browsers never do.
    if address.ipv4_mapped is None:
        return str(address)
    return "::ffff:{:x}:{:x}".format(*divmod(int(address.ipv4_mapped), 1 << 16))


def is_host_field(value: str) -> bool:
    """Whether `value` may stand in a Host field; it may be empty (RFC 9110 §7.2)."""
    return _PLAIN.fullmatch(value) is not None or not value or parse_authority(value) is not None


def is_loopback(host: str | None) -> bool:
    """Whether only this machine reaches what listens on `host`: an address, or a name such as `localhost`."""
    if not host:
        return False
    address = parse_address(host)
    if address is None:
        name = host.lower().removesuffix(".")
        return name == "localhost" or name.endswith(".localhost")
    return address.is_loopback


_KEPT_HOSTS, _KEPT_CHARACTERS = 128, 64
"""Of the hosts that requests have named, what is remembered: nearly all name the same few."""


@attrs.frozen
class AllowedHosts:
    """The hosts that a server answers to.

    Attributes:
        names: exact names and addresses, each with the port it needs (None: any).
        suffixes: what a name may end in, such as `.example.com`.
        networks: addresses that may stand in a URL themselves.
        any: True answers to every host.
    """

    names: frozenset[tuple[str, int | None]] = frozenset()
    suffixes: tuple[str, ...] = ()
    networks: tuple[_Network, ...] = ()
    any: bool = False
    _known: dict[tuple[str, bool], bool] = attrs.field(factory=dict, init=False, eq=False, repr=False)

    @classmethod
    def parse(cls, hosts: str | Iterable[str]) -> AllowedHosts:
        """Read a list of hosts.

        Args:
            hosts: names such as `chat.example`, `*.chat.example` for all names below one, addresses and
                networks such as `192.0.2.7`, `[::1]` and `10.0.0.0/8`, or `"*"` for every host. A name or
                address without a port goes with any port, one with a port only with that.

        Raises:
            ConfigurationError: an entry is none of these, or there is no entry.
        """
        entries = [hosts] if isinstance(hosts, str) else list(hosts)
        if not entries:
            raise ConfigurationError(
                "no host is allowed, so every request would be refused; name one, or '*'"
            )
        names: set[tuple[str, int | None]] = set()
        suffixes: list[str] = []
        networks: list[_Network] = []
        for entry in entries:
            if entry == "*":
                continue
            network = _network(entry)
            if network is not None:
                networks.append(network)
                continue
            wildcard = str(entry).startswith("*.")
            authority = _read_entry(entry.removeprefix("*.") if wildcard else entry)
            if authority is None or (
                wildcard and (authority.port is not None or parse_address(authority.host))
            ):
                raise ConfigurationError(
                    f"{entry!r} is no host: write a name such as 'chat.example', '*.chat.example' for all "
                    "names below it, or an address; no scheme, no path"
                )
            if wildcard:
                suffixes.append(f".{authority.host}")
            else:
                names.add((authority.host, authority.port))
        return cls(frozenset(names), tuple(suffixes), tuple(networks), "*" in entries)

    def allow(self, host: str, *, secure: bool) -> bool:
        """Whether the server answers to the value of a Host field.

        Args:
            host: `name`, `name:port`, or anything else, which is not allowed.
            secure: whether the request came over TLS; it decides which port a host without one means.
        """
        if self.any:
            return True
        # Nearly all requests name the same few hosts. Others are kept only if they are short, and not many.
        known = self._known.get((host, secure))
        if known is not None:
            return known
        allowed = self._look_up(host, secure)
        if len(host) <= _KEPT_CHARACTERS:
            if len(self._known) >= _KEPT_HOSTS:
                self._known.clear()
            self._known[host, secure] = allowed
        return allowed

    def _look_up(self, host: str, secure: bool) -> bool:
        authority = parse_authority(host)
        if authority is None:
            return False
        name = authority.host.removesuffix(".")
        if (name, None) in self.names or name.endswith(self.suffixes):
            return True
        # Without TLS a proxy may have ended it, so a host without a port may mean either.
        ports = ((443,) if secure else (80, 443)) if authority.port is None else (authority.port,)
        if any((name, port) in self.names for port in ports):
            return True
        if not self.networks:
            return False
        address = parse_address(name)
        return address is not None and any(address in network for network in self.networks)


def _read_entry(entry: object) -> Authority | None:
    """Read a host of a list that a person wrote: names in any script, IPv6 addresses without brackets."""
    if not isinstance(entry, str) or "*" in entry:
        return None
    address = parse_address(entry)
    if address is not None:
        return Authority(str(address))
    authority = parse_authority(to_ascii(entry))
    return None if authority is None else attrs.evolve(authority, host=authority.host.removesuffix("."))


def to_ascii(host: str) -> str:
    """Return a host as it stands in a request: names in other scripts as A-labels (RFC 5890 §2.3.2.1)."""
    if host.isascii():
        return host
    name, colon, port = host.partition(":")
    try:
        # As browsers do it (UTS #46, which the URL Standard asks for).
        return idna.encode(name, uts46=True).decode("ascii") + colon + port
    except idna.IDNAError:
        return host  # the caller refuses what is not a name


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an IP address, an IPv6 address with or without brackets; None when it is anything else.

    An IPv4 address inside an IPv6 address (`::ffff:192.0.2.1`, RFC 4291 §2.5.5.2) is returned as itself.
    """
    try:
        address = ipaddress.ip_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _network(entry: object) -> _Network | None:
    if not isinstance(entry, str) or "/" not in entry:
        return None
    try:
        return ipaddress.ip_network(entry)
    except ValueError:
        return None


def host_list(hosts: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """Return hosts as a user may give them, one or several, as a tuple; None stays None.

    Raises:
        ConfigurationError: it is neither.
    """
    if not (hosts is None or isinstance(hosts, Iterable)):
        raise ConfigurationError(f"allowed hosts are a list of texts such as 'chat.example', not {hosts!r}")
    return (hosts,) if isinstance(hosts, str) else None if hosts is None else tuple(hosts)
