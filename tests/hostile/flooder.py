"""Many clients that send one kind of frame for ever.

`python -m tests.hostile.flooder PORT KIND CLIENTS SECONDS [tls]` prints "flooding" once all of them send.
They never wait for anything, and read only if their kind says so.
"""

from __future__ import annotations

import ssl
import sys
import time
from contextlib import suppress

from tests.hostile.raw import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Client,
    Ended,
    compress,
    empty_blocks,
    frame,
)

__all__ = ["KINDS"]

DEFLATE = ("Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover",)

START = frame(TEXT, b"a", fin=False)

KINDS: dict[str, tuple[str, bytes, bytes, bool]] = {
    "empty fragments": ("/echo", START, frame(CONTINUATION, fin=False) * 20_000, False),
    "small fragments": ("/echo", START, frame(CONTINUATION, b"b", fin=False) * 20_000, False),
    "pings": ("/echo", b"", frame(PING) * 20_000, True),
    "pings, pongs unread": ("/echo", b"", frame(PING, b"p" * 125) * 5000, False),
    "pongs": ("/echo", b"", frame(PONG) * 20_000, False),
    "tiny messages": ("/echo", b"", frame(TEXT, b"x") * 20_000, True),
    "empty messages": ("/echo", b"", frame(TEXT) * 20_000, True),
    "unread echoes": ("/echo", b"", frame(TEXT, b"x" * 100) * 5000, False),
    "messages to the deaf": ("/deaf", b"", frame(TEXT, b"x") * 20_000, False),
    "large messages": ("/echo", b"", frame(BINARY, b"x" * 900_000), True),
    "compressed": ("/deflate", b"", frame(BINARY, compress(b"x"), rsv=0x40) * 10_000, True),
    "bombs": ("/deflate", b"", frame(BINARY, compress(bytes(1_000_000)), rsv=0x40) * 50, True),
    "empty blocks": ("/deflate", b"", frame(BINARY, empty_blocks(1_000_000), rsv=0x40), True),
    "text to check": ("/echo", b"", frame(TEXT, "\u00e9\U0001f600".encode() * 150_000), True),
    "two messages in turn": (
        "/echo",
        b"",
        (frame(TEXT, b"a", fin=False) + frame(PING) + frame(CONTINUATION, b"b")) * 8000,
        True,
    ),
}
"""Path, what is sent once, what is sent for ever, whether what comes back is read."""


def main(port: int, kind: str, count: int, seconds: float, tls: bool) -> None:
    path, first, rest, reads = KINDS[kind]
    clients = [open_one(port, path, tls) for _ in range(count)]
    unsent = {client: memoryview(first + rest) for client in clients}
    again = memoryview(rest)
    print("flooding", flush=True)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        moved = False
        for client in list(unsent):
            try:
                while True:
                    # A piece at a time: over TLS the same bytes must be offered again.
                    taken = client.sock.send(unsent[client][:32_768])
                    unsent[client] = unsent[client][taken:] or again
                    moved = True
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                pass
            except OSError:
                # Failed for what it does; the next one takes its place.
                client.sock.close()
                del unsent[client]
                with suppress(OSError, Ended):
                    unsent[open_one(port, path, tls)] = memoryview(first + rest)
                continue
            if reads:
                with suppress(OSError):
                    while client.sock.recv(1 << 18):
                        moved = True
        if not moved:
            time.sleep(0.001)


def open_one(port: int, path: str, tls: bool) -> Client:
    client = Client(port, path, DEFLATE, tls=tls, seconds=30)
    client.sock.setblocking(False)
    return client


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), "tls" in sys.argv[5:])
