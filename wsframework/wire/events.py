"""What the decoder hands over: messages as plain `str` and `bytes`, everything else as small values."""

from __future__ import annotations

import attrs

from wsframework.closes import CloseCode, CloseFrame
from wsframework.errors import WSFrameworkError

__all__ = [
    "CloseReceived",
    "Event",
    "Failure",
    "Ping",
    "Pong",
    "ProtocolViolation",
    "protocol_error",
    "too_big",
]


@attrs.frozen
class Ping:
    """A Ping frame; unless a Close frame came, it is answered with the same payload (RFC 6455 §5.5.2)."""

    payload: bytes


@attrs.frozen
class Pong:
    """A Pong frame: the answer to the ping with this payload, or an unsolicited heartbeat (§5.5.3)."""

    payload: bytes


@attrs.frozen
class CloseReceived:
    """The peer's Close frame; code 1005 stands for an empty payload (RFC 6455 §7.1.5)."""

    frame: CloseFrame


@attrs.frozen
class Failure:
    """The connection must be failed (RFC 6455 §7.1.7): send a Close frame with these, then drop it.

    Attributes:
        code: the close code to send.
        reason: one plain sentence, at most 123 bytes, fit for a Close frame and for a log.
    """

    code: CloseCode
    reason: str


# A whole text message *is* a str and a whole binary message *is* bytes: no wrapper on the hot path.
Event = str | bytes | Ping | Pong | CloseReceived | Failure


class ProtocolViolation(WSFrameworkError):
    """The peer's bytes break a rule. Inside `wire` only: `Decoder.feed` turns it into a `Failure`."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def too_big(max_message_bytes: int) -> ProtocolViolation:
    """Return the violation of a message that has more bytes than it may."""
    return ProtocolViolation(
        CloseCode.MESSAGE_TOO_BIG, f"a message has more than {max_message_bytes} bytes, the limit here"
    )


def protocol_error(reason: str) -> ProtocolViolation:
    """Return what fails a connection with 1002."""
    return ProtocolViolation(CloseCode.PROTOCOL_ERROR, reason)
