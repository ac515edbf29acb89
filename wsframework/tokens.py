"""What stands in HTTP messages: tokens (RFC 9110 §5.6.2), which names of fields are, statuses and paths."""

from __future__ import annotations

import re
from urllib.parse import quote

__all__ = ["TOKEN", "authority_of", "canonical_path", "is_status", "is_token", "path_of", "read_length"]

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
"""A pattern of one token. Possessive: what was read is never read again, so that time is linear."""

_TOKEN = re.compile(TOKEN)


def is_token(text: str) -> bool:
    """Whether `text` is one token."""
    return _TOKEN.fullmatch(text) is not None


def is_status(status: object, *, lowest: int) -> bool:
    """Whether `status` is an HTTP status from `lowest` to 599: an int, since 401.0 would be sent as it is."""
    return isinstance(status, int) and lowest <= status <= 599


# What may stand unescaped in a path segment (RFC 3986 §3.3).
_SEGMENT_SAFE = "/-._~!$&'()*+,;=:@"
_CANONICAL = re.compile(rf"[A-Za-z0-9{re.escape(_SEGMENT_SAFE)}]*")
_ESCAPE = re.compile(rf"%[0-9A-Fa-f]{{2}}|[^A-Za-z0-9{re.escape(_SEGMENT_SAFE)}]")
# "%2F" stays encoded: decoded it would become a separator (RFC 3986 §2.2).
_NORMAL_ESCAPES = {
    f"%{code:02X}": "%2F" if code == ord("/") else quote(bytes([code]), safe=_SEGMENT_SAFE)
    for code in range(256)
} | {chr(code): quote(chr(code)) for code in range(128)}


def canonical_path(path: str) -> str:
    """Percent-encode a path in the one way that lets equal paths compare equal (RFC 3986 §6.2.2)."""
    if _CANONICAL.fullmatch(path):
        return path
    return _ESCAPE.sub(_normal_escape, path)


def _normal_escape(found: re.Match[str]) -> str:
    escape = found[0]
    return _NORMAL_ESCAPES.get(escape) or _NORMAL_ESCAPES.get(escape.upper()) or quote(escape)


def path_of(target: str) -> str:
    """Return the path of a request's target."""
    path = target.partition("?")[0].partition("#")[0]
    # The absolute form ("GET http://example/chat") is legal in any request (RFC 9112 §3.2.2).
    return path if authority_of(target) is None else "/" + path.partition("://")[2].partition("/")[2]


def authority_of(target: str) -> str | None:
    """Return the authority of a target in absolute form, or None. Not urlsplit, which raises for some."""
    if target.startswith("/"):
        return None
    _, mark, rest = target.partition("?")[0].partition("#")[0].partition("://")
    return rest.partition("/")[0] if mark else None


_LENGTH = re.compile("[0-9]{1,18}")


def read_length(text: str) -> int | None:
    """Return the number of bytes that a Content-Length field gives, or None if it gives none (RFC 9110 §8.6).

    So do 19 digits and more: int() takes longer for more of them, and no body is that long.
    """
    return int(text) if _LENGTH.fullmatch(text) else None
