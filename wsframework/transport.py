"""The interface between a connection and what moves its bytes, and messages encoded for many connections.

The native server's transports and those of other hosts implement `Transport`. `GONE` replaces a transport
whose socket is released.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import attrs

from wsframework.closes import CloseFrame
from wsframework.timers import Timer
from wsframework.wire import BINARY, TEXT, encode_message

__all__ = ["BytesLike", "EncodedMessage", "GONE", "Transport", "encode", "to_bytes", "to_payload"]

BytesLike: TypeAlias = bytes | bytearray | memoryview
"""What is sent as a Binary message."""


@attrs.frozen(eq=False)
class EncodedMessage:
    """A message encoded once for many connections.

    Attributes:
        opcode: `Opcode.TEXT` or `Opcode.BINARY`.
        payload: its bytes; of a text, the UTF-8.
        frame: the whole frame, for connections that do not compress.
    """

    opcode: int
    payload: bytes
    frame: bytes


def encode(message: str | BytesLike) -> EncodedMessage:
    """Encode a message for many connections.

    Raises:
        TypeError: it is neither `str` nor bytes-like.
        UnicodeEncodeError: the text holds a lone surrogate.
    """
    opcode, payload = to_payload(message)
    return EncodedMessage(opcode, payload, encode_message(opcode, payload))


def to_payload(message: str | BytesLike) -> tuple[int, bytes]:
    """Return a message's opcode and its bytes.

    Raises:
        TypeError: it is neither `str` nor bytes-like.
        UnicodeEncodeError: the text holds a lone surrogate.
    """
    if isinstance(message, str):
        # Not `message.encode()`: a subclass may override it and return anything.
        return TEXT, str.encode(message)
    return BINARY, to_bytes(message)


def to_bytes(message: BytesLike) -> bytes:
    """Return a message's bytes, copied if its owner could change them.

    Raises:
        TypeError: it is not bytes-like.
    """
    if type(message) is bytes:
        return message
    try:
        # A copy, because the caller may reuse its buffer as soon as the message is committed.
        return memoryview(message).tobytes()
    except TypeError:
        raise TypeError(
            f"a message is str or bytes-like, not {type(message).__name__}; encode it first (json.dumps?)"
        ) from None


class Transport(Protocol):
    """What carries one connection's frames. No method blocks, and none raises for a dead peer."""

    outbox_bytes: int
    """Bytes that were committed and that the socket has not taken yet."""

    room_wanted: bool
    """Set by the endpoint when something waits for room; the transport then calls its `made_room`."""

    def send(self, opcode: int, payload: bytes) -> None:
        """Commit one whole message or ping: it is on its way, in this order, and cannot be withdrawn."""

    def send_encoded(self, message: EncodedMessage) -> None:
        """Commit a message that was encoded once for many connections."""

    def close(self, frame: CloseFrame) -> None:
        """Commit a Close frame, and end the connection within the close timeout."""

    def pause_reading(self) -> None:
        """Take no more bytes from the socket until `resume_reading`."""

    def resume_reading(self) -> None:
        """Read on."""

    def flush_now(self) -> None:
        """Offer the outbox to the socket before its peer counts as slow, where that needs no waiting.

        It may make room, and it may find that the connection is lost.
        """

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back once, `seconds` from now; time in which the server could not run does not count."""


class _Gone:
    """The transport of a connection whose socket is released."""

    outbox_bytes = 0
    room_wanted = False

    def send(self, opcode: int, payload: bytes) -> None:
        """Drop it."""

    def send_encoded(self, message: EncodedMessage) -> None:
        """Drop it."""

    def close(self, frame: CloseFrame) -> None:
        """Nothing to close."""

    def pause_reading(self) -> None:
        """Nothing to read."""

    def resume_reading(self) -> None:
        """Nothing to read."""

    def flush_now(self) -> None:
        """Nothing to write."""

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Nothing comes after the end."""
        return Timer(seconds, callback)


GONE = _Gone()
"""The transport of every connection whose socket is released."""
