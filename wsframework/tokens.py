"""What stands in HTTP messages: tokens (RFC 9110 §5.6.2), which names of fields are, and statuses (§15)."""

from __future__ import annotations

import re

__all__ = ["TOKEN", "is_status", "is_token"]

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
"""A pattern of one token. Possessive: what was read is never read again, so that time is linear."""

_TOKEN = re.compile(TOKEN)


def is_token(text: str) -> bool:
    """Whether `text` is one token."""
    return _TOKEN.fullmatch(text) is not None


def is_status(status: object, *, lowest: int) -> bool:
    """Whether `status` is an HTTP status from `lowest` to 599: an int, since 401.0 would be sent as it is."""
    return isinstance(status, int) and lowest <= status <= 599
