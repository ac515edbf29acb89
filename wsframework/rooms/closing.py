"""The message that closes the members of a room: engines carry it as they carry any other."""

from __future__ import annotations

from wsframework.closes import CloseFrame, check_close
from wsframework.rooms.engine import RoomMessage
from wsframework.wire import Opcode, close_payload

__all__ = ["close_frame_in", "message_that_closes"]


def message_that_closes(code: int, reason: str) -> RoomMessage:
    """Return the message that has every process close its members of the room.

    Raises:
        ValueError: the code or the reason may not be sent (RFC 6455 §7.4).
    """
    check_close(code, reason)
    return RoomMessage(int(Opcode.CLOSE), close_payload(code, reason))


def close_frame_in(message: RoomMessage) -> CloseFrame:
    """Return the Close frame in such a message, whose origin may be anything that writes to the broker.

    Raises:
        ValueError: there is none.
    """
    opcode, payload = message.opcode, message.payload
    if opcode != Opcode.CLOSE:
        raise ValueError(f"opcode {opcode} is no message of a room")
    # Less than two bytes are no code that may be sent.
    frame = CloseFrame(int.from_bytes(payload[:2]), payload[2:].decode())
    check_close(frame.code, frame.reason)
    return frame
