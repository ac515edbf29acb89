"""Places in a room's sequence of messages, and how they and messages look on the wire."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from wsframework.rooms import Position, RoomMessage
from wsframework.rooms.closing import close_frame_in
from wsframework.wire import Opcode

__all__ = [
    "Entry",
    "Malformed",
    "Page",
    "Place",
    "decode_envelope",
    "decode_messages",
    "decode_page",
    "encode_envelope",
    "new_tag",
]

_LONGEST_POSITION = 100
"""In characters: epoch and tag are random, and have 16 and 12."""

_MOST_DIGITS = 15
"""Of an offset: Lua counts exactly up to 2**53."""

_KINDS = {Opcode.TEXT: b"t", Opcode.BINARY: b"b", Opcode.CLOSE: b"c"}
_OPCODES = {kind: int(opcode) for opcode, kind in _KINDS.items()}


class Malformed(ValueError):
    """What came from Redis was not written by an engine."""


@attrs.frozen
class Place:
    """A place in a room's sequence.

    Offsets are contiguous within an epoch, which is one life of the room's state in Redis. A failover to a
    replica that was behind may use offsets again, so each message has a random tag: replication is a log, so
    two histories with one tag at an offset agree in everything before it.

    Attributes:
        epoch: of the room's state.
        offset: the message's number; 0 before the first one.
        tag: the message's; empty at offset 0.
    """

    epoch: str
    offset: int
    tag: str

    def __str__(self) -> str:
        return f"{self.epoch}.{self.offset}.{self.tag}"

    @classmethod
    def parse(cls, position: Position) -> Place | None:
        """Read a position, which may be any text; None if it is none of ours."""
        parts = position.split(".")
        if len(parts) != 3 or len(position) > _LONGEST_POSITION or not position.isascii():
            return None
        epoch, offset, tag = parts
        if not (offset.isdigit() and len(offset) <= _MOST_DIGITS):
            return None
        return cls(epoch, int(offset), tag)


@attrs.frozen
class Entry:
    """A stored message.

    Attributes:
        offset: its place's.
        tag: its place's.
        envelope: the message as it is stored.
    """

    offset: int
    tag: str
    envelope: bytes


@attrs.frozen
class Page:
    """What the script `history` returns.

    Attributes:
        newest: the place of the room's newest message. Its epoch is "-" if the server could store none.
        entries: messages in order.
    """

    newest: Place
    entries: Sequence[Entry]

    @property
    def ends(self) -> bool:
        """Whether there are no more messages after these."""
        return not self.entries or self.entries[-1].offset >= self.newest.offset


def new_tag() -> str:
    """Return the tag of a new message."""
    return f"{random.getrandbits(48):012x}"


def encode_envelope(message: RoomMessage) -> bytes:
    """Return a message as it is stored."""
    return _KINDS[Opcode(message.opcode)] + message.payload


def decode_envelope(envelope: bytes) -> RoomMessage:
    """Return a stored message.

    Raises:
        Malformed: it is none.
    """
    opcode = _OPCODES.get(envelope[:1])
    payload = envelope[1:]
    if opcode is None:
        raise Malformed(f"a message of an unknown kind: {envelope[:40]!r}")
    message = RoomMessage(opcode, payload)
    if opcode == Opcode.TEXT:
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise Malformed("a text that is not UTF-8") from None
    elif opcode == Opcode.CLOSE:
        try:
            close_frame_in(message)
        except ValueError as error:
            raise Malformed(f"not a Close frame: {error}") from None
    return message


def decode_messages(head: bytes, body: bytes) -> tuple[str, list[Entry]]:
    """Return the epoch and the messages that the script `publish` sent.

    Args:
        head: "epoch offset count".
        body: for each message "tag length:envelope".

    Raises:
        Malformed: a program sent something else on the room's channel.
    """
    try:
        epoch, first, count = head.split(b" ")
        entries, at = [], 0
        for offset in range(int(first), int(first) + int(count)):
            colon = body.index(b":", at)
            tag, length = body[at:colon].split(b" ")
            at = colon + 1 + int(length)
            if at > len(body) or int(length) < 0:
                raise Malformed("a message is cut")
            entries.append(Entry(offset, tag.decode("ascii"), body[colon + 1 : at]))
        return epoch.decode("ascii"), entries
    except Malformed:
        raise
    except ValueError:
        raise Malformed(f"not messages of a room: {head[:40]!r}") from None


def decode_page(reply: Any) -> Page:
    """Return what the script `history` returned.

    Raises:
        Malformed: the history holds what an engine does not write.
    """
    try:
        epoch, offset, tag, flat = reply
        newest = Place(epoch.decode("ascii"), int(offset), tag.decode("ascii"))
        return Page(newest, list(_entries(flat)))
    except (TypeError, ValueError, AttributeError, IndexError):
        raise Malformed(f"not a history: {reply!r:.100}") from None


def _entries(flat: list[Any]) -> Iterator[Entry]:
    for at in range(0, len(flat), 3):
        # A stranger's tag may be any bytes; it equals none of ours.
        yield Entry(int(flat[at]), flat[at + 1].decode("ascii", "replace"), flat[at + 2])
