"""Describe close codes: what each one means, and whether a client should reconnect."""

from __future__ import annotations

from wsframework.closes import SENT_CODES, CloseCode
from wsframework.records import escape_json

__all__ = ["advice", "describe_close", "meaning"]

_ADVICE = {
    "at once": "a client should reconnect at once, after a short random pause",
    "later": "a client should reconnect later, with growing pauses",
    "with a fresh token": "a client should get a fresh token, and then reconnect",
    "never": "a client should not reconnect by itself: the same would happen again",
}


def meaning(code: int) -> str:
    """Return the meaning of a close code (RFC 6455 §7.4.1 and the IANA registry)."""
    try:
        return CloseCode(code).meaning
    except ValueError:
        pass
    if 3000 <= code <= 3999:
        return "registered for a library or framework"
    return "the application's own" if 4000 <= code <= 4999 else "not a code of RFC 6455"


def advice(code: int) -> str | None:
    """Return whether a client should reconnect after the server has sent this code.

    Returns:
        A clause; None after a normal closure, and for codes that wsframework does not send.
    """
    if code == CloseCode.NORMAL_CLOSURE:
        return None
    return next((_ADVICE[sent.reconnect] for sent in SENT_CODES if sent.code == code), None)


def describe_close(by: str, code: int, reason: str) -> str:
    """Describe in one line how a connection was closed.

    Args:
        by: "client" or "server": which side sent the first Close frame.
        code: the server's close code; 1005 when its Close frame had none, 1006 when it sent no Close frame.
        reason: its close reason.
    """
    if code == CloseCode.ABNORMAL_CLOSURE and by == "server":
        return "the server ended the connection without a Close frame (1006)"
    words = "without a code" if code == CloseCode.NO_STATUS_RECEIVED else f"{code} ({meaning(code)})"
    why = f": {escape_json(reason)}" if reason else ""
    return f"closed by {'us' if by == 'client' else 'the server'}, {words}{why}"
