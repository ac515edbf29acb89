"""Where a Redis server is, or who knows it, and how to log in: what a URL says."""

from __future__ import annotations

import ssl as ssl_module
from typing import TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import attrs

from wsframework.errors import ConfigurationError

__all__ = ["Address", "RedisAddress", "SentinelAddress", "parse_address"]

_FORMS = (
    "redis://[user:password@]host[:port][/database], rediss:// for TLS, unix:///path/to/socket, "
    "or redis+sentinel://host[:port],host[:port]/master"
)

_ESCAPES = "%2F for a slash, %3F for ?, %23 for # and %40 for @"

_SENTINEL_PORT = 26379


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
        is_sentinel: whether it is a sentinel, which has no data.
    """

    host: str | None
    port: int = 6379
    path: str | None = None
    tls: ssl_module.SSLContext | None = attrs.field(default=None, eq=False, repr=False)
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    database: int = 0
    is_sentinel: bool = False

    def __str__(self) -> str:
        """The address without the password, for messages."""
        if self.path is not None:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host
        if self.is_sentinel:
            return f"sentinel {host}:{self.port}"
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
            (parts.hostname or "").encode("idna")
        except ValueError as error:
            # What is taken for a port may be a part of the password, as in redis://:pass/word@host.
            why = "its port is none" if "ort " in str(error) else "its host is none"
            raise ConfigurationError(
                f"not the URL of a Redis server: {why}; write {_FORMS}, and in a password {_ESCAPES}"
            ) from None
        scheme = parts.scheme.lower()
        if scheme in ("redis+cluster", "rediss+cluster"):
            raise ConfigurationError(f"Redis Cluster is not supported yet; write {_FORMS}")
        if scheme not in ("redis", "rediss", "unix"):
            found = scheme or ("..." if "@" in url else url)
            raise ConfigurationError(f"{found!r}: not the URL of a Redis server; write {_FORMS}")
        if ssl is not None and scheme != "rediss":
            raise ConfigurationError(f"ssl is for rediss://, and the URL begins with {scheme}://")
        username = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        given = parse_qs(parts.query, keep_blank_values=True).keys()
        if parts.fragment or given - ({"db"} if scheme == "unix" else set()):
            raise ConfigurationError(
                f"the URL of the Redis server has more than {_FORMS}; in a password, write {_ESCAPES}"
            )
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


@attrs.frozen
class SentinelAddress:
    """Sentinels that know which server is the master, and how to log in there.

    Attributes:
        sentinels: where they are; one that answers is enough.
        master: the name by which they know the servers.
        server: the account at the server, and whether it speaks TLS; it has no host.
    """

    sentinels: tuple[RedisAddress, ...]
    master: str
    server: RedisAddress

    def __str__(self) -> str:
        """The address without passwords, for messages."""
        hosts = ",".join(str(sentinel).partition(" ")[2] for sentinel in self.sentinels)
        return f"redis{'' if self.server.tls is None else 's'}+sentinel://{hosts}/{self.master}"

    def at(self, host: str, port: int) -> RedisAddress:
        """Return the address of a server that is the master."""
        return attrs.evolve(self.server, host=host, port=port)

    @classmethod
    def parse(cls, url: str, ssl: ssl_module.SSLContext | None = None) -> SentinelAddress:
        """Read a URL: redis+sentinel://[user:password@]host[:port][,host[:port]...]/master[/database].

        User and password are those of the server. Sentinels have their own, if any, as the parameters
        `sentinel_username` and `sentinel_password`. With rediss+sentinel:// all of them speak TLS.

        Args:
            url: as above.
            ssl: as for `RedisAddress.parse`.

        Raises:
            ConfigurationError: it is not of this form.
        """
        scheme, _, rest = url.partition("://")
        place, _, rest = rest.partition("/")
        account, at, hosts = place.rpartition("@")
        plain = scheme.lower().removesuffix("+sentinel")
        try:
            # The master's name is no number of a database, so the path is read apart.
            parts = urlsplit(f"//host/{rest}")
        except ValueError as error:
            raise ConfigurationError(f"not the URL of sentinels: {error}; write {_FORMS}") from None
        name, _, database = parts.path.lstrip("/").partition("/")
        if "@" in rest.partition("?")[0]:
            raise ConfigurationError(f"the password of the URL has a slash: write {_ESCAPES} in it")
        if not name or not all(hosts.split(",")):
            raise ConfigurationError(f"the URL names no {'sentinel' if name else 'master'}; write {_FORMS}")
        server = RedisAddress.parse(f"{plain}://{account}{at}host/{database}", ssl)
        known = {"sentinel_username": None, "sentinel_password": None}
        # A plus is no space here, as it is none in the account of the server.
        given = {key: values[0] for key, values in parse_qs(parts.query.replace("+", "%2B")).items()}
        if not given.keys() <= known.keys():
            raise ConfigurationError(f"the URL of sentinels has the parameters {' and '.join(known)} only")
        sentinels: list[RedisAddress] = []
        for host in hosts.split(","):
            # A port that is given is part of the text.
            has_port = host.rpartition("]")[2].count(":") == 1
            found = RedisAddress.parse(f"redis://{host}{'' if has_port else f':{_SENTINEL_PORT}'}")
            sentinels.append(
                attrs.evolve(
                    found,
                    tls=server.tls,
                    username=given.get("sentinel_username"),
                    password=given.get("sentinel_password"),
                    is_sentinel=True,
                )
            )
        return cls(tuple(sentinels), unquote(name), attrs.evolve(server, host=None))


Address: TypeAlias = RedisAddress | SentinelAddress
"""What an engine is given."""


def parse_address(url: str, ssl: ssl_module.SSLContext | None = None) -> Address:
    """Read the URL of a server or of sentinels.

    Raises:
        ConfigurationError: it is neither.
    """
    scheme = url.partition("://")[0].lower()
    if scheme in ("redis+sentinel", "rediss+sentinel"):
        return SentinelAddress.parse(url, ssl)
    return RedisAddress.parse(url, ssl)


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        if "@" in text:
            raise ConfigurationError(f"the password of the URL has a slash: write {_ESCAPES} in it")
        raise ConfigurationError(f"{text!r} is not the number of a Redis database; write {_FORMS}")
    return int(text)
