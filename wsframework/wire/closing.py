"""The closing handshake (RFC 6455 §5.5.1, §7) as a table of states.

Each side sends at most one Close frame, and the handshake is complete when both were sent, in either order:

                  we send                      the peer answers
        OPEN ───────────────▶ CLOSE_SENT ─────────────────────────▶ CLOSED
          │                                                           ▲
          └─────────────────▶ CLOSE_RECEIVED ─────────────────────────┘
             the peer sends                    we answer (at once)

From every state but CLOSED the loss of the transport leads to LOST. CLOSED and LOST are final. After CLOSED
"the server MUST close the underlying TCP connection immediately" (§5.5.1). The transport does that, waits and
applies the time limits. This table only says which Close frame may be sent, and how the connection ended.
"""

from __future__ import annotations

from enum import Enum, auto

from wsframework.closes import CloseCode, Closed, CloseFrame, is_valid_close_code
from wsframework.wire.events import ProtocolViolation, protocol_error
from wsframework.wire.frames import encode_close

__all__ = ["CloseState", "ClosingHandshake", "read_close"]


class CloseState(Enum):
    """Where the closing handshake stands; `CLOSE_RECEIVED` lasts only until the answer is encoded."""

    __hash__ = object.__hash__  # `Enum`'s is Python code, and each closing asks eight times

    OPEN = auto()
    CLOSE_SENT = auto()
    CLOSE_RECEIVED = auto()
    CLOSED = auto()
    LOST = auto()


class _Step(Enum):
    __hash__ = object.__hash__

    SEND = auto()
    RECEIVE = auto()
    LOSE = auto()


# What is not in the table changes nothing: a second Close frame in either direction, and all that comes
# after the end.
_TABLE = {
    CloseState.OPEN: {
        _Step.SEND: CloseState.CLOSE_SENT,
        _Step.RECEIVE: CloseState.CLOSE_RECEIVED,
        _Step.LOSE: CloseState.LOST,
    },
    CloseState.CLOSE_SENT: {
        _Step.RECEIVE: CloseState.CLOSED,
        _Step.LOSE: CloseState.LOST,
    },
    CloseState.CLOSE_RECEIVED: {
        _Step.SEND: CloseState.CLOSED,
        _Step.LOSE: CloseState.LOST,
    },
    CloseState.CLOSED: {},
    CloseState.LOST: {},
}


class ClosingHandshake:
    """One connection's closing handshake, from either side's point of view.

    Attributes:
        state: where it stands.
        sent: our Close frame, once its bytes were handed out.
        received: the peer's Close frame.
        sent_first: True when ours was the first, False when the peer's was, None before either.
    """

    __slots__ = ("received", "sent", "sent_first", "state")

    def __init__(self) -> None:
        self.state = CloseState.OPEN
        self.sent: CloseFrame | None = None
        self.received: CloseFrame | None = None
        self.sent_first: bool | None = None

    def send(self, frame: CloseFrame) -> bytes | None:
        """Return the unmasked Close frame to write, or None when there is none to send any more.

        Raises:
            ValueError: the code or the reason may not be sent (RFC 6455 §7.4).
        """
        if _Step.SEND not in _TABLE[self.state]:
            return None
        encoded = encode_close(frame.code, frame.reason)  # may raise: before the state changes
        self._step(_Step.SEND)
        self.sent = frame
        if self.sent_first is None:
            self.sent_first = True
        return encoded

    def receive(self, frame: CloseFrame) -> bytes | None:
        """Take the peer's Close frame; return the answer to write, or None when ours went out before."""
        if _Step.RECEIVE not in _TABLE[self.state]:
            return None
        self._step(_Step.RECEIVE)
        self.received = frame
        if self.sent_first is None:
            self.sent_first = False
        # "If an endpoint receives a Close frame and did not previously send a Close frame, the endpoint MUST
        # send a Close frame in response. (When sending a Close frame in response, the endpoint typically
        # echos the status code it received.)" (§5.5.1). An empty payload is answered with one.
        return self.send(CloseFrame(frame.code))

    def hear(self, frame: CloseFrame) -> None:
        """Take note of the peer's Close frame, to be given to `receive` when it may be answered."""
        # "the close code contained in the first Close control frame received" (§7.1.5): if the transport is
        # lost before the answer, it was received all the same.
        if self.state is CloseState.OPEN:
            self.received = frame
            self.sent_first = False

    def lost(self) -> None:
        """Take note that the transport is gone; a completed handshake stays completed."""
        self._step(_Step.LOSE)

    def outcome(self, cause: str = "") -> Closed:
        """Return how the connection ended, as far as it has; `cause` is one plain sentence for logs."""
        return Closed(self.sent, self.received, self.sent_first, cause)

    def _step(self, step: _Step) -> None:
        self.state = _TABLE[self.state].get(step, self.state)


def read_close(payload: bytes) -> CloseFrame:
    """Read the payload of a Close frame.

    Raises:
        ProtocolViolation: 1002 or 1007; it may not be one.
    """
    # "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned integer [...] Following
    # the 2-byte integer, the body MAY contain UTF-8-encoded data" (§5.5.1)
    if not payload:
        return CloseFrame(CloseCode.NO_STATUS_RECEIVED)
    if len(payload) == 1:
        raise protocol_error("a Close frame has half a close code")
    code = int.from_bytes(payload[:2], "big")
    if not is_valid_close_code(code):
        raise protocol_error(f"close code {code} may not be sent")
    try:
        return CloseFrame(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise ProtocolViolation(CloseCode.INVALID_PAYLOAD, "invalid UTF-8 in a close reason") from None
