"""The values of the chat's history: messages, pages of them, and how many are kept."""

from __future__ import annotations

from typing import Any

import attrs

__all__ = ["Draft", "HistoryError", "Message", "Missed", "Page", "Retention"]


class HistoryError(Exception):
    """The database could not do it: the disk is full, say. Nothing was stored."""


def _positive_or_none(_: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value > 0:
        raise ValueError(f"Retention.{attribute.name} must be greater than 0, not {value!r}")


@attrs.frozen(kw_only=True)
class Retention:
    """How much is kept.

    Attributes:
        days: messages older than this are forgotten, or None. 30. Time by which the clock jumped, or in
            which no server ran for more than a week, does not count.
        messages_per_room: the newest of a room that are kept. 10,000.
        messages: the newest of all rooms together that are kept. 1,000,000: about 200 MB of common chat.
        bytes: what the messages may take in the database, with its indexes; the oldest are forgotten. 1 GiB,
            where a million of the longest messages would take 16. It is looked at every 1,000 messages.
    """

    days: float | None = attrs.field(default=30.0, validator=_positive_or_none)
    messages_per_room: int = attrs.field(default=10_000, validator=attrs.validators.ge(1))
    messages: int = attrs.field(default=1_000_000, validator=attrs.validators.ge(1))
    bytes: int = attrs.field(default=1024**3, validator=attrs.validators.ge(64 * 1024))


@attrs.frozen
class Draft:
    """A message before it is stored.

    Attributes:
        key: what its sender calls it; the same key of the same sender in the same room is the same message.
        sender: whose the key is: who has the same name later is somebody else.
        holder: the guest that says it, as the attendance knows it, or "". Where processes share names, it
            must have the name when the message is stored.
    """

    room: str
    name: str
    text: str
    key: str | None = None
    sender: str = ""
    holder: str = ""


@attrs.frozen
class Message:
    """A message of the history.

    Attributes:
        id: rises with every message of all rooms.
        time: the server's clock when it was stored, in milliseconds since 1970 (UTC).
    """

    id: int
    room: str
    name: str
    text: str
    time: int


@attrs.frozen
class Page:
    """Successive messages of a room, oldest first.

    Attributes:
        more: whether there are older ones.
    """

    messages: tuple[Message, ...]
    more: bool


@attrs.frozen
class Missed:
    """What a client missed, or the first page of it.

    Attributes:
        messages: the oldest of it when `complete`, else nothing.
        complete: False when some of it is no longer kept, or it is too much to send.
        more: whether there are newer ones.
    """

    messages: tuple[Message, ...]
    complete: bool
    more: bool
