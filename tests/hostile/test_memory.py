"""What one peer can make the server hold, in bytes of the process."""

from __future__ import annotations

import time

import pytest

from tests.hostile.process import Target, linux_only, serving
from tests.hostile.raw import BINARY, CONTINUATION, PING, TEXT, Client, compress, connect, frame, request

KIB, MIB = 1024, 1024 * 1024
PEERS = 5
DEFLATE = ("Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover",)
ALLOWED = 256 * KIB + MIB + 300 * KIB
"""For one peer: `unread_bytes`, one message of `message_bytes`, and what any connection costs."""


def held_for_each(target: Target, data: bytes, path: str, seconds: float = 0.5) -> float:
    """Bytes that the server holds for each peer that has sent `data` and stays."""
    with target.connect("/deflate", DEFLATE) as first:
        first.send(frame(BINARY, compress(b"warm" * 1000), rsv=0x40))
        first.message()
    before = target.rss_bytes
    peers = [target.connect(path, DEFLATE) for _ in range(PEERS)]
    for peer in peers:
        send_what_goes(peer, data)
    time.sleep(seconds)
    return (target.rss_bytes - before) / PEERS


def send_what_goes(peer: Client, data: bytes) -> None:
    """Send until the server stops to read."""
    peer.sock.settimeout(0.3)
    try:
        peer.sock.sendall(data)
    except (TimeoutError, ConnectionError):
        return


START = frame(BINARY, b"a", fin=False)
BOMB = frame(BINARY, compress(bytes(MIB)), rsv=0x40)
FLOODS = {
    "small bombs in one read": ("/deaf", BOMB * (63 * KIB // len(BOMB))),
    "tiny messages": ("/deaf", frame(TEXT, b"x") * 150_000),
    "empty messages": ("/deaf", frame(BINARY) * 150_000),
    "fragments of one byte": ("/deaf", START + frame(CONTINUATION, b"b", fin=False) * 150_000),
    "empty fragments": ("/deaf", START + frame(CONTINUATION, fin=False) * 200_000),
    "a large message that does not end": ("/deaf", frame(BINARY, b"x" * (MIB - 100), fin=False)),
    "pings whose pongs are not read": ("/deaf", frame(PING, b"p" * 125) * 100_000),
    "echoes that are not read": ("/echo", frame(BINARY, b"x" * 1000) * 5000),
}
QUICK = ("small bombs in one read", "tiny messages")


def hold(name: str) -> None:
    path, data = FLOODS[name]
    with serving() as target:
        assert held_for_each(target, data, path) < ALLOWED


@linux_only
@pytest.mark.parametrize("name", QUICK)
def test_a_peer_makes_the_server_hold_its_budget_and_one_message(name: str) -> None:
    hold(name)


@pytest.mark.attack
@linux_only
@pytest.mark.parametrize("name", sorted(FLOODS.keys() - set(QUICK)))
def test_no_peer_makes_the_server_hold_more_than_its_budget_and_one_message(name: str) -> None:
    hold(name)


@linux_only
def test_an_idle_connection_keeps_little_of_a_head_of_16_kib() -> None:
    """Nothing is kept beyond what its handler can ask for."""
    shapes = {
        "3,900 fields": ["a:"] * 3900,
        "90 fields": [f"x-{n}: {'v' * 160}" for n in range(90)],
        "one field": [f"x: {'v' * 15_000}"],
    }
    with serving() as target:
        for name, fields in shapes.items():
            before = target.rss_bytes
            sockets = []
            for _ in range(100):
                sock = connect(target.port)
                sock.sendall(request("/echo", *fields))
                sock.recv(4096)
                sockets.append(sock)
            each = (target.rss_bytes - before) / 100
            for sock in sockets:
                sock.close()
            assert each < 64 * KIB, f"{name}: {each / KIB:.0f} KiB a connection"


@linux_only
def test_names_of_fields_that_nobody_used_before_leave_no_memory_behind() -> None:
    with serving() as target:

        def burst(number: int, heads: int) -> None:
            for head in range(heads):
                fields = [f"x{number:04x}{head:04x}{field:04x}: v" for field in range(90)]
                sock = connect(target.port)
                with sock:
                    lines = "GET / HTTP/1.1", "Host: x", *fields, "Connection: close", "", ""
                    sock.sendall("\r\n".join(lines).encode())
                    while sock.recv(65536):
                        pass

        burst(0, 100)
        before = target.rss_bytes
        burst(1, 300)
        assert (target.rss_bytes - before) / 300 < 4 * KIB


@linux_only
def test_who_joins_a_room_again_and_again_has_one_backlog() -> None:
    with serving() as target:
        peer = target.connect("/come-and-go/close/300", receive_buffer=4096)
        before = target.rss_bytes
        time.sleep(1.0)
        assert target.rss_bytes - before < 5 * MIB
        peer.sock.close()


@pytest.mark.attack
@linux_only
def test_a_slow_handshake_of_many_holds_no_more_than_their_heads() -> None:
    with serving() as target:
        before = target.rss_bytes
        sockets = []
        for _ in range(500):
            sock = connect(target.port)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nx: " + b"v" * 15_000)
            sockets.append(sock)
        time.sleep(0.5)
        each = (target.rss_bytes - before) / 500
        for sock in sockets:
            sock.close()
        assert each < 64 * KIB, f"{each / KIB:.0f} KiB for each half head"
