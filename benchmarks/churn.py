"""Connections that come and go: connect, handshake, closing handshake, end of TCP."""

from __future__ import annotations

import select
import socket
import time
from array import array
from collections.abc import Callable

from benchmarks.frames import CLOSE, REQUEST, Failed, check_head, close_code
from benchmarks.load import STALL_SECONDS, Measured, Watch, no_collector

__all__ = ["Churner", "churn"]


class Churner:
    """Keeps connections on their way through their whole life; one call per event does one step.

    `on_open` is called with the descriptor when the handshake is done; the default says goodbye at once.

    A life: connect, send the request, read a correct 101, send Close 1000, read Close 1000, read the end of
    the stream (RFC 6455 §7.1.1: the server closes TCP first), close.
    """

    def __init__(self, epoll: select.epoll, port: int, on_open: Callable[[int], None] | None = None) -> None:
        self.epoll = epoll
        self.on_open = on_open or self.say_goodbye
        self.address = ("127.0.0.1", port)
        self.lives: dict[int, tuple[socket.socket, float, bytearray]] = {}
        self.latencies = array("d")

    def start(self) -> None:
        sock = socket.socket()
        began = time.perf_counter()
        sock.connect(self.address)  # on loopback the kernel finishes this by itself
        sock.setblocking(False)
        sock.send(REQUEST)
        fd = sock.fileno()
        self.lives[fd] = (sock, began, bytearray())
        self.epoll.register(fd, select.EPOLLIN)

    def say_goodbye(self, fd: int) -> None:
        """Start the closing handshake of an open connection."""
        self.lives[fd][0].send(CLOSE)

    def step(self, fd: int) -> bool:
        """Go on with one connection; return True when its life is over."""
        sock, began, seen = self.lives[fd]
        try:
            data = sock.recv(4096)
        except BlockingIOError:
            return False
        except ConnectionResetError as error:
            raise Failed("the server reset the connection instead of ending it") from error
        if data:
            if not seen.endswith(b"\r\n\r\n"):
                seen += data
                if seen.endswith(b"\r\n\r\n"):
                    check_head(bytes(seen))
                    self.on_open(fd)
                return False
            if not data.startswith(b"\x88") or data[2:4] not in (b"\x03\xe8", b""):
                raise Failed(f"expected a Close frame with 1000, got {data[:1]!r} {close_code(data[2:])}")
            self.lives[fd] = (sock, began, bytearray(b"closed"))
            return False
        if seen != b"closed":
            raise Failed("the server ended the connection without a Close frame")
        sock.close()
        del self.lives[fd]
        self.latencies.append(time.perf_counter() - began)
        return True


def churn(port: int, concurrency: int, warm_up: float, seconds: float, watch: Watch) -> Measured:
    """Count whole lives per second with `concurrency` of them under way."""
    epoll = select.epoll()
    churner = Churner(epoll, port)
    with no_collector():
        for _ in range(concurrency):
            churner.start()
        count, measuring, cpu = 0, False, 0.0
        start = time.perf_counter()
        stop = start + warm_up
        while True:
            events = epoll.poll(STALL_SECONDS)
            now = time.perf_counter()
            if now >= stop:
                if measuring:
                    break
                watch.start()
                del churner.latencies[:]
                measuring, count, start = True, 0, time.perf_counter()
                stop, cpu = start + seconds, time.process_time()
            if not events:
                raise Failed(f"no connection made progress for {STALL_SECONDS:.0f} s")
            for fd, _ in events:
                if churner.step(fd):
                    count += 1
                    churner.start()
        cpu = time.process_time() - cpu
        watch.stop()
        measured = array("d", churner.latencies)
        while churner.lives:
            events = epoll.poll(STALL_SECONDS)
            if not events:
                raise Failed(f"{len(churner.lives)} connections never ended")
            for fd, _ in events:
                churner.step(fd)
    epoll.close()
    return Measured(count, now - start, measured, cpu / (now - start))
