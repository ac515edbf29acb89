"""The header fields of a mounted application's answers: what is wrong with them, and what is ours to say."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from wsframework.headers import check_field
from wsframework.tokens import is_status, read_length

__all__ = ["AnswerFields", "check_fields", "check_status", "read_fields"]

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
"""About one connection (RFC 9110 §7.6.1), which is the server's."""


@attrs.frozen
class AnswerFields:
    """The fields of an answer's head.

    Attributes:
        others: all but those about the connection and the size.
        size: Content-Length.
        persist: whether the connection may go on.
    """

    others: list[tuple[bytes, bytes]]
    size: int | None
    persist: bool


def check_status(status: object) -> int:
    """Return an answer's status.

    Raises:
        ValueError: it is none of a final answer.
    """
    if not is_status(status, lowest=200):
        raise ValueError(f"the status of an answer is from 200 to 599, not {status!r}")
    assert isinstance(status, int)
    return int(status)  # an enum that is an int is written with the name of its class


def check_fields(fields: Iterable[Iterable[bytes]]) -> list[tuple[bytes, bytes]]:
    """Return header fields as pairs.

    Raises:
        ValueError: one cannot be sent: with a line break, an application would write further fields.
        TypeError: they are no pairs of bytes.
    """
    pairs = []
    for field in fields:
        match tuple(field):
            case (bytes() as name, bytes() as value):
                check_field((name.decode("latin-1"), value.decode("latin-1")))
                pairs.append((name, value))
            case _:
                raise TypeError("headers are pairs of bytes: name and value")
    return pairs


def read_fields(fields: Iterable[Iterable[bytes]]) -> AnswerFields:
    """Check the fields of an answer, and take out what is about the connection and the size.

    Raises:
        ValueError: one cannot be sent, or Content-Length is no number or given twice.
        TypeError: they are no pairs of bytes.
    """
    pairs = check_fields(fields)
    options = {
        option.strip(b" \t").lower()
        for name, value in pairs
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
    lengths = [
        read_length(value.strip(b" \t").decode("latin-1"))
        for name, value in pairs
        if name.lower() == b"content-length"
    ]
    if len(lengths) > 1 or None in lengths:
        raise ValueError("Content-Length is one number of bytes (RFC 9110 §8.6)")
    own = _HOP_BY_HOP | options | {b"content-length"}
    return AnswerFields(
        others=[(name, value) for name, value in pairs if name.lower() not in own],
        size=lengths[0] if lengths else None,
        persist=b"close" not in options,
    )
