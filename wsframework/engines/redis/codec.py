"""Redis' protocol (RESP3), by hiredis, and what can go wrong on a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

try:
    import hiredis
except ImportError:
    raise ImportError(
        "wsframework.engines.redis needs hiredis; install it with: pip install 'wsframework[redis]'"
    ) from None

__all__ = [
    "NOT_YET",
    "Command",
    "Ended",
    "LinkLost",
    "NotRedis",
    "RedisError",
    "is_push",
    "make_reader",
    "pack",
    "text_of",
]

Command = tuple[bytes | str | int, ...]

NOT_YET: Final = object()
"""What a reader returns while a reply is not complete."""

_CODES_IN_SCRIPTS = frozenset(
    {"OOM", "MISCONF", "NOREPLICAS", "READONLY", "WRONGTYPE", "MASTERDOWN", "NOPERM"}
)


_NOTHING_DONE = _CODES_IN_SCRIPTS | {"TOOLONG", "LOADING", "BUSY", "NOSCRIPT", "NOAUTH", "CLUSTERDOWN"}

_OF_CONNECTION = frozenset(
    {"NOSCRIPT", "READONLY", "LOADING", "BUSY", "MASTERDOWN", "UNBLOCKED", "NOAUTH", "CLUSTERDOWN"}
)


class LinkLost(Exception):
    """The connection to Redis is lost, or is of no more use."""


class RedisError(Exception):
    """What the server answered instead of doing a command.

    Attributes:
        code: its first word, such as OOM or NOPERM.
        is_of_connection: whether another connection may mend it, now or later: scripts are loaded, another
            server is the master, or a slow script has ended. Other errors are about one command, such as a
            key that holds something else.
        is_refusal: whether the command has certainly changed nothing. Another error may have come in the
            middle of a script, which is not rolled back.
    """

    @property
    def is_of_connection(self) -> bool:
        """Whether another connection may mend it."""
        return self.code in _OF_CONNECTION

    @property
    def is_refusal(self) -> bool:
        """Whether the command has certainly changed nothing."""
        return self.code in _NOTHING_DONE

    @property
    def code(self) -> str:
        """The error's first word; of an error in a script, that of the command in it."""
        words = str(self).replace("-", " ").split()
        for word in words[:12]:
            if word in _CODES_IN_SCRIPTS:
                return word
        return words[0] if words else ""


class NotRedis(LinkLost):
    """What the server sent is not Redis' protocol."""

    def __str__(self) -> str:
        return f"it does not speak Redis' protocol: {super().__str__()}"


class Ended(LinkLost):
    """The server has ended the connection."""


pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]
"""Encode one command."""


def make_reader() -> hiredis.Reader:
    """Return what decodes replies: errors are `RedisError` objects, and no reply is `NOT_YET`."""
    return hiredis.Reader(notEnoughData=NOT_YET, replyError=RedisError, protocolError=NotRedis)


def is_push(reply: Any) -> bool:
    """Whether this is what the server sent by itself, or the reply to (UN)SUBSCRIBE."""
    return type(reply) is hiredis.PushNotification


def text_of(value: object) -> str:
    """Return a reply as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
