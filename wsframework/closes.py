"""How a connection closes: Close frames, the rules for their codes, and what a client should do about each.

A client that reconnects by itself must know after which codes it should; `SENT_CODES` has this for every code
that the server sends.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

import attrs

__all__ = [
    "MAX_REASON_BYTES",
    "RESTARTING",
    "SHUTTING_DOWN",
    "SENT_CODES",
    "CloseCode",
    "CloseFrame",
    "Closed",
    "SentCode",
    "check_close",
    "is_valid_close_code",
]


class CloseCode(IntEnum):
    """Why a connection closes (RFC 6455 §7.4.1 and the IANA registry of WebSocket close codes).

    Attributes:
        meaning: what the code tells the peer, in a few words.
    """

    meaning: str

    NORMAL_CLOSURE = 1000, "normal closure: done"
    GOING_AWAY = 1001, "going away: the server stops, or the page was left"
    PROTOCOL_ERROR = 1002, "protocol error"
    UNSUPPORTED_DATA = 1003, "a kind of data that the other side cannot take"
    NO_STATUS_RECEIVED = 1005, "no code in the Close frame"
    ABNORMAL_CLOSURE = 1006, "lost without a Close frame"
    INVALID_PAYLOAD = 1007, "payload that does not fit its type, such as bad UTF-8"
    POLICY_VIOLATION = 1008, "against the policy"
    MESSAGE_TOO_BIG = 1009, "a message too big"
    MANDATORY_EXTENSION = 1010, "an extension that the client needs was not agreed on"
    INTERNAL_ERROR = 1011, "internal error"
    SERVICE_RESTART = 1012, "the service restarts"
    TRY_AGAIN_LATER = 1013, "try again later"
    BAD_GATEWAY = 1014, "a gateway got a bad answer"
    TLS_HANDSHAKE = 1015, "TLS failed"

    def __new__(cls, code: int, meaning: str = "") -> CloseCode:
        """Take a member's number and what it means."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member


@attrs.frozen
class CloseFrame:
    """The contents of one Close frame (RFC 6455 §5.5.1).

    Attributes:
        code: the close code; 1005 stands for a Close frame with an empty payload.
        reason: the close reason, at most 123 bytes of UTF-8.
    """

    code: int
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.code} ({self.reason})" if self.reason else str(self.code)


SHUTTING_DOWN = CloseFrame(1001, "the server is shutting down")
"""What every client gets when a server stops."""

RESTARTING = CloseFrame(1012, "service restart")
"""The same when another server takes its place, which clients may connect to at once."""


@attrs.frozen
class Closed:
    """How a connection ended: both Close frames, and whose came first.

    Attributes:
        sent: the Close frame we sent, or None when the connection died before we could.
        received: the peer's Close frame, or None when it left without one.
        sent_first: True when we started the closing handshake, False when the peer did, None when
            neither side sent a Close frame (the transport was lost).
        cause: one plain sentence for logs.
    """

    sent: CloseFrame | None
    received: CloseFrame | None
    sent_first: bool | None
    cause: str = ""

    @property
    def code(self) -> int:
        """The peer's close code, or 1006 when it sent no Close frame (RFC 6455 §7.1.5)."""
        return self.received.code if self.received is not None else 1006

    @property
    def reason(self) -> str:
        """The peer's close reason, or an empty string (RFC 6455 §7.1.6)."""
        return self.received.reason if self.received is not None else ""

    @property
    def clean(self) -> bool:
        """True when both Close frames crossed: "closed cleanly" (RFC 6455 §7.1.4)."""
        return self.sent is not None and self.received is not None

    def __str__(self) -> str:
        match self.sent_first:
            case True:
                answer = f"the peer answered {self.received}" if self.received else "the peer sent none"
                text = f"we sent Close {self.sent}, {answer}"
            case False:
                answer = f"we answered {self.sent}" if self.sent else "we could not answer"
                text = f"the peer sent Close {self.received}, {answer}"
            case None:
                text = "no Close frame was sent or received"
        return f"{text}; {self.cause}" if self.cause else text


@attrs.frozen
class SentCode:
    """A close code that the server sends by itself.

    Attributes:
        code: the code.
        when: when it is sent.
        reconnect: what a client should do: come back `"at once"` (after a random moment, because all others
            come too), `"later"` (with growing pauses), `"with a fresh token"`, or `"never"`, because the same
            would happen again.
    """

    code: int
    when: str
    reconnect: Literal["at once", "later", "with a fresh token", "never"]


SENT_CODES = (
    SentCode(1000, "the handler returned", "never"),
    SentCode(1001, "the server is shutting down", "at once"),
    SentCode(1002, "the client broke RFC 6455", "never"),
    SentCode(1007, "a text is not UTF-8, or compressed data cannot be inflated", "never"),
    SentCode(1008, "the client exceeded a limit on frames, requests or rooms", "never"),
    SentCode(1009, "a message is larger than `Limits.message_bytes`", "never"),
    SentCode(1011, "the handler crashed, or the server failed", "later"),
    SentCode(1012, "the server restarts, or the connection is older than `Limits.connection_age`", "at once"),
    SentCode(1013, "the client is too slow for its room", "later"),
    SentCode(4401, "`Reject(401, close=4401)`: the client is not signed in", "with a fresh token"),
    SentCode(4409, "another connection has resumed the session", "never"),
)
"""Every code that the server sends unless a program chooses one, and 4401, which programs choose for this."""

MAX_REASON_BYTES = 123
"""A control frame's payload is at most 125 bytes (RFC 6455 §5.5), and the code takes two of them."""


def check_close(code: int, reason: str) -> None:
    """Raise ValueError unless `code` and `reason` may stand in a Close frame (RFC 6455 §7.4)."""
    given: object = code
    if not isinstance(given, int) or not is_valid_close_code(given):
        raise ValueError(
            f"close code {code!r} may not be sent: use 1000 to 1003, 1007 to 1014, or 3000 to 4999 "
            "(RFC 6455 §7.4)"
        )
    size = len(reason.encode())
    if size > MAX_REASON_BYTES:
        raise ValueError(f"a close reason has at most {MAX_REASON_BYTES} bytes of UTF-8; this one has {size}")


def is_valid_close_code(code: int) -> bool:
    """Whether `code` may stand in a Close frame on the wire (RFC 6455 §7.4.1, §7.4.2, IANA registry)."""
    return code in _WIRE_CODES or 3000 <= code <= 4999


# 1005, 1006 and 1015 "MUST NOT be set as a status code in a Close control frame": they tell the application
# that no code came, that no Close frame came, and that TLS failed.
_WIRE_CODES = frozenset(map(int, CloseCode)) - {1005, 1006, 1015}
