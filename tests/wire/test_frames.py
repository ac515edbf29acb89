from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.decoding import KEY, repeatable
from tests.wire.encoding import encode_binary, encode_text
from wsframework.wire import (
    Decoder,
    Opcode,
    close_payload,
    encode_close,
    encode_frame,
    encode_message,
    encode_ping,
    encode_pong,
    frame_header,
)

pytestmark = pytest.mark.usefixtures("masking", "decoding", "encoding")

# RFC 6455 §5.7, the examples.
EXAMPLES = [
    (encode_text("Hello"), "81 05 48 65 6c 6c 6f"),
    (encode_frame(Opcode.TEXT, b"Hello", masking_key=KEY), "81 85 37 fa 21 3d 7f 9f 4d 51 58"),
    (encode_frame(Opcode.TEXT, b"Hel", fin=False), "01 03 48 65 6c"),
    (encode_frame(Opcode.CONTINUATION, b"lo"), "80 02 6c 6f"),
    (encode_ping(b"Hello"), "89 05 48 65 6c 6c 6f"),
    (encode_frame(Opcode.PONG, b"Hello", masking_key=KEY), "8a 85 37 fa 21 3d 7f 9f 4d 51 58"),
    (encode_binary(bytes(256))[:4], "82 7e 01 00"),
    (encode_binary(bytes(65536))[:10], "82 7f 00 00 00 00 00 01 00 00"),
    # RFC 7692 §7.2.3.1
    (
        encode_frame(Opcode.TEXT, bytes.fromhex("f248cdc9c90700"), rsv1=True),
        "c1 07 f2 48 cd c9 c9 07 00",
    ),
]


@pytest.mark.parametrize(("encoded", "expected"), EXAMPLES)
def test_the_examples_of_the_rfcs_come_out_byte_for_byte(encoded: bytes, expected: str) -> None:
    assert encoded == bytes.fromhex(expected)


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (0, "81 00"),
        (125, "81 7d"),
        (126, "81 7e 00 7e"),
        (65_535, "81 7e ff ff"),
        (65_536, "81 7f 00 00 00 00 00 01 00 00"),
    ],
)
def test_the_length_takes_the_fewest_bytes(length: int, header: str) -> None:
    frame = bytes.fromhex(header) + b"x" * length
    assert encode_text("x" * length) == frame
    assert encode_frame(Opcode.TEXT, b"x" * length) == frame
    assert frame_header(Opcode.TEXT, length) == bytes.fromhex(header)
    binary = b"\x82" + frame[1:]
    assert encode_message(Opcode.TEXT, b"x" * length) == frame
    assert encode_message(Opcode.BINARY, b"x" * length) == binary
    compressed = encode_frame(Opcode.TEXT, b"x" * length, rsv1=True)
    assert encode_message(Opcode.TEXT, b"x" * length, compressed=True) == compressed == b"\xc1" + frame[1:]


@repeatable(100)
@given(st.text(max_size=200))
def test_text_comes_back_as_it_went(message: str) -> None:
    assert Decoder(masked=False, max_message_bytes=None).feed(encode_text(message)) == [message]


@pytest.mark.parametrize("opcode", [Opcode.CLOSE, Opcode.PING, Opcode.PONG])
def test_a_control_frame_over_125_bytes_is_refused(opcode: Opcode) -> None:
    assert len(encode_frame(opcode, bytes(125))) == 127
    with pytest.raises(ValueError, match="at most 125 bytes, not 126"):
        encode_frame(opcode, bytes(126))


def test_pings_and_pongs_over_125_bytes_are_refused() -> None:
    for encode in (encode_ping, encode_pong):
        assert encode(bytes(125))[1] == 125
        with pytest.raises(ValueError):
            encode(bytes(126))


def test_a_control_frame_cannot_be_fragmented() -> None:
    with pytest.raises(ValueError, match="fragmented"):
        encode_frame(Opcode.PING, b"", fin=False)


@pytest.mark.parametrize("opcode", [3, 7, 11, 15, 16, -1])
def test_reserved_opcodes_are_refused(opcode: int) -> None:
    with pytest.raises(ValueError):
        encode_frame(opcode, b"")


@pytest.mark.parametrize("opcode", [Opcode.CONTINUATION, Opcode.CLOSE, Opcode.PING])
def test_only_a_first_frame_may_say_it_is_compressed(opcode: Opcode) -> None:
    with pytest.raises(ValueError, match="RSV1"):
        encode_frame(opcode, b"", rsv1=True)


def test_a_length_of_64_bits_is_refused() -> None:
    assert frame_header(Opcode.BINARY, 2**63 - 1) == bytes.fromhex("827f7fffffffffffffff")
    with pytest.raises(ValueError, match="63 bits"):
        frame_header(Opcode.BINARY, 2**63)


@pytest.mark.parametrize(
    ("code", "reason", "payload"),
    [(1000, "", "03e8"), (1001, "bye", "03e9627965"), (4999, "é", "1387c3a9"), (1005, "", "")],
)
def test_a_close_frame_holds_code_and_reason(code: int, reason: str, payload: str) -> None:
    expected = bytes.fromhex(payload)
    assert close_payload(code, reason) == expected
    assert encode_close(code, reason) == bytes((0x88, len(expected))) + expected


def test_close_code_1005_is_never_sent() -> None:
    assert encode_close(1005) == b"\x88\x00"
    with pytest.raises(ValueError):
        encode_close(1005, "a reason needs a code")


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 1016, 2999, 5000, 65_536])
def test_close_codes_that_may_not_be_sent_are_refused(code: int) -> None:
    with pytest.raises(ValueError, match=str(code)):
        encode_close(code)


def test_a_close_reason_has_at_most_123_bytes() -> None:
    assert len(encode_close(1000, "é" * 61 + "x")) == 127
    with pytest.raises(ValueError, match="124"):
        encode_close(1000, "é" * 62)
