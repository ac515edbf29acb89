"""The recorder lets nothing pass that RFC 6455 does not allow, however the bytes are cut."""

from __future__ import annotations

import zlib

import pytest

from tests.wire.encoding import encode_binary, encode_text
from wsframework import Deflate
from wsframework.closes import CloseFrame
from wsframework.testing import Frame, FrameRecorder, InvalidFrame, Recorded, memory_pair
from wsframework.wire import (
    DeflateParameters,
    Opcode,
    encode_close,
    encode_frame,
    encode_ping,
    server_codecs,
)

SOME = (
    encode_text("hello")
    + encode_binary(b"x" * 300)
    + encode_frame(Opcode.TEXT, "grü".encode()[:3], fin=False)
    + encode_ping(b"in between")
    + encode_frame(Opcode.CONTINUATION, "grü".encode()[3:], fin=True)
    + encode_close(4000, "bye")
)


@pytest.mark.parametrize("step", [1, 2, 7, 300, len(SOME)])
def test_it_lists_frames_and_messages_however_the_bytes_are_cut(step: int) -> None:
    recorder = FrameRecorder()
    for start in range(0, len(SOME), step):
        recorder.feed(SOME[start : start + step])
    recorder.end()
    assert recorder.messages == ["hello", b"x" * 300, "grü"]
    assert recorder.close == CloseFrame(4000, "bye")
    assert [(frame.opcode, frame.fin) for frame in recorder.frames] == [
        (Opcode.TEXT, True),
        (Opcode.BINARY, True),
        (Opcode.TEXT, False),
        (Opcode.PING, True),
        (Opcode.CONTINUATION, True),
        (Opcode.CLOSE, True),
    ]
    assert recorder.frames[3] == Frame(Opcode.PING, b"in between")


def test_it_reads_what_clients_send_too() -> None:
    recorder = FrameRecorder(masked=True)
    recorder.feed(encode_frame(Opcode.TEXT, b"hi", masking_key=b"abcd"))
    assert recorder.messages == ["hi"]
    assert recorder.frames == [Frame(Opcode.TEXT, b"hi")]


def test_it_inflates_when_it_is_told_how() -> None:
    deflater, inflater = server_codecs(DeflateParameters(), Deflate(threshold_bytes=0))
    compressed = deflater.encode_message(Opcode.TEXT, b"hello " * 100)
    recorder = FrameRecorder(inflater=inflater)
    recorder.feed(compressed)
    assert recorder.messages == ["hello " * 100]
    assert recorder.frames[0].rsv1
    assert zlib.decompressobj(-15).decompress(recorder.frames[0].payload) == b"hello " * 100


WRONG = {
    "a frame that was cut off by the next": encode_binary(b"x" * 1000)[:500]
    + encode_binary(b"y" * 600)
    + encode_text("small"),
    "a masked frame from a server": encode_frame(Opcode.TEXT, b"hi", masking_key=b"abcd"),
    "a continuation of nothing": encode_frame(Opcode.CONTINUATION, b"x"),
    "a message inside a message": encode_frame(Opcode.TEXT, b"x", fin=False) + encode_text("y"),
    "text that is no UTF-8": encode_frame(Opcode.TEXT, b"\xff"),
    "a reserved opcode": bytes([0x83, 0]),
    "a reserved bit": bytes([0xA1, 0]),
    "compression that nobody agreed to": encode_frame(Opcode.TEXT, b"x", rsv1=True),
    "a length that is not the shortest": bytes([0x82, 126, 0, 1]) + b"x",
    "a fragmented ping": bytes([0x09, 0]),
    "a close code that may not be sent": bytes([0x88, 2]) + (1005).to_bytes(2, "big"),
    "a frame behind the Close frame": encode_close(1000) + encode_text("more"),
}


@pytest.mark.parametrize("data", WRONG.values(), ids=list(WRONG))
@pytest.mark.parametrize("step", [1, 1000])
def test_what_is_wrong_raises(data: bytes, step: int) -> None:
    recorder = FrameRecorder()
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    with pytest.raises(InvalidFrame):
        feed_all(recorder, pieces)


def feed_all(recorder: FrameRecorder, pieces: list[bytes]) -> None:
    for piece in pieces:
        recorder.feed(piece)


def test_bytes_in_a_later_read_behind_the_close_frame_raise() -> None:
    recorder = FrameRecorder()
    recorder.feed(encode_close(1000))
    recorder.feed(b"")
    with pytest.raises(InvalidFrame, match="after the Close frame 1000"):
        recorder.feed(b"\x81")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encode_text("hello") + encode_binary(b"x" * 100)[:50], "middle of a frame: 50 bytes"),
        (encode_frame(Opcode.TEXT, b"x", fin=False), "fragmented message"),
    ],
    ids=["of a frame", "of a message"],
)
def test_an_end_in_the_middle_raises(data: bytes, message: str) -> None:
    recorder = FrameRecorder()
    recorder.feed(data)
    with pytest.raises(InvalidFrame, match=message):
        recorder.end()


def test_the_head_is_kept_apart() -> None:
    recorder = FrameRecorder(http_head=True)
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    for byte in head + encode_text("hi"):
        recorder.feed(bytes([byte]))
    recorder.end()
    assert recorder.head == head
    assert recorder.messages == ["hi"]


def test_the_body_of_a_refusal_is_not_taken_for_frames() -> None:
    recorder = FrameRecorder(http_head=True)
    recorder.feed(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nsorry")
    recorder.end()
    assert recorder.frames == []


def test_an_end_in_the_head_raises() -> None:
    recorder = FrameRecorder(http_head=True)
    recorder.end()
    recorder.feed(b"HTTP/1.1 10")
    with pytest.raises(InvalidFrame, match="HTTP head"):
        recorder.end()


async def test_a_recorded_stream_raises_where_the_bytes_are_read() -> None:
    ours, theirs = memory_pair()
    recorded = Recorded(ours, FrameRecorder())
    await theirs.send_all(encode_text("hello"))
    assert await recorded.receive_some() == encode_text("hello")
    assert recorded.recorder.messages == ["hello"]
    await theirs.send_all(b"\x81\x05he")
    await recorded.receive_some()
    await theirs.send_eof()
    with pytest.raises(InvalidFrame):
        await recorded.receive_some()


async def test_a_recorded_stream_may_be_told_that_connections_get_lost() -> None:
    ours, theirs = memory_pair()
    recorded = Recorded(ours, FrameRecorder(), check_end=False)
    await theirs.send_all(b"\x81\x05he")
    await theirs.send_eof()
    await recorded.receive_some()
    assert await recorded.receive_some() == b""
    with pytest.raises(InvalidFrame):
        recorded.recorder.end()
