"""Thousands that connect and go: no task, count, descriptor or memory is left, and nobody waits."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.hostile.process import Target, eventually, linux_only, serving
from tests.hostile.raw import Client, connect, request

RESET = struct.pack("ii", 1, 0)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def probe(target: Target) -> None:
    connect(target.port).close()


def reset_at_once(target: Target) -> None:
    reset(connect(target.port))


def reset_behind_the_head(target: Target) -> None:
    sock = connect(target.port)
    sock.sendall(request())
    reset(sock)


def vanish_in_the_head(target: Target) -> None:
    with connect(target.port) as sock:
        sock.sendall(request()[:60])


def open_and_reset(target: Target) -> None:
    Client(target.port).reset()


def leave_within_tls(target: Target) -> None:
    """Send a ClientHello and go."""
    hello, said = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl._create_unverified_context().wrap_bio(hello, said).do_handshake()
    sock = connect(target.port)
    sock.sendall(said.read())
    reset(sock)


WAYS = (probe, reset_at_once, reset_behind_the_head, vanish_in_the_head, open_and_reset)


def storm(target: Target, way: Callable[[Target], None], count: int) -> None:
    with target.connect() if not target.tls else target.connect("/echo") as innocent:
        for number in range(200):
            way(target)  # what is made once is made now
            if number % 50 == 0:
                innocent.echo()
        eventually(lambda: settled(target), "the first are gone")
        files, memory = target.descriptors, target.rss_bytes
        for number in range(count):
            way(target)
            if number % 50 == 0:
                innocent.echo()
        eventually(lambda: settled(target), "they are gone")
        eventually(lambda: target.descriptors <= files, "their descriptors are closed")
        assert target.rss_bytes - memory < 2 * 1024 * 1024 + count * 200
        assert target.busy_share() < 0.3, "nobody has anything to do"
        innocent.echo()
    target.still_serves()
    assert not [record for record in target.records() if record["event"].endswith(".failed")]


def settled(target: Target) -> bool:
    if target.tls:
        return target.busy_share(0.2) < 0.3
    figures = target.figures()
    return figures["connections"] == 2 and figures["websockets"] == 1  # the innocent, and who asks


@linux_only
@pytest.mark.parametrize("way", [reset_behind_the_head, open_and_reset], ids=lambda way: str(way.__name__))
def test_a_storm_of_clients_that_go_leaves_nothing(way: Callable[[Target], None]) -> None:
    with serving(timeouts={"handshake": 1.0}) as target:
        storm(target, way, 300)


@pytest.mark.attack
@linux_only
@pytest.mark.parametrize("way", WAYS, ids=lambda way: str(way.__name__))
def test_a_long_storm_of_clients_that_go_leaves_nothing(way: Callable[[Target], None]) -> None:
    with serving(timeouts={"handshake": 1.0}) as target:
        storm(target, way, 5000)


@linux_only
def test_clients_that_leave_within_tls_leave_nothing() -> None:
    with serving(tls=True, timeouts={"handshake": 1.0}) as target:
        storm(target, leave_within_tls, 200)


@pytest.mark.attack
@linux_only
def test_half_open_tls_handshakes_are_bounded_and_give_their_memory_back() -> None:
    with serving(tls=True, timeouts={"handshake": 2.0}) as target:
        before = target.rss_bytes
        hello, said = ssl.MemoryBIO(), ssl.MemoryBIO()
        with pytest.raises(ssl.SSLWantReadError):
            ssl._create_unverified_context().wrap_bio(hello, said).do_handshake()
        first = said.read()
        sockets = []
        for _ in range(900):
            sock = connect(target.port)
            sock.setblocking(False)
            with suppress(OSError):
                sock.send(first)
            sockets.append(sock)
        target.still_serves()
        for sock in sockets:
            sock.close()
        eventually(lambda: target.rss_bytes - before < 900 * 8 * 1024, "the memory is given back", 15)
        target.still_serves()
