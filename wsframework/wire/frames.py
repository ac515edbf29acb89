"""Encode frames (RFC 6455 §5.2), and read the lengths in their headers.

       0                   1                   2                   3
       0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
      +-+-+-+-+-------+-+-------------+-------------------------------+
      |F|R|R|R| opcode|M| Payload len |    Extended payload length    |
      |I|S|S|S|  (4)  |A|     (7)     |    (16 bits if len == 126,    |
      |N|V|V|V|       |S|             |     64 bits if len == 127)    |
      | |1|2|3|       |K|             |                               |
      +-+-+-+-+-------+-+-------------+-------------------------------+
      | Masking-key (4 bytes), if MASK is set |      Payload          |
      +---------------------------------------+-----------------------+

A server's frames are short and unmasked nearly always, so their two-byte headers lie ready in tables.
Functions without `masking_key` encode a server's frame: "A server MUST NOT mask any frames that it sends to
the client" (§5.1).
"""

from __future__ import annotations

from wsframework.closes import CloseCode, check_close
from wsframework.wire.events import protocol_error
from wsframework.wire.implementations import choose
from wsframework.wire.masking import apply_mask
from wsframework.wire.opcodes import Opcode

__all__ = [
    "MAX_CONTROL_PAYLOAD",
    "close_payload",
    "encode_close",
    "encode_frame",
    "encode_message",
    "encode_ping",
    "encode_pong",
    "extended_length",
    "frame_header",
    "pure_encode_message",
]

MAX_CONTROL_PAYLOAD = 125
"""Bytes. "All control frames MUST have a payload length of 125 bytes or less" (RFC 6455 §5.5)."""

_MAX_LENGTH = 2**63 - 1  # "the most significant bit MUST be 0" (§5.2)

# By first byte, then by length: text and binary, plain and compressed (RSV1), all of them final.
_SHORT_HEADERS = {
    first: tuple(bytes((first, length)) for length in range(126)) for first in (0x81, 0x82, 0xC1, 0xC2)
}


def pure_encode_message(opcode: int, payload: bytes, *, compressed: bool = False) -> bytes:
    """Encode a payload that is already bytes as one unmasked, final text or binary frame.

    Args:
        opcode: `Opcode.TEXT` or `Opcode.BINARY`.
        payload: the whole message; of a text, its UTF-8.
        compressed: whether the payload is a compressed message's (RFC 7692 §6).
    """
    first = (0xC0 if compressed else 0x80) | opcode
    length = len(payload)
    if length < 126:
        return _SHORT_HEADERS[first][length] + payload
    return _extended_header(first, length, 0) + payload


encode_message = choose("encoding", {"pure": pure_encode_message})


def encode_frame(
    opcode: int,
    payload: bytes,
    *,
    fin: bool = True,
    rsv1: bool = False,
    masking_key: bytes | None = None,
) -> bytes:
    """Encode any frame.

    Args:
        opcode: one of `Opcode`.
        payload: the payload, not masked yet.
        fin: whether this is the message's last frame.
        rsv1: whether the message is compressed (RFC 7692 §6); only for its first frame.
        masking_key: four unpredictable bytes, for a client's frame.

    Raises:
        ValueError: a frame RFC 6455 does not allow.
    """
    header = frame_header(opcode, len(payload), fin=fin, rsv1=rsv1, masked=masking_key is not None)
    if masking_key is None:
        return header + payload
    return header + masking_key + apply_mask(payload, masking_key)


def frame_header(
    opcode: int, length: int, *, fin: bool = True, rsv1: bool = False, masked: bool = False
) -> bytes:
    """Encode a frame's header, without the masking key: for payloads that are sent without being joined.

    Raises:
        ValueError: a frame RFC 6455 does not allow.
    """
    opcode = Opcode(opcode)
    if opcode >= Opcode.CLOSE:
        # "All control frames MUST have a payload length of 125 bytes or less and MUST NOT be fragmented."
        if length > MAX_CONTROL_PAYLOAD:
            raise ValueError(f"a control frame carries at most 125 bytes, not {length} (RFC 6455 §5.5)")
        if not fin:
            raise ValueError("a control frame cannot be fragmented (RFC 6455 §5.5)")
    if rsv1 and opcode not in (Opcode.TEXT, Opcode.BINARY):
        raise ValueError("only a message's first frame carries RSV1 (RFC 7692 §6)")
    first = opcode | (0x80 if fin else 0) | (0x40 if rsv1 else 0)
    mask_bit = 0x80 if masked else 0
    if length < 126:
        return bytes((first, mask_bit | length))
    return _extended_header(first, length, mask_bit)


def _extended_header(first: int, length: int, mask_bit: int) -> bytes:
    # "the minimal number of bytes MUST be used to encode the length" (§5.2)
    if length < 65536:
        return bytes((first, mask_bit | 126)) + length.to_bytes(2, "big")
    if length > _MAX_LENGTH:
        raise ValueError(f"a frame's length has 63 bits; {length} does not fit (RFC 6455 §5.2)")
    return bytes((first, mask_bit | 127)) + length.to_bytes(8, "big")


def encode_close(code: int, reason: str = "") -> bytes:
    """Encode an unmasked Close frame; code 1005 means an empty payload.

    Raises:
        ValueError: the code or the reason may not be sent (RFC 6455 §7.4).
    """
    return frame_header(Opcode.CLOSE, len(payload := close_payload(code, reason))) + payload


def close_payload(code: int, reason: str = "") -> bytes:
    """Return a Close frame's payload: two bytes of code, then the reason in UTF-8 (RFC 6455 §5.5.1).

    Raises:
        ValueError: the code or the reason may not be sent (RFC 6455 §7.4).
    """
    if code == CloseCode.NO_STATUS_RECEIVED and not reason:
        # 1005 "MUST NOT be set as a status code in a Close control frame" (§7.4.1); it means there is none.
        return b""
    check_close(code, reason)
    return code.to_bytes(2, "big") + reason.encode()


def encode_ping(payload: bytes = b"") -> bytes:
    """Encode an unmasked Ping frame.

    Raises:
        ValueError: more than 125 bytes of payload.
    """
    return frame_header(Opcode.PING, len(payload)) + payload


def encode_pong(payload: bytes = b"") -> bytes:
    """Encode an unmasked Pong frame; it "must have identical 'Application data'" to its ping (§5.5.3).

    Raises:
        ValueError: more than 125 bytes of payload.
    """
    return frame_header(Opcode.PONG, len(payload)) + payload


def extended_length(field: bytes) -> int:
    """Read a payload length of 2 or 8 bytes.

    Raises:
        ProtocolViolation: 1002; a shorter form would have done, or the length has 64 bits.
    """
    length = int.from_bytes(field, "big")
    # "in all cases, the minimal number of bytes MUST be used to encode the length" (§5.2)
    if length < (126 if len(field) == 2 else 65536):
        raise protocol_error(f"a length of {length} is written in {len(field)} bytes, not in the fewest")
    # "the most significant bit MUST be 0" (§5.2)
    if length >> 63:
        raise protocol_error("a 64-bit length has its most significant bit set")
    return length
