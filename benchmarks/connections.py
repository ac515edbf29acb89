"""Opened connections with what the load loops need to know of each one."""

from __future__ import annotations

import select
import socket
import ssl
import time

from benchmarks.frames import CLOSE_OPCODE, PING, PONG, REQUEST, Failed, check_head, close_code, frame

__all__ = ["Connection", "open_connections", "poller"]

CONNECT_SECONDS = 20.0
BATCH = 32  # handshakes under way at once; below every server's backlog


class Connection:
    """One socket and its place in two periodic byte streams: what we send and what must come back.

    `expected` holds at least two periods, so that what one `recv` returned is compared with one slice.
    """

    __slots__ = (
        "at_expected",
        "at_request",
        "backlog",
        "count",
        "expected",
        "expected_bytes",
        "fd",
        "frame_bytes",
        "head",
        "held",
        "inflate",
        "left",
        "one_request",
        "recv",
        "request_bytes",
        "requests",
        "send",
        "since",
        "sock",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, head: bytes) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.recv = sock.recv
        self.send = sock.send
        self.head = head
        self.requests = self.expected = b""
        self.request_bytes = self.one_request = self.expected_bytes = self.frame_bytes = 0
        self.at_request = self.at_expected = 0
        self.backlog = b""  # what the socket would not take yet
        self.held = b""  # the beginning of a control frame
        self.left = 0  # replies until the timed message is back
        self.since = 0.0  # when the timed message left
        self.count = 0
        self.inflate = None

    def carries(self, requests: list[bytes], replies: list[bytes], span: int = 0) -> None:
        """Set the periodic streams; `replies` have one length. `span`: the most one `recv` may return."""
        self.requests = b"".join(requests) * 2
        self.request_bytes = len(self.requests) // 2
        self.one_request = len(requests[0])
        period = b"".join(replies)
        self.expected_bytes = len(period)
        self.expected = period * (2 + span // len(period))
        self.frame_bytes = len(replies[0])

    def carries_as(self, other: Connection) -> None:
        """Share another connection's streams."""
        self.requests, self.request_bytes = other.requests, other.request_bytes
        self.one_request = other.one_request
        self.expected, self.expected_bytes = other.expected, other.expected_bytes
        self.frame_bytes = other.frame_bytes

    def write(self, data: bytes) -> None:
        """Send outside the hot path: keep what the socket does not take."""
        if self.backlog:
            self.backlog += data
            return
        try:
            sent = self.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            sent = 0
        self.backlog = data[sent:]

    def without_control_frames(self, data: bytes) -> bytes:
        """Return the data frames' bytes of `data`, checked; answer pings, fail on anything else."""
        data, self.held = self.held + data, b""
        at, position, kept = 0, self.at_expected, bytearray()
        while at < len(data):
            inside = position % self.frame_bytes
            if not inside and data[at] & 0x0F >= CLOSE_OPCODE:
                end = at + 2 + data[at + 1] if len(data) > at + 1 else len(data) + 1
                if end > len(data):
                    self.held = data[at:]
                    break
                self.on_control_frame(data[at] & 0x0F, data[at + 2 : end])
                at = end
                continue
            end = min(at + self.frame_bytes - inside, len(data))
            if data[at:end] != self.expected[position : position + end - at]:
                raise Failed(
                    f"wrong byte in a reply: expected {self.expected[position : position + 40]!r}, "
                    f"got {data[at : at + 40]!r}"
                )
            kept += data[at:end]
            position = (position + end - at) % self.expected_bytes
            at = end
        return bytes(kept)

    def on_control_frame(self, opcode: int, body: bytes) -> None:
        if opcode == CLOSE_OPCODE:
            raise Failed(f"the server closed the connection: {close_code(body)}")
        if opcode == PING:
            self.write(frame(PONG, body, masked=True))

    def close(self) -> None:
        self.sock.close()


def _connect(port: int, context: ssl.SSLContext | None) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=CONNECT_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(sock, server_hostname="127.0.0.1") if context else sock


def read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """Read the answer to the opening handshake from a blocking socket; return it and what came behind it."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = sock.recv(4096)
        if not data:
            raise Failed(f"the server ended the connection during the handshake: {head[:200]!r}")
        head += data
    head, end, rest = head.partition(b"\r\n\r\n")
    check_head(head)
    return head + end, rest


def open_connections(
    port: int,
    count: int,
    *,
    request: bytes = REQUEST,
    context: ssl.SSLContext | None = None,
    early: bool = False,
) -> list[Connection]:
    """Open `count` connections, a batch of handshakes at a time. The sockets are non-blocking afterwards.

    What a server sends right behind its handshake (a first ping) is an error, or with `early` in `held`.
    """
    connections: list[Connection] = []
    try:
        while len(connections) < count:
            batch = [_connect(port, context) for _ in range(min(BATCH, count - len(connections)))]
            for sock in batch:
                sock.sendall(request)
            for sock in batch:
                head, rest = read_head(sock)
                connection = Connection(sock, head)
                connections.append(connection)
                if rest and not early:
                    raise Failed(f"bytes behind the handshake: {rest[:100]!r}")
                connection.held = rest
                sock.setblocking(False)
    except (OSError, Failed) as error:
        for connection in connections:
            connection.close()
        raise Failed(f"connection {len(connections) + 1} of {count}: {error}") from error
    return connections


def wait_for_server(port: int, context: ssl.SSLContext | None = None, seconds: float = 20.0) -> None:
    """Return when a handshake has succeeded: after READY some servers still start their workers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            open_connections(port, 1, context=context)[0].close()
        except Failed:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def poller(connections: list[Connection]) -> tuple[select.epoll, dict[int, Connection]]:
    """Return an epoll that watches the connections for reading, and the connections by descriptor."""
    epoll = select.epoll()
    for connection in connections:
        epoll.register(connection.fd, select.EPOLLIN)
    return epoll, {connection.fd: connection for connection in connections}
