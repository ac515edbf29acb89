"""Echo with permessage-deflate: prepared compressed requests; every reply is inflated and compared."""

from __future__ import annotations

import random
import select
import time
import zlib
from array import array

import attrs

from benchmarks.connections import Connection, poller
from benchmarks.frames import CLOSE_OPCODE, PING, PONG, TEXT, Failed, close_code, frame
from benchmarks.load import STALL_SECONDS, Measured, Watch, no_collector

__all__ = ["OFFER", "deflate_echo", "messages"]

# Both windows of 4 KiB, which is the default of websockets and wsframework, so that all compress alike. The
# requests are compressed without context, which is right whatever the server agrees to.
OFFER = "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"
_TAIL = b"\x00\x00\xff\xff"
_WORDS = """
the a to of and in is it you that he was for on are with as I his they be at one have this from or had by hot
but some what there we can out other were all your when up use word how said an each she which do their time
if will way about many then them would write like so these her long make thing see him two has look more day
could go come did my sound no most number who over know water than call first people
""".split()  # noqa: SIM905 - readable


def messages(count: int, size: int) -> list[bytes]:
    """Return `count` different chat-like messages of `size` bytes; together they exceed the window."""
    chance = random.Random(7692)
    found = []
    for number in range(count):
        text = f'{{"type":"message","id":{number},"room":"lobby","text":"'
        while len(text) < size:
            text += chance.choice(_WORDS) + " "
        found.append((text[: size - 2] + '"}').encode())
    return found


def compressed(message: bytes) -> bytes:
    """Return the masked frame of a message compressed by itself."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -12)
    data = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return frame(TEXT, data.removesuffix(_TAIL), masked=True, rsv1=True)


@attrs.define
class _Peer:
    connection: Connection
    inflate: zlib._Decompress
    next_request: int
    next_reply: int
    since: float = 0.0


def deflate_echo(
    connections: list[Connection], texts: list[bytes], warm_up: float, seconds: float, watch: Watch
) -> tuple[Measured, float]:
    """One message in flight on each connection; return the measurement and a reply frame's mean bytes."""
    epoll, _ = poller(connections)
    requests = [compressed(text) for text in texts]
    count_texts = len(texts)
    peers = {}
    for number, connection in enumerate(connections):
        first = number % count_texts
        peers[connection.fd] = _Peer(connection, zlib.decompressobj(-15), first, first)
    latencies = array("d")
    clock = time.perf_counter
    reply_bytes = replies = 0

    def ask(peer: _Peer) -> None:
        peer.since = clock()
        data = requests[peer.next_request]
        if peer.connection.send(data) != len(data):
            raise Failed("the client's socket buffer is full")
        peer.next_request = (peer.next_request + 1) % count_texts

    def take(peer: _Peer) -> bool:
        """Receive once; return True when the reply was whole and right."""
        nonlocal reply_bytes, replies
        c = peer.connection
        try:
            data = c.recv(65536)
        except BlockingIOError:
            return False
        if not data:
            raise Failed("the server ended the connection")
        data = c.held + data
        c.held = b""
        while len(data) >= 2:
            length, head = data[1], 2
            if length == 126:
                length, head = int.from_bytes(data[2:4], "big"), 4
            if len(data) < head + length or (head == 4 and len(data) < 4):
                break
            body, opcode = data[head : head + length], data[0] & 0x0F
            first, data = data[0], data[head + length :]
            if opcode == PING:
                c.send(frame(PONG, body, masked=True))
            elif opcode == CLOSE_OPCODE:
                raise Failed(f"the server closed the connection: {close_code(body)}")
            elif opcode != PONG:
                if first != 0xC1:
                    raise Failed(f"expected one compressed text frame, got one that begins with {first:#x}")
                if peer.inflate.decompress(body + _TAIL) != texts[peer.next_reply]:
                    raise Failed("a reply does not inflate to what was sent")
                if data:
                    raise Failed("more replies than requests")
                peer.next_reply = (peer.next_reply + 1) % count_texts
                reply_bytes += head + length
                replies += 1
                return True
        c.held = data
        return False

    with no_collector():
        for peer in peers.values():
            ask(peer)
        count, measuring, cpu = 0, False, 0.0
        start = clock()
        stop = start + warm_up
        while True:
            events = epoll.poll(STALL_SECONDS)
            now = clock()
            if now >= stop:
                if measuring:
                    break
                watch.start()
                del latencies[:]
                measuring, count, start = True, 0, clock()
                stop, cpu = start + seconds, time.process_time()
            if not events:
                raise Failed(f"nothing came for {STALL_SECONDS:.0f} s")
            for fd, _ in events:
                peer = peers[fd]
                if take(peer):
                    count += 1
                    latencies.append(clock() - peer.since)
                    ask(peer)
        cpu = time.process_time() - cpu
        watch.stop()
        result = Measured(count, now - start, latencies, cpu / (now - start))
        owed = dict(peers)
        while owed:
            events = epoll.poll(STALL_SECONDS)
            if not events:
                raise Failed(f"{len(owed)} replies never came")
            for fd, event in events:
                if event & ~select.EPOLLOUT and take(peers[fd]):
                    owed.pop(fd)
    epoll.close()
    return result, reply_bytes / max(1, replies)
