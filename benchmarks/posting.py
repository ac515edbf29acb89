"""Small JSON requests over plain HTTP: one at a time on each connection, which is kept alive."""

from __future__ import annotations

import select
import socket
import time
from array import array

from benchmarks.frames import Failed
from benchmarks.load import STALL_SECONDS, Measured, Watch, no_collector

__all__ = ["post"]

_BODY = b'{"a": 1, "b": 2}'
_REQUEST = (
    b"POST /sum HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    % len(_BODY)
) + _BODY


def post(port: int, count: int, warm_up: float, seconds: float, watch: Watch) -> Measured:
    """Keep one request in flight on each connection; the next one leaves when its answer is right."""
    epoll = select.epoll()
    peers: dict[int, tuple[socket.socket, bytearray]] = {}
    sent: dict[int, float] = {}
    latencies = array("d")
    answers = 0
    try:
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", port), timeout=STALL_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peers[sock.fileno()] = (sock, bytearray())
            epoll.register(sock.fileno(), select.EPOLLIN)
        with no_collector():
            for fd, (sock, _) in peers.items():
                sent[fd] = time.perf_counter()
                sock.send(_REQUEST)
            measuring, began, cpu = False, time.perf_counter(), 0.0
            end = began + warm_up
            while True:
                now = time.perf_counter()
                if now >= end:
                    if measuring:
                        watch.stop()
                        break
                    measuring, began, end = True, now, now + seconds
                    answers, latencies = 0, array("d")
                    cpu = time.process_time()
                    watch.start()
                ready = epoll.poll(STALL_SECONDS)
                if not ready:
                    raise Failed(f"no answer within {STALL_SECONDS:.0f} s")
                for fd, _ in ready:
                    sock, held = peers[fd]
                    data = sock.recv(4096)
                    if not data:
                        raise Failed("the server ended the connection")
                    held += data
                    if _is_whole(held):
                        held.clear()
                        answers += 1
                        at = time.perf_counter()
                        latencies.append(at - sent[fd])
                        sent[fd] = at
                        sock.send(_REQUEST)
            elapsed = time.perf_counter() - began
            return Measured(answers, elapsed, latencies, (time.process_time() - cpu) / elapsed)
    finally:
        epoll.close()
        for sock, _ in peers.values():
            sock.close()


def _is_whole(held: bytearray) -> bool:
    """Whether an answer is there, and right."""
    head, end, body = held.partition(b"\r\n\r\n")
    if not end or not body.endswith(b"}"):
        return False
    if not head.startswith(b"HTTP/1.1 200 ") or body.replace(b" ", b"") != b'{"sum":3}':
        raise Failed(f"a wrong answer: {bytes(held)[:200]!r}")
    return True
