"""The load loops. Each keeps a fixed number of messages in flight and does as little as it can per message.

What is checked: for small frames every byte of every reply, by one comparison with the prepared stream; for
large ones (recv_into, no copies) the length, each frame's header and a sample at both ends of every read; at
the end of a run every reply that is still owed. A ping is answered; a Close, an end, an error or a wrong byte
raises Failed.

What is timed: one message per connection at a time, from its send to its reply. With one in flight that is
every message.
"""

from __future__ import annotations

import gc
import select
import ssl
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import attrs

from benchmarks.connections import Connection, poller
from benchmarks.frames import Failed

__all__ = ["Measured", "echo", "echo_large", "fanout"]

STALL_SECONDS = 10.0  # no event for this long while replies are owed: the server is stuck
_READ = 65536


class Watch(Protocol):
    """Told when the measured part begins and ends."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


@attrs.define
class Measured:
    """What one run of a load loop saw in its measured part."""

    messages: int
    seconds: float
    latencies: array[float]  # seconds, in the order of completion
    client_cpu: float  # share of one core

    @property
    def rate(self) -> float:
        return self.messages / self.seconds

    def percentile(self, share: float) -> float:
        """Return a latency in seconds (nearest rank)."""
        if not self.latencies:
            return float("nan")
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@contextmanager
def no_collector() -> Iterator[None]:
    """Keep the client's garbage collector out of the measurement."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def stalled(owed: int) -> Failed:
    return Failed(f"nothing came for {STALL_SECONDS:.0f} s while {owed} messages were owed")


def _flush(epoll: select.epoll, connection: Connection) -> None:
    """Send a connection's backlog and watch for writability only while there is one."""
    data, connection.backlog = connection.backlog, b""
    connection.write(data)
    epoll.modify(connection.fd, select.EPOLLIN | (select.EPOLLOUT if connection.backlog else 0))


def echo(
    connections: list[Connection], in_flight: int, warm_up: float, seconds: float, watch: Watch
) -> Measured:
    """Echo small frames: `in_flight` messages outstanding on each connection."""
    epoll, by_fd = poller(connections)
    poll, clock = epoll.poll, time.perf_counter
    most = len(connections)
    owed = 0
    latencies = array("d")
    timed = latencies.append
    frame_bytes = connections[0].frame_bytes
    expected_bytes = connections[0].expected_bytes
    request_bytes = connections[0].request_bytes
    one_request = connections[0].one_request
    size = min(_READ, in_flight * frame_bytes + 256)
    would_block = (BlockingIOError, ssl.SSLWantReadError)
    tls = isinstance(connections[0].sock, ssl.SSLSocket)
    with no_collector():
        for c in connections:
            c.left, c.since = in_flight, clock()
            _send(c, c.requests[: in_flight * one_request])
            c.at_request = in_flight * one_request % request_bytes
            owed += in_flight
        count = 0
        measuring = False
        start = clock()
        stop = start + warm_up
        cpu = 0.0
        while True:
            events = poll(STALL_SECONDS, most)
            now = clock()
            if now >= stop:
                if measuring:
                    break
                watch.start()
                del latencies[:]
                measuring, count, start = True, 0, clock()
                stop, cpu = start + seconds, time.process_time()
            if not events:
                raise stalled(owed)
            for fd, event in events:
                c = by_fd[fd]
                if event & 4:  # EPOLLOUT
                    _flush(epoll, c)
                    continue
                try:
                    data = c.recv(size)
                except would_block:
                    continue
                at = c.at_expected
                end = at + len(data)
                if c.expected[at:end] != data or end == at:
                    data = _sort_out(epoll, c, data)
                    end = at + len(data)
                done = end // frame_bytes - at // frame_bytes
                c.at_expected = end if end < expected_bytes else end - expected_bytes
                if done:
                    count += done
                    now = clock()
                    c.left -= done
                    if c.left <= 0:
                        timed(now - c.since)
                        c.left, c.since = in_flight, now
                    at = c.at_request
                    end = at + done * one_request
                    more = c.requests[at:end]
                    if c.send(more) != len(more):
                        raise Failed("the client's socket buffer is full: use fewer messages in flight")
                    c.at_request = end if end < request_bytes else end - request_bytes
                if tls and isinstance(c.sock, ssl.SSLSocket) and c.sock.pending():
                    # OpenSSL has read more from the socket than it handed out; epoll cannot know.
                    events.append((fd, 1))
        cpu = time.process_time() - cpu
        watch.stop()
        elapsed = now - start
        result = Measured(count, elapsed, latencies, cpu / elapsed)
        _drain(epoll, by_fd, connections, one_request, size)
    epoll.close()
    return result


def _send(c: Connection, data: bytes) -> None:
    if c.send(data) != len(data):
        raise Failed("the client's socket buffer is full: use fewer messages in flight")


def _sort_out(epoll: select.epoll, c: Connection, data: bytes) -> bytes:
    if not data:
        raise Failed("the server ended the connection")
    data = c.without_control_frames(data)
    if c.backlog:
        epoll.modify(c.fd, select.EPOLLIN | select.EPOLLOUT)
    return data


def _drain(
    epoll: select.epoll,
    by_fd: dict[int, Connection],
    connections: list[Connection],
    one_request: int,
    size: int,
) -> None:
    """Receive every reply that is still owed, and nothing more."""
    owed = {}
    for c in connections:
        # Both positions are inside their period; what is between them is what the server still owes.
        sent = c.at_request // one_request * c.frame_bytes
        owed[c.fd] = (sent - c.at_expected) % c.expected_bytes or c.expected_bytes
    while owed:
        events = epoll.poll(STALL_SECONDS)
        if not events:
            raise stalled(len(owed))
        for fd, _ in events:
            c = by_fd[fd]
            try:
                data = c.recv(size)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            at = c.at_expected
            if not data or c.expected[at : at + len(data)] != data:
                data = _sort_out(epoll, c, data)
            c.at_expected = (at + len(data)) % c.expected_bytes
            if fd not in owed and data:
                raise Failed("more replies than requests")
            if data:
                owed[fd] -= len(data)
                if owed[fd] < 0:
                    raise Failed("more replies than requests")
                if not owed[fd]:
                    del owed[fd]
            if isinstance(c.sock, ssl.SSLSocket) and c.sock.pending():
                events.append((fd, 1))


def echo_large(
    connections: list[Connection], in_flight: int, warm_up: float, seconds: float, watch: Watch
) -> Measured:
    """Echo large frames: partial sends, one reused receive buffer, sampled comparison."""
    epoll, by_fd = poller(connections)
    clock = time.perf_counter
    buffer = bytearray(4 * _READ)
    view = memoryview(buffer)
    latencies = array("d")
    first = connections[0]
    frame_bytes, expected_bytes, expected = first.frame_bytes, first.expected_bytes, first.expected
    request_bytes = first.request_bytes
    one_request = connections[0].one_request
    requests = memoryview(first.requests)  # the same for all: a copy per connection would not fit a cache
    unsent = dict.fromkeys(by_fd, in_flight * one_request)

    def push(c: Connection) -> None:
        """Send what the socket takes; watch for writability only while something is left."""
        more = unsent[c.fd]
        watched = c.count
        while more:
            try:
                sent = c.send(requests[c.at_request : min(c.at_request + more, 2 * request_bytes)])
            except (BlockingIOError, ssl.SSLWantWriteError):
                break
            more -= sent
            c.at_request = (c.at_request + sent) % request_bytes
        unsent[c.fd] = more
        if not more and c.backlog:  # a pong, which must not land inside a frame
            data, c.backlog = c.backlog, b""
            c.write(data)
        c.count = 1 if more or c.backlog else 0
        if c.count != watched:
            epoll.modify(c.fd, select.EPOLLIN | (select.EPOLLOUT if c.count else 0))

    def take(c: Connection) -> int:
        """Receive once; return how many replies that completed."""
        try:
            n = c.sock.recv_into(buffer)
        except (BlockingIOError, ssl.SSLWantReadError):
            return 0
        if not n:
            raise Failed("the server ended the connection")
        at = c.at_expected
        inside = at % frame_bytes
        sample = min(64, n)
        good = not c.held and view[:sample] == expected[at : at + sample]
        good = good and view[n - sample : n] == expected[at + n - sample : at + n]
        boundary = frame_bytes - inside
        while good and boundary < n:
            length = min(10, n - boundary)
            good = view[boundary : boundary + length] == expected[at + boundary : at + boundary + length]
            boundary += frame_bytes
        if not good:
            n = len(c.without_control_frames(bytes(view[:n])))
        c.at_expected = (at + n) % expected_bytes
        return (inside + n) // frame_bytes

    with no_collector():
        for c in connections:
            c.left, c.since, c.count = in_flight, clock(), 0
            push(c)
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
                raise stalled(len(connections) * in_flight)
            for fd, event in events:
                c = by_fd[fd]
                if event & select.EPOLLIN:
                    done = take(c)
                    if done:
                        count += done
                        c.left -= done
                        if c.left <= 0:
                            now = clock()
                            latencies.append(now - c.since)
                            c.left, c.since = in_flight, now
                        unsent[fd] += done * one_request
                        push(c)
                    elif c.backlog:
                        push(c)
                    if isinstance(c.sock, ssl.SSLSocket) and c.sock.pending():
                        events.append((fd, select.EPOLLIN))
                elif event & select.EPOLLOUT:
                    push(c)
                else:
                    raise Failed("the server reset the connection")
        cpu = time.process_time() - cpu
        watch.stop()
        elapsed = now - start
        result = Measured(count, elapsed, latencies, cpu / elapsed)
        owed = dict.fromkeys(by_fd, in_flight)
        while owed:
            events = epoll.poll(STALL_SECONDS)
            if not events:
                raise stalled(len(owed))
            for fd, event in events:
                c = by_fd[fd]
                if event & select.EPOLLIN:
                    done = take(c)
                    if done:
                        owed[fd] -= done
                        if not owed[fd]:
                            del owed[fd]
                if event & select.EPOLLOUT:
                    push(c)
    epoll.close()
    return result


def fanout(
    members: list[Connection], publishers: int, in_flight: int, warm_up: float, seconds: float, watch: Watch
) -> Measured:
    """Publish into one room; `in_flight` messages in all that not every member has received yet.

    With several publishers they take turns, so each has about `in_flight / publishers` under way. A message
    counts as delivered to a member when its last byte is read, and its latency is the time from its send to
    the last member (for the n-th message sent: until every member has received n).
    """
    epoll, by_fd = poller(members)
    poll, clock = epoll.poll, time.perf_counter
    frame_bytes = members[0].frame_bytes
    period = members[0].expected_bytes
    known = {members[0].expected[i : i + frame_bytes] for i in range(0, period, frame_bytes)}
    alone = publishers == 1
    latencies = array("d")
    timed = latencies.append
    # How many members have received exactly n messages, by n modulo a size no spread can reach.
    size = 4 * in_flight
    at_count = [0] * size
    at_count[0] = len(members)
    sent_at = [0.0] * size
    published = slowest = 0  # messages sent; messages that every member has
    one_request = members[0].one_request

    def publish(number: int) -> None:
        nonlocal published
        now = clock()
        if alone:
            c = members[0]
            end = c.at_request + number * one_request
            _send(c, c.requests[c.at_request : end])
            c.at_request = end % c.request_bytes
            for n in range(published, published + number):
                sent_at[n % size] = now
        else:
            for n in range(published, published + number):
                c = members[n % publishers]
                _send(c, c.requests[:one_request])
                sent_at[n % size] = now
        published += number

    def receive(c: Connection, data: bytes) -> int:
        """Check and count one read; return how many messages it completed."""
        n = len(data)
        at = c.at_expected
        if alone:
            if not n or c.expected[at : at + n] != data:
                n = len(_sort_out(epoll, c, data))
            c.at_expected = (at + n) % period
            return (at % frame_bytes + n) // frame_bytes
        # Several publishers: the order is the server's choice, the frames are not.
        if c.held:
            data, c.held = c.held + data, b""
        if not n or data[:frame_bytes] not in known:
            data = _whole_frames(epoll, c, data, frame_bytes, known)
        done, rest = divmod(len(data), frame_bytes)
        if rest:
            c.held = data[-rest:]
        if done and data[(done - 1) * frame_bytes : done * frame_bytes] not in known:
            raise Failed(f"wrong byte in a delivery: {data[(done - 1) * frame_bytes :][:40]!r}")
        return done

    with no_collector():
        for c in members:
            c.count = 0
        publish(in_flight)
        delivered, measuring, cpu = 0, False, 0.0
        start = clock()
        stop = start + warm_up
        stopping = False
        result = None
        while True:
            events = poll(STALL_SECONDS)
            now = clock()
            if now >= stop and not stopping:
                if measuring:
                    cpu = time.process_time() - cpu
                    watch.stop()
                    result = Measured(delivered, now - start, array("d", latencies), cpu / (now - start))
                    stopping = True
                else:
                    watch.start()
                    del latencies[:]
                    measuring, delivered, start = True, 0, clock()
                    stop, cpu = start + seconds, time.process_time()
            if not events:
                raise stalled(published - slowest)
            before = slowest
            for fd, event in events:
                c = by_fd[fd]
                if event & 4:
                    _flush(epoll, c)
                    continue
                done = receive(c, c.recv(_READ))
                if done:
                    delivered += done
                    count = c.count
                    at_count[count % size] -= 1
                    c.count = count + done
                    at_count[c.count % size] += 1
                    if c.count > published:
                        raise Failed("a member received more messages than were sent")
                    while slowest < published and not at_count[slowest % size]:
                        timed(clock() - sent_at[slowest % size])
                        slowest += 1
            if stopping:
                if slowest == published:
                    break
            elif slowest > before:
                publish(slowest - before)
    epoll.close()
    assert result is not None
    return result


def _whole_frames(
    epoll: select.epoll, c: Connection, data: bytes, frame_bytes: int, known: set[bytes]
) -> bytes:
    """Return the data frames of `data` without control frames; what is left over stays in `held`."""
    if not data:
        raise Failed("the server ended the connection")
    at, kept = 0, bytearray()
    while at < len(data):
        if data[at] & 0x0F >= 8:
            end = at + 2 + data[at + 1] if len(data) > at + 1 else len(data) + 1
            if end > len(data):
                break
            c.on_control_frame(data[at] & 0x0F, data[at + 2 : end])
            at = end
        elif len(data) - at < frame_bytes:
            break
        else:
            if data[at : at + frame_bytes] not in known:
                raise Failed(f"wrong byte in a delivery: {data[at : at + 40]!r}")
            kept += data[at : at + frame_bytes]
            at += frame_bytes
    c.held = data[at:]
    if c.backlog:
        epoll.modify(c.fd, select.EPOLLIN | select.EPOLLOUT)
    return bytes(kept)
