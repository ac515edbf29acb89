"""Feed the same bytes in every way TCP may deliver them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hypothesis import settings

from wsframework.closes import CloseFrame
from wsframework.wire import CloseReceived, Decoder, Event, Opcode, Ping, Pong, encode_frame

TEXT, BINARY, CONTINUATION = Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION
KEY = b"\x37\xfa\x21\x3d"  # the masking key of the RFC's own example (§5.7)

MakeDecoder = Callable[[], Decoder]


def repeatable(examples: int) -> settings:
    """The same examples in every run, and no database: a failure here is a failure everywhere."""
    return settings(max_examples=examples, derandomize=True, deadline=None, database=None)


def masked(opcode: int, payload: bytes, *, fin: bool = True, rsv1: bool = False, key: bytes = KEY) -> bytes:
    return encode_frame(opcode, payload, fin=fin, rsv1=rsv1, masking_key=key)


def raw_frame(first: int, length_field: bytes, payload: bytes = b"", key: bytes = KEY) -> bytes:
    """A masked frame whose header bytes are given: `encode_frame` refuses to write a broken one."""
    body = bytes(octet ^ key[i % 4] for i, octet in enumerate(payload))
    return bytes((first, 0x80 | length_field[0])) + length_field[1:] + key + body


def text_frames(*pieces: bytes) -> bytes:
    """One text message, a frame for each piece."""
    last = len(pieces) - 1
    return b"".join(
        masked(Opcode.CONTINUATION if i else Opcode.TEXT, piece, fin=i == last)
        for i, piece in enumerate(pieces)
    )


def feed_all(decoder: Decoder, chunks: Iterable[bytes | bytearray | memoryview]) -> list[Event]:
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def decode_every_way(make: MakeDecoder, data: bytes) -> list[Event]:
    """Return the events of `data`, after checking that no way of cutting it changes them."""
    whole = make().feed(data)
    assert feed_all(make(), (data[i : i + 1] for i in range(len(data)))) == whole, "byte by byte"
    for offset in range(1, len(data)):
        # As views of a buffer that is overwritten afterwards, as a socket transport's is.
        decoder, events = make(), list[Event]()
        buffer = bytearray(len(data))
        for part in (data[:offset], data[offset:]):
            buffer[: len(part)] = part
            with memoryview(buffer)[: len(part)] as view:
                events += decoder.feed(view)
            buffer[:] = b"\xff" * len(buffer)
        assert events == whole, f"split at {offset}"
    return whole


MESSAGES: list[tuple[str, bytes, list[Event]]] = [
    ("nothing", b"", []),
    ("a text", masked(TEXT, b"Hello"), ["Hello"]),
    ("a binary", masked(BINARY, b"\x00\xff"), [b"\x00\xff"]),
    ("an empty text", masked(TEXT, b""), [""]),
    ("an empty binary", masked(BINARY, b""), [b""]),
    ("beyond ASCII", masked(TEXT, "κόσμε 🎉".encode()), ["κόσμε 🎉"]),
    (
        "a run of short frames",
        masked(TEXT, b"a") + masked(BINARY, b"b") + masked(TEXT, b"c"),
        ["a", b"b", "c"],
    ),
    ("125 bytes", masked(TEXT, b"x" * 125), ["x" * 125]),
    ("126 bytes", masked(TEXT, b"x" * 126), ["x" * 126]),
    ("a zero key", masked(BINARY, b"abc", key=bytes(4)), [b"abc"]),
    ("two fragments", text_frames(b"Hel", b"lo"), ["Hello"]),
    ("fragments of nothing", text_frames(b"", b"", b""), [""]),
    ("a character over two fragments", text_frames(b"\xf0\x9f", b"\x8e", b"\x89!"), ["🎉!"]),
    (
        "binary fragments",
        masked(BINARY, b"\xff", fin=False) + masked(CONTINUATION, b"\xfe"),
        [b"\xff\xfe"],
    ),
    (
        "a message after a fragmented one",
        text_frames(b"a", b"b") + masked(TEXT, b"c") + text_frames(b"d", b"e"),
        ["ab", "c", "de"],
    ),
    (
        "control frames between fragments",
        masked(TEXT, b"a", fin=False)
        + masked(Opcode.PING, b"1")
        + masked(CONTINUATION, b"b", fin=False)
        + masked(Opcode.PONG, b"2")
        + masked(CONTINUATION, b"c"),
        [Ping(b"1"), Pong(b"2"), "abc"],
    ),
    ("a ping with 125 bytes", masked(Opcode.PING, b"p" * 125), [Ping(b"p" * 125)]),
    ("a close without a code", masked(Opcode.CLOSE, b""), [CloseReceived(CloseFrame(1005))]),
    (
        "a close",
        masked(Opcode.CLOSE, b"\x03\xe8" + "tschüß".encode()),
        [CloseReceived(CloseFrame(1000, "tschüß"))],
    ),
    (
        "a close between fragments",
        masked(TEXT, b"a", fin=False) + masked(Opcode.CLOSE, b"\x03\xe9"),
        [CloseReceived(CloseFrame(1001))],
    ),
    (
        "nothing after a close",
        masked(TEXT, b"a") + masked(Opcode.CLOSE, b"\x03\xe8") + masked(TEXT, b"b") + b"\xff\xff",
        ["a", CloseReceived(CloseFrame(1000))],
    ),
]
