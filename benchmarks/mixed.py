"""A mixed day: most connections idle, some chatting, a few that read slowly, some that come and go.

The chatters send on a schedule of their own, whatever the server does (open loop), so a server that stands
still for a while shows it in their p99.
"""

from __future__ import annotations

import heapq
import socket
import time
from array import array
from collections import deque

import attrs

from benchmarks.churn import Churner
from benchmarks.connections import Connection, open_connections, poller
from benchmarks.frames import BINARY, TEXT, Failed, frame, payload
from benchmarks.load import Measured, Watch, no_collector

__all__ = ["Day", "mixed"]


@attrs.frozen
class Day:
    """How many of each kind, and how busy they are."""

    connections: int = 500  # in all
    chatters: int = 80
    messages_a_second: float = 15.0  # each chatter, 200 bytes
    slow: int = 10
    slow_bytes: int = 16 * 1024  # each slow reader's messages …
    slow_sends_a_second: float = 20.0  # … of which it sends this many where the socket takes them
    slow_reads_a_second: float = 10.0  # … and reads 8 KiB this often: a quarter of what it asks for
    lives_a_second: float = 60.0  # connections that come, stay …
    life_seconds: float = 0.3  # … this long, and go


CHAT_BYTES = 200
SLOW_READ = 8192
LOST_SECONDS = 10.0


def _slow_connections(port: int, count: int) -> list[Connection]:
    """Open connections whose receive buffer is small, so that the server notices."""
    connections = open_connections(port, count)
    for c in connections:
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    return connections


def mixed(
    port: int, day: Day, warm_up: float, seconds: float, watch: Watch
) -> tuple[Measured, dict[str, float]]:
    """Live one day; the latencies are the chatters'."""
    chatters = open_connections(port, day.chatters)
    slow = _slow_connections(port, day.slow)
    idle = open_connections(port, day.connections - day.chatters - day.slow)
    try:
        return _live(port, day, chatters, slow, idle, warm_up, seconds, watch)
    finally:
        for c in (*chatters, *slow, *idle):
            c.close()


def _live(
    port: int,
    day: Day,
    chatters: list[Connection],
    slow: list[Connection],
    idle: list[Connection],
    warm_up: float,
    seconds: float,
    watch: Watch,
) -> tuple[Measured, dict[str, float]]:
    for number, c in enumerate(chatters):
        texts = [payload(CHAT_BYTES, f"chatter {number}/{k}") for k in range(4)]
        c.carries(
            [frame(TEXT, t, masked=True) for t in texts], [frame(TEXT, t, masked=False) for t in texts], 65536
        )
    big = [payload(day.slow_bytes, f"slow {k}") for k in range(2)]
    for c in slow:
        c.carries(
            [frame(BINARY, t, masked=True) for t in big],
            [frame(BINARY, t, masked=False) for t in big],
            SLOW_READ,
        )
    epoll, by_fd = poller([*chatters, *idle])
    sent_at: dict[int, deque[float]] = {c.fd: deque() for c in chatters}
    leaving: deque[tuple[float, int]] = deque()  # when to say goodbye, and to which connection
    churner = Churner(epoll, port, lambda fd: leaving.append((clock() + day.life_seconds, fd)))
    latencies = array("d")
    slow_bytes = lives = sent = 0
    clock = time.perf_counter

    # The schedule: (when, order, what, connection); every entry puts its next one in.
    start = clock()
    schedule: list[tuple[float, int, str, Connection]] = []
    kinds = [("chat", c, day.messages_a_second) for c in chatters]
    kinds += [("slow send", c, day.slow_sends_a_second) for c in slow]
    kinds += [("slow read", c, day.slow_reads_a_second) for c in slow]
    every = {kind: 1 / rate for kind, _, rate in kinds} | {"life": 1 / day.lives_a_second}
    for order, (kind, c, _) in enumerate(kinds):
        schedule.append((start + every[kind] * (order % 97) / 97, order, kind, c))
    schedule.append((start, len(kinds), "life", idle[0]))  # of no connection that is there already
    heapq.heapify(schedule)

    def chat(c: Connection) -> None:
        nonlocal sent
        end = c.at_request + c.one_request
        sent_at[c.fd].append(clock())
        if c.send(c.requests[c.at_request : end]) != c.one_request:
            raise Failed("a chatter's socket buffer is full: the server does not read")
        c.at_request = end % c.request_bytes
        sent += 1

    def slow_send(c: Connection) -> None:
        # What does not fit waits: a frame is finished before the next one begins.
        if not c.left:
            c.left = c.one_request
        try:
            n = c.send(c.requests[c.at_request : c.at_request + c.left])
        except BlockingIOError:
            return
        c.at_request = (c.at_request + n) % c.request_bytes
        c.left -= n

    def read(c: Connection, size: int) -> int:
        try:
            data = c.recv(size)
        except BlockingIOError:
            return 0
        if not data:
            raise Failed("the server ended a connection that did nothing wrong")
        at = c.at_expected
        if c.held or c.expected[at : at + len(data)] != data:
            data = c.without_control_frames(data)
        c.at_expected = (at + len(data)) % c.expected_bytes
        return len(data)

    def receive(c: Connection) -> None:
        at = c.at_expected
        end = at + read(c, 65536)
        now = clock()
        for _ in range(end // c.frame_bytes - at // c.frame_bytes):
            latencies.append(now - sent_at[c.fd].popleft())

    idle_fds = {c.fd for c in idle}
    for c in idle:
        c.carries([b"\0"], [b"\0" * 2])  # nothing is expected but control frames
    with no_collector():
        measuring, cpu, stop = False, 0.0, start + warm_up
        while True:
            now = clock()
            if now >= stop:
                if measuring:
                    break
                watch.start()
                del latencies[:]
                slow_bytes = lives = 0
                measuring, start = True, clock()
                stop, cpu = start + seconds, time.process_time()
            while schedule[0][0] <= now:
                due, order, kind, c = schedule[0]
                heapq.heapreplace(schedule, (due + every[kind], order, kind, c))
                if kind == "chat":
                    chat(c)
                elif kind == "slow send":
                    slow_send(c)
                elif kind == "slow read":
                    slow_bytes += read(c, SLOW_READ)
                else:
                    churner.start()
            while leaving and leaving[0][0] <= now:
                churner.say_goodbye(leaving.popleft()[1])
            for fd, _ in epoll.poll(max(0.0, min(schedule[0][0], stop) - clock())):
                if fd in churner.lives:
                    lives += churner.step(fd)
                elif fd in idle_fds:
                    read(by_fd[fd], 4096)
                else:
                    receive(by_fd[fd])
        cpu = time.process_time() - cpu
        watch.stop()
        elapsed = clock() - start
        measured = array("d", latencies)
        for _, fd in leaving:  # those that were about to go
            churner.say_goodbye(fd)
        leaving.clear()
        churner.on_open = churner.say_goodbye
        deadline = clock() + LOST_SECONDS
        while any(sent_at.values()) or churner.lives:
            if clock() > deadline:
                lost = sum(map(len, sent_at.values()))
                raise Failed(f"{lost} messages were not answered in {LOST_SECONDS:.0f} s")
            for fd, _ in epoll.poll(0.5):
                if fd in churner.lives:
                    churner.step(fd)
                elif fd in sent_at:
                    receive(by_fd[fd])
                else:
                    read(by_fd[fd], 4096)
            for c in slow:
                read(c, SLOW_READ)
    epoll.close()
    result = Measured(len(measured), elapsed, measured, cpu / elapsed)
    return result, {
        "lives": lives / elapsed,
        "life_p99": sorted(churner.latencies)[int(0.99 * len(churner.latencies))],
        "slow_megabytes_per_second": slow_bytes / elapsed / 1e6,
    }
