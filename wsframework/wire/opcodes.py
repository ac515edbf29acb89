"""What a frame carries, as numbers (RFC 6455 §5.2)."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["BINARY", "PING", "TEXT", "Opcode"]


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
