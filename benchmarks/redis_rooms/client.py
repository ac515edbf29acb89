"""One client for all contenders: raw sockets, and the little of each one's protocol that is needed."""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from benchmarks.connections import BATCH, read_head
from benchmarks.frames import CLOSE_OPCODE, PING, PONG, REQUEST, TEXT, Failed, close_code, frame

__all__ = ["DIALECTS", "Peer", "join", "open_peers", "pump"]

STALL_SECONDS = 60.0


class Dialect(Protocol):
    """How a contender's clients join a room, say something in one, and read what was said.

    Attributes:
        welcomes_publishers: whether a publisher gets a text when it may begin. Members always get one.
    """

    welcomes_publishers: bool

    def path(self, room: str | None) -> str:
        """Return the path for a member of a room, or for a publisher."""

    def say(self, room: str, text: str) -> str:
        """Return the message that says something in a room."""

    def heard(self, text: str) -> str | None:
        """Return what was said; None for other messages."""

    def answer(self, text: str, room: str | None) -> str | None:
        """Return the answer to a message that says nothing, if it needs one."""


class Plain:
    """Texts in WebSocket messages; the path names the room."""

    welcomes_publishers = False

    def path(self, room: str | None) -> str:
        return "/publisher" if room is None else f"/member/{room}"

    def say(self, room: str, text: str) -> str:
        return f"{room} {text}"

    def heard(self, text: str) -> str | None:
        return text

    def answer(self, text: str, room: str | None) -> str | None:
        return None


class SocketIO:
    """Socket.IO 5 in Engine.IO 4, by WebSocket from the start."""

    welcomes_publishers = True

    def path(self, room: str | None) -> str:
        return "/socket.io/?EIO=4&transport=websocket"

    def say(self, room: str, text: str) -> str:
        return self._event("say", f"{room} {text}")

    def heard(self, text: str) -> str | None:
        return json.loads(text[2:])[1] if text.startswith('42["said",') else None

    def answer(self, text: str, room: str | None) -> str | None:
        if text.startswith("0"):  # open
            return "40"
        if text.startswith("40"):  # connected
            return self._event("join", "publishers" if room is None else room)
        return "3" if text == "2" else None  # ping

    def _event(self, name: str, value: str) -> str:
        return "42" + json.dumps([name, value])


DIALECTS: dict[str, Dialect] = {"plain": Plain(), "socket.io": SocketIO()}


class Peer:
    """One connection. What was said to it arrives at `on_text`."""

    __slots__ = ("dialect", "fd", "held", "on_text", "room", "sock")

    def __init__(self, sock: socket.socket, dialect: Dialect, room: str | None, early: bytes) -> None:
        self.sock, self.fd, self.dialect, self.room = sock, sock.fileno(), dialect, room
        self.held = early
        self.on_text: Callable[[str], None] = ignore

    def send(self, text: str) -> None:
        """Send one message; the kernel has room for what these clients send."""
        self.sock.sendall(frame(TEXT, text.encode(), masked=True))

    def read(self) -> None:
        """Handle what has come."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        if not data:
            raise Failed("the server ended the connection")
        self.take(data)

    def take(self, data: bytes = b"") -> None:
        data = self.held + data
        at, size = 0, len(data)
        while size - at >= 2:
            length, head = data[at + 1], 2
            if length == 126:
                if size - at < 4:
                    break
                length, head = struct.unpack_from("!H", data, at + 2)[0], 4
            end = at + head + length
            if end > size:
                break
            self._frame(data[at] & 0x0F, data[at + head : end])
            at = end
        self.held = data[at:]

    def _frame(self, opcode: int, body: bytes) -> None:
        if opcode == TEXT:
            text = body.decode()
            said = self.dialect.heard(text)
            if said is not None:
                self.on_text(said)
            elif (answer := self.dialect.answer(text, self.room)) is not None:
                self.send(answer)
        elif opcode == PING:
            self.sock.sendall(frame(PONG, body, masked=True))
        elif opcode == CLOSE_OPCODE:
            raise Failed(f"the server closed the connection: {close_code(body)}")

    def close(self) -> None:
        self.sock.close()


def ignore(text: str) -> None:
    """Drop a message."""


def open_peers(port: int, dialect: Dialect, rooms: Sequence[str | None], query: str = "") -> list[Peer]:
    """Open a member of each room, or a publisher for None, some handshakes at a time."""
    peers: list[Peer] = []
    for start in range(0, len(rooms), BATCH):
        batch = rooms[start : start + BATCH]
        socks = [socket.create_connection(("127.0.0.1", port), timeout=STALL_SECONDS) for _ in batch]
        for sock, room in zip(socks, batch, strict=True):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(REQUEST.replace(b"GET / ", f"GET {dialect.path(room)}{query} ".encode(), 1))
        for sock, room in zip(socks, batch, strict=True):
            _, early = read_head(sock)
            sock.setblocking(False)
            peers.append(Peer(sock, dialect, room, early))
    return peers


def join(port: int, dialect: Dialect, rooms: Sequence[str | None]) -> list[Peer]:
    """Open peers, and wait until each may be used."""
    peers = open_peers(port, dialect, rooms)
    missing = {peer for peer in peers if peer.room is not None or dialect.welcomes_publishers}
    for peer in peers:
        peer.on_text = lambda text, peer=peer: missing.discard(peer)  # type: ignore[misc]
        peer.take()
    pump(peers, lambda: not missing)
    for peer in peers:
        peer.on_text = ignore
    return peers


def pump(peers: list[Peer], done: Callable[[], bool], tick: Callable[[], float] | None = None) -> None:
    """Read from all until it is done. `tick` is called each time; it returns how long to wait at most."""
    epoll = select.epoll()
    by_fd = {peer.fd: peer for peer in peers}
    for fd in by_fd:
        epoll.register(fd, select.EPOLLIN)
    deadline = time.monotonic() + STALL_SECONDS
    try:
        while not done():
            pause = 0.1 if tick is None else tick()
            ready = epoll.poll(pause)
            if time.monotonic() > deadline:
                raise Failed(f"it was not done within {STALL_SECONDS:.0f} s")
            for fd, _ in ready:
                by_fd[fd].read()
    finally:
        epoll.close()
