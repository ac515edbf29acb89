"""Why wsframework loses to whom: one sentence per contender, or per contender and workload.

The tables print the sentence where a row is lost. A loss without a sentence says so in the table.
"""

from __future__ import annotations

__all__ = ["reason"]

_REASONS = {
    ("ceiling", ""): "no WebSocket behaviour at all, in C: the price of the system calls",
    ("ceiling-python", ""): "no WebSocket behaviour, no scheduler and no handlers: the price of system calls "
    "and Python",
    ("socketify", ""): "the whole protocol, rooms included, is C++ below a callback; no coroutine per "
    "connection, no cancellation, and messages above its backpressure limit are dropped",
    (
        "picows",
        "",
    ): "frame parser and transport are compiled C and a message is one callback: no coroutine "
    "is woken, text is not checked for UTF-8, fragments are not joined, and writes are not bounded",
    ("granian", ""): "the protocol runs in Rust beside the interpreter",
    ("node-ws", ""): "compiled by V8; a message is one callback and writes are not bounded",
    ("aiohttp", "deflate"): "zlib level 1 where the others use 6: compare the bytes a reply",
    ("aiohttp", ""): "compiled frame reader on uvloop, and no keepalive unless it is asked for",
}


def reason(contender: str, workload: str) -> str:
    """Return why this contender wins this workload."""
    found = _REASONS.get((contender, workload)) or _REASONS.get((contender, ""))
    return found or "no explanation yet: find one before quoting this row"
