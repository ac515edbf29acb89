"""The chunks of an HTTP body: what is taken and refused, however it is cut, and how long it takes."""

from __future__ import annotations

import time

import pytest

from wsframework.server.chunks import ChunkReader

GOOD = [
    (b"0\r\n\r\n", b""),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b'00005;name="a;b"\r\nhello\r\nA \t\r\n0123456789\r\n000 ; x\r\n\r\n', b"hello0123456789"),
    (b"4\r\n\r\n\r\n\r\n0\r\nDigest: x\r\nEmpty:\r\n\r\n", b"\r\n\r\n"),
]
BAD = [
    b"\r\n",
    b"x\r\n",
    b"0x5\r\n",
    b"+5\r\n",
    b" 5\r\n",
    b"5\n",
    b"5\rhello\n",
    b"5;a\nb\r\n",
    b"5;\0\r\n",
    b"5\r\nhelloX",
    b"5\r\nhello\n",
    b"5\r\nhello\rX",
    b"1000000000000000\r\n",
    b"1;" + b"x" * 4096,
    b"0\r\nno field\r\n",
    b"0\r\n: x\r\n",
    b"0\r\n folded\r\n",
    b"0\r\na: b\n\r\n",
    b"0\r\n" + b"a: b\r\n" * 700,
    b"0\r\na:" + b"b" * 4096,
]


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
@pytest.mark.parametrize(("data", "content"), GOOD)
def test_the_content_is_the_same_however_the_bytes_come(data: bytes, content: bytes, step: int) -> None:
    reader, found = ChunkReader(), b""
    for place in range(0, len(data), step):
        assert not reader.complete
        found += reader.feed(data[place : place + step])
    assert (found, reader.complete, reader.trailing) == (content, True, b"")


def test_what_follows_is_left_to_the_next_request() -> None:
    reader = ChunkReader()
    assert reader.feed(b"1\r\nx\r\n0\r\n\r\nGET / HTTP/1.1\r\n") == b"x"
    assert reader.trailing == b"GET / HTTP/1.1\r\n"


@pytest.mark.parametrize("step", [1, 10_000])
@pytest.mark.parametrize("data", BAD)
def test_what_another_parser_may_read_differently_is_refused(data: bytes, step: int) -> None:
    reader = ChunkReader()
    with pytest.raises(ValueError, match="chunk"):
        _ = [reader.feed(data[place : place + step]) for place in range(0, len(data), step)]
    assert not reader.complete


@pytest.mark.parametrize("chunk", [b"1\r\nx\r\n", b"2;e\r\nxy\r\n"])
def test_a_flood_of_tiny_chunks_takes_little_time(chunk: bytes) -> None:
    data = chunk * (64 * 1024 // len(chunk))

    def seconds() -> float:
        began = time.thread_time()
        ChunkReader().feed(data)
        return time.thread_time() - began

    # It takes 10 ms. By h11, or with a copy of the rest for each, it was half a second.
    assert min(seconds() for _ in range(5)) < 0.06
