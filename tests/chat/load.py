"""A full room: many clients who all talk, one of whom perhaps never reads. Run whole by

    python -m tests.chat.load

Every client is checked: every message, once, in the one order. The clients share one process and speak the
protocol by hand, because 200 clients at 10 messages a second are 400,000 deliveries a second: a delivery may
cost no more than a look into a dict. Frames are the same bytes for all members, so each is parsed once.
"""

from __future__ import annotations

import argparse
import base64
import gc
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs

from wsframework import App, SlowPolicy
from wsframework.chat import Chat, Rate

_HANDSHAKE = (
    "GET /ws/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: superchat\r\nSec-WebSocket-Key: {key}\r\n\r\n"
)

_PATIENCE_SECONDS = 30.0
_MEASURED_CLIENTS = 20
"""Clients whose deliveries are timed; all are checked."""


@attrs.frozen(kw_only=True)
class Load:
    """What is asked of the room.

    Attributes:
        clients: members who talk and read.
        per_second: messages a second of each.
        seconds: for how long.
        stuck: whether there is one more member, who never reads.
        stuffed: whether what the kernel keeps for that member (megabytes) is full from the start, so that
            the room has to wait for it at once. Else the load itself must fill it first.
        slow_bytes: `SlowPolicy.max_bytes` of the room.
        slow_seconds: its `max_seconds`.
    """

    clients: int = 200
    per_second: float = 10.0
    seconds: float = 30.0
    stuck: bool = False
    stuffed: bool = False
    slow_bytes: int = SlowPolicy().max_bytes
    slow_seconds: float = SlowPolicy().max_seconds


@attrs.frozen(kw_only=True)
class Result:
    """What came of it. Latencies are in milliseconds, from the call of `send` to the read of the last byte.

    Attributes:
        said: messages that clients sent.
        acknowledged: answers that came.
        delivered: messages that all clients together got.
        complete: clients that got every message, once and in the one order.
        events: frames with messages that one client got; fewer than messages, because a commit's are one.
        p50, p99, worst: of the deliveries to the clients that were timed.
        stuck_closed: whether the member who never reads was closed.
        stuck_closed_after: seconds from the start, None when it was not closed.
        server_cpu: seconds of processor time a second that the server used.
        catching_up: seconds from the last `send` until everybody had everything.
    """

    said: int
    acknowledged: int
    delivered: int
    complete: int
    events: int
    p50: float
    p99: float
    worst: float
    stuck_closed: bool
    stuck_closed_after: float | None
    server_cpu: float
    catching_up: float


def text_frame(value: dict[str, Any]) -> bytes:
    """Encode a request, masked with a key of zeros: the server cannot know, and the client saves the work."""
    payload = json.dumps(value).encode()
    assert len(payload) < 65536
    if len(payload) < 126:
        return bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload
    return bytes([0x81, 0xFE]) + len(payload).to_bytes(2) + bytes(4) + payload


def open_client(
    port: int, name: str, receive_buffer: int | None = None, source: str = "127.0.0.1"
) -> tuple[socket.socket, bytes]:
    """Connect, say hello and join the lobby; return the socket and what came behind the answers."""
    client = socket.socket()
    client.bind((source, 0))
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(_PATIENCE_SECONDS)
    client.connect(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = base64.b64encode(os.urandom(16)).decode()
    client.sendall(_HANDSHAKE.format(key=key).encode())
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(65536)
    head, _, data = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101"), head
    client.sendall(text_frame({"type": "hello", "id": "hello", "version": 1, "name": name}))
    client.sendall(text_frame({"type": "join", "id": "join", "room": "lobby"}))
    while b'"re":"join"' not in data:
        data += client.recv(65536)
    assert b'"type":"joined"' in data, data
    # Answers and events before this point are of no interest; cut at the end of the answer's frame.
    at = 0
    while at < len(data):
        start, end = frame_at(data, at)
        if b'"re":"join"' in data[start:end]:
            return client, data[end:]
        at = end
    raise AssertionError("no answer to join")


def frame_at(data: bytes, at: int) -> tuple[int, int]:
    """Return where the payload of the frame at `at` starts and ends, perhaps beyond `data`; no masks."""
    length = data[at + 1]
    if length < 126:
        return at + 2, at + 2 + length
    if length == 126:
        return at + 4, at + 4 + int.from_bytes(data[at + 2 : at + 4])
    return at + 10, at + 10 + int.from_bytes(data[at + 2 : at + 10])


@attrs.frozen
class Event:
    """What a frame with messages says, parsed once for all members."""

    first: int
    last: int
    count: int
    whole: bool
    sent_at: tuple[int, ...]


def read_event(payload: bytes) -> Event:
    messages = json.loads(payload)["messages"]
    ids = [message["id"] for message in messages]
    whole = ids == list(range(ids[0], ids[0] + len(ids)))
    return Event(
        ids[0], ids[-1], len(ids), whole, tuple(int(message["text"].split()[-1]) for message in messages)
    )


class Clients:
    """All clients of a run, in one epoll loop."""

    def __init__(self, load: Load, port: int) -> None:
        self.load = load
        self.sockets: list[socket.socket] = []
        self.rests: list[bytes] = []
        self.index: dict[int, int] = {}
        self.last: list[int | None] = [None] * load.clients
        self.delivered = [0] * load.clients
        self.events = [0] * load.clients
        self.ordered = [True] * load.clients
        self.acknowledged = 0
        self.refused: list[bytes] = []
        self.parsed: dict[bytes, Event] = {}
        self.latencies: Counter[int] = Counter()  # in tenths of a millisecond
        self.poll = select.epoll()
        for number in range(load.clients):
            client, rest = open_client(port, f"client {number}")
            client.setblocking(False)
            self.sockets.append(client)
            self.rests.append(rest)
            self.index[client.fileno()] = number
            self.poll.register(client.fileno(), select.EPOLLIN)

    def close(self) -> None:
        self.poll.close()
        for client in self.sockets:
            client.close()

    def receive(self, timeout: float) -> None:
        """Read what there is, waiting at most so long for something."""
        for fileno, _ in self.poll.poll(timeout):
            number = self.index[fileno]
            try:
                data = self.sockets[number].recv(1 << 18)
            except BlockingIOError:
                continue
            assert data, f"client {number} was closed: {self.rests[number]!r}"
            self.take(number, self.rests[number] + data)

    def take(self, number: int, data: bytes) -> None:
        at, size = 0, len(data)
        now = time.monotonic_ns()
        while (
            size - at >= 2
            and (size - at >= 4 or data[at + 1] < 126)
            and (size - at >= 10 or data[at + 1] < 127)
        ):
            start, end = frame_at(data, at)
            if end > size:
                break
            self.frame(number, data[start:end], now)
            at = end
        self.rests[number] = data[at:]

    def frame(self, number: int, payload: bytes, now: int) -> None:
        event = self.parsed.get(payload)
        if event is None:
            if payload.startswith(b'{"type":"said"'):
                self.acknowledged += 1
                return
            if not payload.startswith(b'{"type":"messages"'):
                if payload.startswith(b'{"type":"error"'):
                    self.refused.append(payload)
                return
            event = self.parsed[payload] = read_event(payload)
        last = self.last[number]
        if not event.whole or (last is not None and event.first != last + 1):
            self.ordered[number] = False
        self.last[number] = event.last
        self.delivered[number] += event.count
        self.events[number] += 1
        if number < _MEASURED_CLIENTS:
            for sent_at in event.sent_at:
                self.latencies[(now - sent_at) // 100_000] += 1

    def talk(self) -> int:
        """Let everybody talk for the time of the load; return how many messages were sent."""
        load = self.load
        interval = 1 / (load.per_second * load.clients)
        start = time.monotonic()
        said = 0
        total = int(load.seconds * load.per_second * load.clients)
        while said < total:
            due = min(total, int((time.monotonic() - start) / interval))
            for turn in range(said, due):
                request = {
                    "type": "say",
                    "id": turn,
                    "room": "lobby",
                    "text": f"message {turn} of somebody who talks a lot, at {time.monotonic_ns()}",
                }
                frame = text_frame(request)
                assert self.sockets[turn % load.clients].send(frame) == len(frame)
            said = max(said, due)
            self.receive(max(0.0, start + (said + 1) * interval - time.monotonic()))
        return said

    def catch_up(self, said: int) -> float:
        """Wait until everybody has everything; return how long it took."""
        start = time.monotonic()
        while min(self.delivered) < said or self.acknowledged < said:
            if time.monotonic() - start > _PATIENCE_SECONDS:
                break
            self.receive(0.1)
        return time.monotonic() - start

    def percentile(self, share: float) -> float:
        """Return a latency in milliseconds."""
        wanted = share * self.latencies.total()
        seen = 0
        for tenth, count in sorted(self.latencies.items()):
            seen += count
            if seen >= wanted:
                return tenth / 10
        return float("nan")


class Stuck:
    """The member who never reads: not even its kernel has much room."""

    def __init__(self, port: int, *, stuffed: bool) -> None:
        self.socket, _ = open_client(port, "Stuck", receive_buffer=4096)
        if stuffed:
            for _ in range(135):  # each an answer of 32 kB
                self.socket.sendall(text_frame({"type": "join", "room": "big"}))
                self.socket.sendall(text_frame({"type": "leave", "room": "big"}))
        self.start = time.monotonic()


def cpu_seconds(pid: int) -> float:
    """Return the processor time a process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(load: Load) -> Result:
    """Start a server, load it, and say what came of it."""
    gc.disable()  # of the clients: their pauses are not the server's
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.chat.load", "serve", f"{folder}/chat.db"]
        command += [str(load.slow_bytes), str(load.slow_seconds)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            return measure(load, port, server.pid, server)
        finally:
            server.terminate()
            server.communicate(timeout=_PATIENCE_SECONDS)
            gc.enable()


def measure(load: Load, port: int, pid: int, server: subprocess.Popen[str]) -> Result:
    clients = Clients(load, port)
    stuck = Stuck(port, stuffed=load.stuffed) if load.stuck else None
    used, start = cpu_seconds(pid), time.monotonic()
    said = clients.talk()
    used, elapsed = cpu_seconds(pid) - used, time.monotonic() - start
    catching_up = clients.catch_up(said)
    assert not clients.refused, clients.refused[0]
    complete = sum(
        ordered and delivered == said
        for ordered, delivered in zip(clients.ordered, clients.delivered, strict=True)
    )
    closed_after: float | None = None
    if stuck is not None:
        assert server.stdout is not None
        os.set_blocking(server.stdout.fileno(), False)
        line = server.stdout.readline()
        closed_after = float(line) - stuck.start if line else None
    result = Result(
        said=said,
        acknowledged=clients.acknowledged,
        delivered=sum(clients.delivered),
        complete=complete,
        events=max(clients.events),
        p50=clients.percentile(0.5),
        p99=clients.percentile(0.99),
        worst=max(clients.latencies, default=0) / 10,
        stuck_closed=closed_after is not None,
        stuck_closed_after=closed_after and round(closed_after, 2),
        server_cpu=round(used / elapsed, 2),
        catching_up=round(catching_up, 2),
    )
    clients.close()
    if stuck is not None:
        stuck.socket.close()
    return result


def serve(database: str, slow_bytes: int, slow_seconds: float) -> None:
    """Serve the chat; print the port, and when the slow member was closed."""
    slow = SlowPolicy(max_bytes=slow_bytes, max_seconds=slow_seconds)
    chat = Chat(
        history=database, slow=slow, rate=Rate(per_second=1e6, burst=10**6), connections_per_address=None
    )
    app = App()
    app.install(chat)
    told = False

    @chat.on_message
    def watch(message: object) -> None:
        nonlocal told
        if not told and "lobby" in chat.rooms and chat.rooms["lobby"].statistics().closed:
            told = True
            print(time.monotonic(), flush=True)

    @app.lifespan
    async def make_a_big_room() -> AsyncIterator[None]:
        for _ in range(50):
            await chat.say("big", "x" * 4000, name="Stuffing")
        yield

    app.run(port=0, on_listening=lambda server: print(server.port, flush=True))


def main() -> None:
    """Run both loads, without and with the member who never reads, and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--per-second", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    results = [
        attrs.asdict(
            run(
                Load(
                    clients=arguments.clients,
                    per_second=arguments.per_second,
                    seconds=arguments.seconds,
                    stuck=stuck,
                )
            )
        )
        for stuck in (False, True)
    ]
    print(f"{'':24}{'without':>12}{'with the member who never reads':>34}")
    for name in results[0]:
        print(f"{name:24}{results[0][name]!s:>12}{results[1][name]!s:>34}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    else:
        main()
