"""Which web pages may open a connection, or send a form: the Origin check (RFC 6455 §10.2).

A browser sends the page's origin with every opening handshake, and nothing else stops a foreign page from
connecting with the user's cookies. So a handshake that carries an Origin must come from the server's own
origin, or from one on the allow-list. Clients that are no browsers send none and are let through.

A foreign page can also send forms, and a browser sends the page's origin with each of them, as with every
request that is no GET or HEAD. It says in Sec-Fetch-Site besides how the page and this server are related
(Fetch Metadata §2.4), and no page can change that. The server's own pages, and clients that send neither, may
send any request; others only those that change nothing.

An origin is `scheme "://" host [ ":" port ]` or `null` (RFC 6454 §6.2, §7.1). What is anything else, with
userinfo or a path or two origins in one field, was not written by a browser and is no origin at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from wsframework.authority import DEFAULT_PORTS, is_host_field, parse_authority, to_ascii
from wsframework.errors import ConfigurationError
from wsframework.request import Request

__all__ = ["Origins"]

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""They change nothing (RFC 9110 §9.2.1), and links, images and preflight requests need them."""

_SCHEME = re.compile(r"[a-z][a-z0-9+\-.]*+")


@attrs.frozen
class _Origin:
    """A scheme, a host and a port; the port is None when it is the scheme's own, or there is none."""

    scheme: str
    host: str
    port: int | None


@attrs.frozen
class Origins:
    """The origins that may connect, besides the server's own.

    Attributes:
        allowed: the origins, `"null"` among them when opaque ones are allowed.
        any: True lets every origin through.
    """

    allowed: frozenset[_Origin | str] = frozenset()
    any: bool = False

    @classmethod
    def parse(cls, origins: str | Iterable[str]) -> Origins:
        """Read an allow-list: origins such as `https://example.com`, `"null"`, or `"*"` for all.

        Raises:
            ConfigurationError: an entry is no origin (a scheme and a host, perhaps a port, no path), or
                this is no list of entries.
        """
        if not isinstance(origins, Iterable):
            raise ConfigurationError(
                f"origins is a list of texts such as 'https://app.example', or \"*\" for all, not {origins!r}"
            )
        entries = [origins] if isinstance(origins, str) else list(origins)
        if "*" in entries:
            return cls(any=True)
        allowed: set[_Origin | str] = set()
        for entry in entries:
            origin = _read_entry(entry)
            if origin is None:
                raise ConfigurationError(
                    f"{entry!r} is no origin: write scheme://host or scheme://host:port, with no path, no "
                    "slash at the end and no wildcard"
                )
            allowed.add(origin)
        return cls(frozenset(allowed))

    def allow_http(self, request: Request) -> bool:
        """Whether the page that a plain HTTP request comes from, if it does, may send it."""
        if request.method in _SAFE_METHODS or self.any:
            return True
        origin = request.origin
        match request.headers.get("sec-fetch-site"):
            case "cross-site" | "same-site":
                # The browser knows better than a comparison with Host: behind a proxy the scheme is missing.
                return origin is not None and _read(origin) in self.allowed
            case "same-origin" | "none" if origin == "null":
                # "if request's referrer policy is "no-referrer", then set serializedOrigin to `null`" (Fetch
                # §3.2): it may be a page of our own.
                return True
            case _:
                return self.allow(request)

    def allow(self, request: Request) -> bool:
        """Whether the request's Origin, if it has one, may connect."""
        text = request.origin
        if text is None or self.any:
            return True
        host = request.host
        # What a browser sends for the server's own page: the scheme, and what is in Host.
        if (text == f"https://{host}" or (text == f"http://{host}" and not request.secure)) and host:
            return is_host_field(host)
        origin = _read(text)
        if origin is None:
            return False
        return origin in self.allowed or (isinstance(origin, _Origin) and _is_own(origin, request))


def _read_entry(entry: object) -> _Origin | str | None:
    """Read an origin that a person wrote: a host in any script, and perhaps in hope of a wildcard."""
    if not isinstance(entry, str) or "*" in entry:
        return None
    scheme, mark, authority = entry.partition("://")
    return _read(scheme + mark + to_ascii(authority))


def _read(text: str) -> _Origin | str | None:
    """Read the serialisation of an origin (RFC 6454 §6.2); None when it is none."""
    if text == "null":
        return text
    scheme, mark, rest = text.partition("://")
    scheme = scheme.lower()
    if not mark or not _SCHEME.fullmatch(scheme):
        return None
    if scheme == "file" and not rest:
        # Programs with a browser inside send it for pages that they read from disk.
        return _Origin(scheme, "", None)
    authority = parse_authority(rest)
    # A ":" without a port is for URLs only.
    if authority is None or rest.endswith(":"):
        return None
    port = None if authority.port == DEFAULT_PORTS.get(scheme) else authority.port
    return _Origin(scheme, authority.host, port)


def _is_own(origin: _Origin, request: Request) -> bool:
    """Whether the page comes from this very server.

    If this server ends TLS, the page must be https: an http page can be changed on its way.
    Without TLS a proxy may have ended it, so the page may be either, and a Host without a port stands for
    the default port of its scheme.
    """
    if origin.scheme != "https" and (origin.scheme != "http" or request.secure):
        return False
    own = parse_authority(request.host)
    if own is None:
        return False
    port = None if own.port == DEFAULT_PORTS[origin.scheme] else own.port
    return (origin.host, origin.port) == (own.host, port)
