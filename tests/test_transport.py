"""Messages encoded once, and the transport of a connection that is gone."""

from __future__ import annotations

from typing import Any

import pytest

from wsframework.closes import CloseFrame
from wsframework.transport import GONE, encode, to_bytes
from wsframework.wire import Decoder, Opcode


@pytest.mark.parametrize(
    ("message", "opcode", "payload"),
    [
        ("naïve", Opcode.TEXT, "naïve".encode()),
        (b"\x00\xff", Opcode.BINARY, b"\x00\xff"),
        (bytearray(b"ab"), Opcode.BINARY, b"ab"),
        (memoryview(b"abcd")[::2], Opcode.BINARY, b"ac"),
        ("x" * 70_000, Opcode.TEXT, b"x" * 70_000),
    ],
)
def test_a_message_is_encoded_once_as_payload_and_as_frame(message: Any, opcode: int, payload: bytes) -> None:
    encoded = encode(message)
    assert (encoded.opcode, encoded.payload) == (opcode, payload)
    expected = payload.decode() if opcode is Opcode.TEXT else payload
    assert Decoder(masked=False, max_message_bytes=None).feed(encoded.frame) == [expected]


def test_what_is_neither_text_nor_bytes_is_refused_with_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"str or bytes-like, not dict; encode it first \(json.dumps"):
        encode({"a": 1})  # type: ignore[arg-type]


def test_a_lone_surrogate_cannot_be_sent() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode("\ud800")


class OddText(str):
    def encode(self, *_: object) -> Any:
        return "this is no bytes"


def test_a_text_that_encodes_itself_oddly_is_the_text_it_is() -> None:
    assert encode(OddText("x")).payload == b"x"


def test_bytes_that_their_owner_may_change_are_copied() -> None:
    buffer = bytearray(b"before")
    taken = to_bytes(buffer)
    buffer[:] = b"after!"
    assert taken == b"before"
    whole = b"never changes"
    assert to_bytes(whole) is whole


def test_a_transport_that_is_gone_takes_everything_and_does_nothing() -> None:
    GONE.send(1, b"x")
    GONE.send_encoded(encode("x"))
    GONE.close(CloseFrame(1000))
    GONE.pause_reading()
    GONE.resume_reading()
    GONE.flush_now()
    GONE.after(0, lambda: pytest.fail("called back")).cancel()
    assert (GONE.outbox_bytes, GONE.room_wanted) == (0, False)
