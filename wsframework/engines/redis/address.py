"""Where a Redis server is, and how to log in: what a URL says."""

from __future__ import annotations

import ssl as ssl_module
from urllib.parse import parse_qs, unquote, urlsplit

import attrs

from wsframework.errors import ConfigurationError

__all__ = ["RedisAddress"]

_FORMS = "redis://[user:password@]host[:port][/database], rediss:// for TLS, or unix:///path/to/socket"


@attrs.frozen
class RedisAddress:
    """A server and an account.

    Attributes:
        host: its name or address; None for a unix socket.
        port: its TCP port.
        path: its unix socket's path, or None.
        tls: the context for TLS, or None without it.
        username: for ACL users; None is the default user.
        password: or None.
        database: its number.
    """

    host: str | None
    port: int = 6379
    path: str | None = None
    tls: ssl_module.SSLContext | None = attrs.field(default=None, eq=False, repr=False)
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    database: int = 0

    def __str__(self) -> str:
        """The address without the password, for messages."""
        if self.path is not None:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host
        return f"{'redis' if self.tls is None else 'rediss'}://{host}:{self.port}/{self.database}"

    @classmethod
    def parse(cls, url: str, ssl: ssl_module.SSLContext | None = None) -> RedisAddress:
        """Read a URL: redis://, rediss:// or unix://.

        Args:
            url: user and password are percent-encoded in it.
            ssl: the context for rediss://; by default one that verifies the server with the system's
                certificates.

        Raises:
            ConfigurationError: it is none of these forms.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigurationError(f"not the URL of a Redis server: {error}; write {_FORMS}") from None
        scheme = parts.scheme.lower()
        if scheme in ("redis+sentinel", "redis+cluster"):
            kind = scheme.partition("+")[2].capitalize()
            raise ConfigurationError(f"Redis {kind} is not supported yet; write {_FORMS}")
        if scheme not in ("redis", "rediss", "unix"):
            raise ConfigurationError(f"{scheme or url!r}: not the URL of a Redis server; write {_FORMS}")
        if ssl is not None and scheme != "rediss":
            raise ConfigurationError(f"ssl is for rediss://, and the URL begins with {scheme}://")
        username = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        if scheme == "unix":
            if parts.hostname or not parts.path.startswith("/"):
                raise ConfigurationError(f"a unix socket's path is absolute; write {_FORMS}")
            database = _database(parse_qs(parts.query).get("db", ["0"])[0])
            return cls(
                None, path=unquote(parts.path), username=username, password=password, database=database
            )
        if not parts.hostname:
            raise ConfigurationError(f"the URL of the Redis server has no host; write {_FORMS}")
        tls = None
        if scheme == "rediss":
            tls = ssl_module.create_default_context() if ssl is None else ssl
        return cls(
            parts.hostname,
            6379 if port is None else port,
            tls=tls,
            username=username,
            password=password,
            database=_database(parts.path.lstrip("/") or "0"),
        )


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise ConfigurationError(f"{text!r} is not the number of a Redis database; write {_FORMS}")
    return int(text)
