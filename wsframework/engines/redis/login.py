"""Log in to a server, and find out whether rooms can be on it; without I/O."""

from __future__ import annotations

import ssl
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from wsframework.engines.redis.address import RedisAddress
from wsframework.engines.redis.codec import Command, Ended, LinkLost, NotRedis, RedisError, text_of
from wsframework.errors import ConfigurationError

__all__ = ["Steps", "locate", "login", "unreachable", "where"]

_OLDEST_VERSION = (6, 2)
"""XTRIM MINID came with it."""

T = TypeVar("T")

Steps: TypeAlias = Generator[Command, Any, T]
"""Yields commands, is sent their replies, errors too, and returns what was found out."""


def login(
    address: RedisAddress, scripts: Sequence[bytes] = (), trials: Sequence[Command] = ()
) -> Steps[str | None]:
    """Log in, load scripts, and try whether the account's rights suffice.

    Args:
        address: the server.
        scripts: their texts.
        trials: commands that have to succeed.

    Returns:
        The policy by which the server removes keys of rooms when its memory is full; None if it does not, or
        does not tell, as many managed servers.

    Raises:
        LinkLost: the server cannot be used now.
        ConfigurationError: something is wrong that trying again does not mend.
    """
    known = yield from _greet(address)
    if address.database:
        _check(address, (yield ("SELECT", str(address.database))), "refuses the login")
    _check_kind(address, known)
    for command in (*(("SCRIPT", "LOAD", text) for text in scripts), *trials):
        _check(address, (yield command), "the user's rights do not suffice")
    return _eviction((yield ("INFO", "memory")))


def locate(sentinel: RedisAddress, master: str) -> Steps[tuple[str, int]]:
    """Log in to a sentinel, and ask where the master is.

    Args:
        sentinel: its address.
        master: the name by which it knows it.

    Returns:
        Host and port.

    Raises:
        LinkLost, ConfigurationError: as for `login`.
    """
    known = yield from _greet(sentinel)
    if known.get("mode") != "sentinel":
        raise ConfigurationError(f"{sentinel}: it is a Redis server and no sentinel")
    return (yield from where(sentinel, master))


def where(sentinel: RedisAddress, master: str) -> Steps[tuple[str, int]]:
    """Ask it again, as `locate`."""
    reply = yield ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", master)
    _check(sentinel, reply, "the user's rights do not suffice")
    if reply is None:
        masters = yield ("SENTINEL", "MASTERS")
        names = [text_of(each[b"name"]) for each in masters] if isinstance(masters, list) else []
        known = f"; it knows {', '.join(names)}" if names else ""
        raise ConfigurationError(f"{sentinel} knows no master {master!r}{known}")
    try:
        host, port = reply
        text_of(host).encode("idna")
        return text_of(host), int(port)
    except (TypeError, ValueError):
        raise LinkLost(f"{sentinel} answers {reply!r:.100} instead of an address") from None


def _greet(address: RedisAddress) -> Steps[dict[str, str]]:
    """Log in; return what the server says of itself."""
    account: Command = ()
    if address.password is not None or address.username is not None:
        account = ("AUTH", address.username or "default", address.password or "")
    server = yield ("HELLO", "3", *account, "SETNAME", "wsframework")
    _check(address, server, "refuses the login")
    return {text_of(key): text_of(value) for key, value in server.items()} if isinstance(server, dict) else {}


def _check(address: RedisAddress, reply: Any, what: str) -> None:
    if not isinstance(reply, RedisError):
        return
    text = str(reply)
    if "unknown command" in text and "HELLO" in text:
        raise ConfigurationError(f"{address} is older than Redis 6.2, which is needed")
    if "unknown command" in text:
        raise ConfigurationError(f"{address} lacks a command that rooms need: {text}")
    if reply.code == "NOAUTH":
        form = "add ?sentinel_password=…" if address.is_sentinel else "write redis://user:password@host"
        raise ConfigurationError(f"{address}: {what}: it needs a password; {form}")
    if "DB index" in text:
        raise ConfigurationError(f"{address}: there is no such database")
    passwords = ("invalid password", "without any password", "can't run this command")
    if reply.code in ("WRONGPASS", "NOAUTH", "NOPERM") or any(part in text for part in passwords):
        raise ConfigurationError(f"{address}: {what}: {text}")
    raise LinkLost(f"{address}: {text}")


def _check_kind(address: RedisAddress, known: Mapping[str, str]) -> None:
    if known.get("mode") == "sentinel":
        raise ConfigurationError(f"{address} is a sentinel: write redis+sentinel://host:port/master")
    version = known.get("version", "0")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _OLDEST_VERSION:
        raise ConfigurationError(f"{address} is Redis {version}; 6.2 or newer is needed")
    if known.get("mode") == "cluster":
        raise ConfigurationError(f"{address} is a Redis Cluster, which is not supported yet")
    if known.get("role", "master") != "master":
        raise LinkLost(f"{address} is a replica, and rooms need the master")


def _eviction(memory: Any) -> str | None:
    lines = text_of(memory).splitlines()
    known = dict(line.split(":", 1) for line in lines if ":" in line)
    policy = known.get("maxmemory_policy", "noeviction")
    # All keys of rooms may expire, so the policies for such keys concern them too.
    return None if known.get("maxmemory", "0") == "0" or policy == "noeviction" else policy


def unreachable(address: RedisAddress, error: BaseException) -> Exception:
    """Return what to raise because a connection could not be made."""
    # Of several addresses that were tried, the first one tells enough.
    while isinstance(cause := error.__cause__, OSError | BaseExceptionGroup):
        error = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause
    if isinstance(error, NotRedis):
        return LinkLost(f"{address}: {error}")
    speaks_tls = address.tls is not None
    if isinstance(error, Ended | ConnectionResetError):
        hint = "" if speaks_tls else "; if it speaks TLS, write rediss://"
        return LinkLost(f"{address} ends the connection before the login{hint}")
    if isinstance(error, TimeoutError):
        hint = "; if it does not speak TLS, write redis://" if speaks_tls else ""
        return LinkLost(f"{address} does not answer{hint}")
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigurationError(f"{address}: its certificate: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return ConfigurationError(f"{address} does not speak TLS: {error.reason or error}")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return LinkLost(f"{address} cannot be reached: {reason}")
