"""Which web pages may open a connection: the Origin check (RFC 6455 §10.2).

A browser sends the page's origin with every opening handshake, and nothing else stops a foreign page from
connecting with the user's cookies. So a handshake that carries an Origin must come from the server's own
origin, or from one on the allow-list. Clients that are no browsers send none and are let through.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import attrs

from wsframework.errors import ConfigurationError
from wsframework.request import Request

__all__ = ["Origins"]

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


@attrs.frozen
class Origins:
    """The origins that may connect, besides the server's own.

    Attributes:
        allowed: normalised origins such as `https://example.com`.
        any: True lets every origin through.
    """

    allowed: frozenset[str] = frozenset()
    any: bool = False

    @classmethod
    def parse(cls, origins: str | Iterable[str]) -> Origins:
        """Read an allow-list: origins such as `https://example.com`, or `"*"` for all.

        Raises:
            ConfigurationError: an entry is no origin (a scheme and a host, perhaps a port, no path).
        """
        entries = [origins] if isinstance(origins, str) else list(origins)
        if "*" in entries:
            return cls(any=True)
        for entry in entries:
            if not _is_origin(entry):
                raise ConfigurationError(
                    f"{entry!r} is no origin: write scheme://host or scheme://host:port, with no path, no "
                    "slash at the end and no wildcard"
                )
        return cls(frozenset(_normal(entry) for entry in entries))

    def allow(self, request: Request) -> bool:
        """Whether the request's Origin, if it has one, may connect."""
        origin = request.origin
        if origin is None or self.any or _normal(origin) in self.allowed:
            return True
        return _same_host(origin, request.host)


def _is_origin(entry: object) -> bool:
    if not isinstance(entry, str):
        return False
    scheme, host, _ = _split(entry)
    return entry == "null" or bool(scheme and host and not set("/?#@*") & set(entry.partition("://")[2]))


def _normal(origin: str) -> str:
    scheme, host, port = _split(origin)
    return f"{scheme}://{host}" + (f":{port}" if port is not None else "") if host else origin.lower()


def _split(origin: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port; the port is None when it is the scheme's own."""
    try:
        parts = urlsplit(origin.lower())
        port = parts.port
    except ValueError:
        return "", "", None
    if port == _DEFAULT_PORTS.get(parts.scheme):
        port = None
    return parts.scheme, parts.hostname or "", port


def _same_host(origin: str, host_field: str) -> bool:
    # The scheme cannot be compared: behind a proxy that ends TLS we see http where the page saw https. So a
    # missing port in Host stands for the default port of the origin's scheme.
    scheme, host, port = _split(origin)
    if not host:
        return False
    _, own_host, own_port = _split(f"{scheme}://{host_field}")
    return (host, port) == (own_host, own_port)
