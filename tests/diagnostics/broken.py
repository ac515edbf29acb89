"""Servers on plain sockets that do one thing wrong; what a trace makes of them."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from wsframework.diagnostics.steps import as_json
from wsframework.diagnostics.target import Opening, parse_target
from wsframework.diagnostics.tracing.tracer import Plan, trace
from wsframework.wire import accept_key

PATIENCE_SECONDS = 30.0

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has TCP_INFO")

Talk = Callable[[socket.socket], None]
Story = list[dict[str, Any]]


@contextmanager
def raw_server(talk: Talk, *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Accept one connection at a time, talk on it, close it; return `127.0.0.1:port`."""
    listener = socket.create_server(("127.0.0.1", 0))
    stopping = threading.Event()

    def serve() -> None:
        # Not without end: a talk may outlast the wait for this thread, and then the listener is closed.
        while not stopping.is_set():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                if stopping.is_set():
                    connection.close()
                    return
                connection.settimeout(PATIENCE_SECONDS)
                with contextlib.suppress(OSError), connection:
                    if tls is None:
                        talk(connection)
                    else:
                        with tls.wrap_socket(connection, server_side=True) as secured:
                            talk(secured)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    host, port = listener.getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        stopping.set()
        with contextlib.suppress(OSError):
            socket.create_connection((host, port), PATIENCE_SECONDS).close()
        thread.join(PATIENCE_SECONDS)
        listener.close()


def plan_for(
    url: str,
    *,
    deflate: bool = False,
    messages: tuple[str, ...] = (),
    wait_seconds: float = 0.05,
    timeout_seconds: float = 20.0,
    **opening: Any,
) -> Plan:
    """Return the plan of a trace, from the settings of both its parts."""
    return Plan(
        opening=Opening(target=parse_target(url), timeout_seconds=timeout_seconds, **opening),
        deflate=deflate,
        messages=messages,
        wait_seconds=wait_seconds,
    )


def tell_story(url: str, **plan: Any) -> Story:
    """Trace a URL and return the steps as a program would read them."""
    steps: Story = []
    trio.run(trace, plan_for(url, **plan), lambda step: steps.append(as_json(step)))
    story: Story = json.loads(json.dumps(steps))
    return story


def only(story: Story, name: str) -> dict[str, Any]:
    """Return the only step of a name."""
    (step,) = every(story, name)
    return step


def every(story: Story, name: str) -> Story:
    return [step for step in story if step["step"] == name]


def problems(story: Story) -> list[str]:
    """Return the names of what was diagnosed."""
    return [step["problem"] for step in every(story, "diagnosis")]


# What a server says


def read_request(connection: socket.socket) -> str:
    """Read an opening handshake and return its key."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(4096)
        assert more
        data += more
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", data)
    assert key is not None
    return key[1].decode()


def answer(connection: socket.socket, status: str, *fields: str, body: bytes = b"") -> None:
    """Answer an opening handshake in HTTP."""
    read_request(connection)
    connection.sendall("\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode() + body)


def upgrade(connection: socket.socket, *fields: str, without: str = "", then: bytes = b"") -> None:
    """Accept an opening handshake, but for one field that is left out; send something behind it."""
    key = read_request(connection)
    good = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept_key(key)}"]
    lines = [line for line in good if not without or not line.startswith(without)]
    head = "\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, *fields, "", ""])
    connection.sendall(head.encode() + then)


def read_frame(connection: socket.socket) -> tuple[int, bytes]:
    """Read a client's short frame and return its first byte and payload."""
    first, second = _read(connection, 2)
    key = _read(connection, 4)
    payload = _read(connection, second & 0x7F)
    return first, bytes(octet ^ key[index % 4] for index, octet in enumerate(payload))


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError("the client left")
        data += more
    return data


def answer_close(connection: socket.socket) -> None:
    """Read frames up to a Close and answer that."""
    while True:
        first, payload = read_frame(connection)
        if first == 0x88:
            connection.sendall(bytes((0x88, len(payload))) + payload)
            return


def drain(connection: socket.socket) -> None:
    """Read up to the client's FIN, so that closing is no RST."""
    with contextlib.suppress(OSError):
        while connection.recv(4096):
            pass


def reset(connection: socket.socket) -> None:
    """Close with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# Servers, by what they say


def saying(head: bytes, then: bytes = b"", *, end: bool = False) -> Talk:
    """Answer the opening handshake with these bytes, again and again with those, or end TCP."""

    def talk(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(head)
        while then:
            connection.sendall(then)
        if end:
            connection.shutdown(socket.SHUT_WR)
        drain(connection)

    return talk


def upgrading(*fields: str, without: str = "", then: bytes = b"") -> Talk:
    """Open a WebSocket as `upgrade` does, and say no more."""

    def talk(connection: socket.socket) -> None:
        upgrade(connection, *fields, without=without, then=then)
        drain(connection)

    return talk
