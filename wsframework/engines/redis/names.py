"""The names of keys, channels and scripts in Redis."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from urllib.parse import quote

import attrs

from wsframework.engines.redis.codec import Command

__all__ = ["Names", "Script"]

_LONGEST_NAME = 200
"""Bytes of a room's escaped name in keys. A longer one is cut, and its digest takes the rest's place."""

_DIGEST_CHARACTERS = 64


@attrs.frozen
class Script:
    """A script that the server runs.

    Attributes:
        text: in Lua.
        digest: by which the server knows it.
    """

    text: bytes
    digest: bytes

    @classmethod
    def of(cls, text: str | bytes) -> Script:
        """Return the script with this text."""
        encoded = text.encode() if isinstance(text, str) else text
        return cls(encoded, hashlib.sha1(encoded, usedforsecurity=False).hexdigest().encode())

    def call(self, keys: Sequence[bytes | str], *arguments: bytes | str | int) -> Command:
        """Return the command that runs it, once it is loaded."""
        return (b"EVALSHA", self.digest, len(keys), *keys, *arguments)

    @classmethod
    @lru_cache
    def load(cls, name: str) -> Script:
        """Read one of the scripts in this package."""
        return cls.of(files(__package__).joinpath("scripts", f"{name}.lua").read_bytes())


class Names:
    """Names under one prefix.

    The keys of a room have its escaped name in braces, so that a cluster keeps them together, and no name can
    be another room's: braces are escaped too.

    Args:
        prefix: what all names begin with.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.encode()
        self.nodes = self._prefix + b":nodes"

    def room(self, name: str) -> bytes:
        """Return what the names of a room's keys begin with; it is the room's channel too."""
        escaped = quote(name, safe="", errors="surrogatepass")
        if len(escaped) > _LONGEST_NAME:
            digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_CHARACTERS]
            # No escaped name has two percent signs in a row.
            escaped = f"{escaped[: _LONGEST_NAME - _DIGEST_CHARACTERS - 2]}%%{digest}"
        return b"%b:{r/%b}" % (self._prefix, escaped.encode())

    def state(self, room: bytes) -> bytes:
        """Return the key of a room's epoch and offset, given what `room` returned."""
        return room + b":m"

    def history(self, room: bytes) -> bytes:
        """Return the key of a room's history."""
        return room + b":s"

    def members(self, room: bytes) -> bytes:
        """Return the key of the members present in a room."""
        return room + b":w"

    def publication(self, room: bytes, key: str) -> bytes:
        """Return the key for the place of a message that was published with a key."""
        return b"%b:k:%b" % (room, key.encode(errors="surrogatepass"))

    def rooms_of(self, node: bytes) -> bytes:
        """Return the key of the rooms in which a node has members."""
        return b"%b:node:%b" % (self._prefix, node)

    def connection_of(self, node: bytes) -> bytes:
        """Return the key of the number of a node's newest connection."""
        return b"%b:connection:%b" % (self._prefix, node)

    def reaping(self, node: bytes) -> bytes:
        """Return the key of the lock for removing a node's members."""
        return b"%b:reap:%b" % (self._prefix, node)
