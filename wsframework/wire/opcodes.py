"""The two number registries of the protocol: what a frame is, and why a connection closes."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["BINARY", "PING", "TEXT", "CloseCode", "Opcode"]


class Opcode(IntEnum):
    """What a frame carries (RFC 6455 §5.2). 3-7 and 11-15 are reserved: a peer that uses one is failed."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


TEXT, BINARY, PING = int(Opcode.TEXT), int(Opcode.BINARY), int(Opcode.PING)
"""Plain numbers for what runs once a message: an attribute of an enum costs several times as much."""


class CloseCode(IntEnum):
    """Why a connection closes (RFC 6455 §7.4.1 and the IANA registry of WebSocket close codes).

    1005, 1006 and 1015 never stand on the wire: they tell the application that no code came, that no Close
    frame came, and that TLS failed. What may be sent is `closes.is_valid_close_code`'s to say.
    """

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RECEIVED = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015
