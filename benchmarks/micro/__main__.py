"""`python -m benchmarks.micro [NAME …] [pyperf's options]`: decode, encode, mask, route, deflate, handshake.

python -m benchmarks.micro --fast                 all of them, a rough look
python -m benchmarks.micro decode mask -o now.json   groups by the beginning of their names
python -m pyperf compare_to before.json now.json     what a change did
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pyperf
from wsframework.routing import Route, Router, Template
from wsframework.wire import (
    Decoder,
    Deflater,
    Inflater,
    apply_mask,
    encode_101,
    encode_message,
    pure_apply_mask,
    read_upgrade,
)

from benchmarks.deflate import messages
from benchmarks.frames import BINARY, TEXT, frame, payload

KEY = b"\x37\xfa\x21\x3d"
LIMIT = 4 * 1024 * 1024


def decode(data: bytes, chunk: int = 0) -> Callable[[], Any]:
    """Feed `data` to a decoder that lives on, whole or in chunks, as a server's connection does."""
    decoder = Decoder(masked=True, max_message_bytes=LIMIT)
    if not chunk:
        return lambda: decoder.feed(data)
    parts = [data[i : i + chunk] for i in range(0, len(data), chunk)]

    def run() -> None:
        for part in parts:
            decoder.feed(part)

    return run


async def handler(ws: object) -> None: ...


def router() -> Router[None]:
    found: Router[None] = Router()
    for text in ("/", "/chat", "/rooms/{room}", "/users/{id:int}", "/files/{name:path}"):
        found.add(Route(Template.parse(text), "websocket", (None,), handler, None))
    return found


def cases() -> dict[str, Callable[[], Any]]:
    """Return every micro-benchmark by name."""
    small, kilo, mega = payload(64, "a"), payload(1024, "a"), payload(1024 * 1024, "a")
    one = frame(TEXT, small, masked=True)
    routes = router()
    text = messages(1, 1024)[0]
    deflater, inflater = Deflater(window_bits=12, memory_level=5), Inflater(window_bits=12)
    alone = Deflater(window_bits=12, memory_level=5, no_context_takeover=True)
    packed = alone.compress(text)

    def inflate() -> None:
        inflater.inflate(packed, LIMIT)
        inflater.finish_message(LIMIT)

    request = [
        ("Host", "127.0.0.1"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ]
    found: dict[str, Callable[[], Any]] = {
        "decode text 64 B": decode(one),
        "decode text 64 B × 16": decode(one * 16),
        "decode text 1 KiB": decode(frame(TEXT, kilo, masked=True)),
        "decode text 1 MiB in 64 KiB reads": decode(frame(TEXT, mega, masked=True), 65536),
        "decode binary 1 MiB in 64 KiB reads": decode(frame(BINARY, mega, masked=True), 65536),
        "encode text 64 B": lambda: encode_message(TEXT, small),
        "encode text 1 KiB": lambda: encode_message(TEXT, kilo),
        "encode binary 1 MiB": lambda: encode_message(BINARY, mega),
        "route static": lambda: routes.resolve("/chat", (None,)),
        "route template": lambda: routes.resolve("/rooms/lobby", (None,)),
        "deflate 1 KiB": lambda: deflater.compress(text),
        "deflate 1 KiB, no context": lambda: alone.compress(text),
        "inflate 1 KiB": inflate,
        "handshake read": lambda: read_upgrade("GET", "1.1", request),
        "handshake answer": lambda: encode_101("dGhlIHNhbXBsZSBub25jZQ==", None, None, ()),
    }
    for name, data in (("64 B", small), ("1 KiB", kilo), ("1 MiB", mega)):
        for kind, function in (("", apply_mask), ("pure ", pure_apply_mask)):
            found[f"mask {kind}{name}"] = lambda function=function, data=data: function(data, KEY)
    return found


def main() -> None:
    wanted = []
    while len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        wanted.append(sys.argv.pop(1))
    runner = pyperf.Runner(program_args=("-m", "benchmarks.micro", *wanted))
    for name, function in cases().items():
        if not wanted or name.startswith(tuple(wanted)):
            runner.bench_func(name, function)


if __name__ == "__main__":
    main()
