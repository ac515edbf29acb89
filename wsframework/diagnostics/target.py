"""Check what a user asks for: a URL, header fields and subprotocols (RFC 6455 §3, §4.1)."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

import attrs

from wsframework.authority import DEFAULT_PORTS
from wsframework.errors import ConfigurationError
from wsframework.tokens import is_token

__all__ = [
    "MAX_MESSAGE_BYTES",
    "Opening",
    "Target",
    "parse_headers",
    "parse_messages",
    "parse_subprotocols",
    "parse_target",
    "tls_context",
]

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The longest message that `trace` and `connect` take: enough for any server, and not too much for any
machine."""

_HTTP = {"http": "ws", "https": "wss"}

_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

# Everything that may stand in a path or query, and "%", so that what is escaped already stays as it is.
_SAFE = "%/:@!$&'()*+,;=?-._~[]"


@attrs.frozen
class Target:
    """A WebSocket URL in parts.

    Attributes:
        url: as it was given.
        secure: whether it is a wss URL.
        host: a name or an address; an IPv6 address without its brackets.
        port: the TCP port, 80 and 443 when the URL has none.
        resource: path and query, the request's target.
    """

    url: str
    secure: bool
    host: str
    port: int
    resource: str

    @property
    def host_header(self) -> str:
        """The value of Host: without the port when it is the scheme's own (RFC 6455 §4.1, item 4)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS["wss" if self.secure else "ws"] else f"{host}:{self.port}"

    @property
    def is_address(self) -> bool:
        """Whether the host needs no name resolution."""
        try:
            ipaddress.ip_address(self.host.partition("%")[0])
        except ValueError:
            return False
        return True


@attrs.frozen(kw_only=True)
class Opening:
    """Where to connect, and what to say in the opening handshake.

    Attributes:
        target: the URL.
        tls: how to speak TLS, for a wss URL.
        subprotocols: to offer, in order of preference.
        headers: more header fields.
        timeout_seconds: limits the name resolution, each connection attempt, the TLS handshake, and the
            opening handshake, one by one.
    """

    target: Target
    tls: ssl.SSLContext | None = None
    subprotocols: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    timeout_seconds: float = 10.0


def parse_target(url: str) -> Target:
    """Take a WebSocket URL apart.

    Raises:
        ConfigurationError: it is not a WebSocket URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"{url!r} is not a URL: {error}") from None
    if parts.scheme not in _HTTP.values():
        better = _HTTP.get(parts.scheme)
        hint = (
            f"; write {better}{url[len(parts.scheme) :]}" if better else ", such as ws://127.0.0.1:8000/chat"
        )
        raise ConfigurationError(f"{url!r} is not a ws:// or wss:// URL{hint}")
    if not parts.hostname:
        raise ConfigurationError(f"{url!r} names no host, such as ws://127.0.0.1:8000/chat")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(
            f"{parts.scheme}://…@{parts.hostname}: a WebSocket URL has no user and password; "
            "give them as --header 'Authorization: Basic …'"
        )
    if parts.fragment or url.endswith("#"):
        raise ConfigurationError(f"{url!r}: a WebSocket URL has no fragment; write # as %23 (RFC 6455 §3)")
    if port == 0:
        raise ConfigurationError(f"{url!r}: no server listens on port 0")
    try:
        path = quote(parts.path or "/", safe=_SAFE)
        query = f"?{quote(parts.query, safe=_SAFE)}" if parts.query else ""
    except UnicodeEncodeError:
        raise ConfigurationError(f"{url!r} is not UTF-8; write other bytes as %XX") from None
    secure = parts.scheme == "wss"
    return Target(url, secure, _ascii(parts.hostname), port or DEFAULT_PORTS[parts.scheme], path + query)


def parse_headers(lines: Sequence[str], origin: str | None = None) -> tuple[tuple[str, str], ...]:
    """Split header fields of the form `Name: value`, and put Origin before them if it is given.

    Raises:
        ConfigurationError: one has another form, or holds what may not be sent (RFC 9110 §5).
    """
    fields = []
    options = [("--header", line) for line in lines]
    if origin is not None:
        options.insert(0, ("--origin", f"Origin: {origin}"))
    for option, line in options:
        name, colon, value = (part.strip(" \t") for part in line.partition(":"))
        if not colon or not is_token(name):
            raise ConfigurationError(f"{option} {line!r} is not of the form 'Name: value'")
        if not _VALUE.fullmatch(value):
            raise ConfigurationError(
                f"{option} {line!r}: a value holds no control characters, and only Latin-1"
            )
        fields.append((name, value))
    return tuple(fields)


def parse_subprotocols(names: Sequence[str]) -> tuple[str, ...]:
    """Check the names of subprotocols.

    Raises:
        ConfigurationError: one may not be offered, or stands twice (RFC 6455 §4.1, item 10).
    """
    for name in names:
        if not is_token(name):
            raise ConfigurationError(f"--subprotocol {name!r}: a name holds no spaces, commas and the like")
        if names.count(name) > 1:
            raise ConfigurationError(f"--subprotocol {name!r} stands twice")
    return tuple(names)


def parse_messages(texts: Sequence[str]) -> tuple[str, ...]:
    """Check messages that are to be sent.

    Raises:
        ConfigurationError: one came from bytes that are not UTF-8.
    """
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ConfigurationError(f"--send {text!r} is not UTF-8, as a text message must be") from None
    return tuple(texts)


def tls_context(*, insecure: bool = False) -> ssl.SSLContext:
    """Return a TLS context that trusts the system's authorities or, if insecure, any certificate."""
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    # The upgrade exists in HTTP/1.1 only; without ALPN a server may choose HTTP/2.
    context.set_alpn_protocols(["http/1.1"])
    return context


def _ascii(host: str) -> str:
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        raise ConfigurationError(f"{host!r} is not a host name") from None
