"""Tokens: what names of methods, header fields and subprotocols are made of (RFC 9110 §5.6.2)."""

from __future__ import annotations

import re

__all__ = ["TOKEN", "is_token"]

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
"""A pattern of one token. Possessive: what was read is never read again, so that time is linear."""

_TOKEN = re.compile(TOKEN)


def is_token(text: str) -> bool:
    """Whether `text` is one token."""
    return _TOKEN.fullmatch(text) is not None
