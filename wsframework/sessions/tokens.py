"""Tokens: what a client shows to resume its session, and what a store keeps of it."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from typing import Any, Self

import attrs

__all__ = ["Token", "digest_of_user"]

_BYTES = 16
"""128 random bits, which nobody guesses, for the id and for the secret."""

_FORM = re.compile(r"([\w-]{22})\.([\w-]{22})", re.ASCII)


@attrs.frozen
class Token:
    """A session's id, which stays, and a secret, which is another one after each resume.

    Attributes:
        id: names the session; no secret.
        secret: shows that the client is the session's.
    """

    id: str
    secret: str = attrs.field(repr=False)

    def __str__(self) -> str:
        """The token as the client gets it."""
        return f"{self.id}.{self.secret}"

    @classmethod
    def new(cls, id: str | None = None) -> Self:
        """Return a token with a new secret, for a new session or for one that exists."""
        return cls(secrets.token_urlsafe(_BYTES) if id is None else id, secrets.token_urlsafe(_BYTES))

    @classmethod
    def parse(cls, token: Any) -> Self | None:
        """Read what a client sent, which may be anything; None if it is no token."""
        found = _FORM.fullmatch(token) if isinstance(token, str) else None
        return None if found is None else cls(found[1], found[2])

    @property
    def digest(self) -> str:
        """What a store keeps of the secret: SHA-256. The secret is random, so it needs no salt."""
        return hashlib.sha256(self.secret.encode()).hexdigest()


def digest_of_user(user: str | int | None) -> str:
    """Return what a store keeps of the user whose session it is.

    42 and "42" are the same, as in rooms of users.

    Raises:
        TypeError: it is something else than a name or a number.
    """
    if isinstance(user, bool) or not isinstance(user, str | int | None):
        raise TypeError(
            f"user is the user's name or number, or None for anonymous sessions, not {type(user).__name__}"
        )
    return hashlib.sha256(json.dumps(None if user is None else str(user)).encode()).hexdigest()
