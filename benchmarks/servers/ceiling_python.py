"""The ceiling in Python: one epoll loop with nothing of WebSocket but the frame's shape.

No limits, no UTF-8 check, no fragments, no timeouts, no handlers. It shows what system calls and the
interpreter alone cost, so that a library's own part can be told from it.
"""

import base64
import hashlib
import select
import socket

from websockets.speedups import apply_mask

from benchmarks.servers import arguments, listen, ready


def accept_key(head: bytes) -> bytes:
    key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
    key = key.partition(b":")[2].strip()
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


class Peer:
    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.open = self.closing = False
        self.unread = b""
        self.unsent = b""


def frames(data: bytes) -> tuple[list[bytes], int, bool]:
    """Return the answers to the whole frames in `data`, the bytes they took, and whether a Close was one."""
    answers, at, end = [], 0, len(data)
    while end - at >= 6:
        size, head = data[at + 1] & 0x7F, 2
        if size == 126:
            size, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
        elif size == 127:
            if end - at < 10:
                break
            size, head = int.from_bytes(data[at + 2 : at + 10], "big"), 10
        start = at + head + 4
        if end - start < size:
            break
        payload = apply_mask(data[start : start + size], data[start - 4 : start])
        answers.append(bytes((data[at], data[at + 1] & 0x7F)) + data[at + 2 : at + head] + payload)
        if data[at] == 0x88:
            return answers, start + size, True
        at = start + size
    return answers, at, False


def main(port: int, mode: str) -> None:
    listener = listen(port)
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    peers: dict[int, Peer] = {}
    members: set[Peer] = set()
    fanout = mode == "fanout"

    def drop(peer: Peer) -> None:
        del peers[peer.sock.fileno()]
        members.discard(peer)
        peer.sock.close()

    def put(peer: Peer, data: bytes) -> None:
        if not peer.unsent:
            try:
                sent = peer.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return
            if sent == len(data):
                return
            data = data[sent:]
            epoll.modify(peer.sock, select.EPOLLIN | select.EPOLLOUT)
        peer.unsent += data

    def flush(peer: Peer) -> None:
        sent = peer.sock.send(peer.unsent)
        peer.unsent = peer.unsent[sent:]
        if not peer.unsent:
            epoll.modify(peer.sock, select.EPOLLIN)

    def readable(peer: Peer) -> None:
        try:
            data = peer.sock.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            drop(peer)
            return
        if peer.unread:
            data = peer.unread + data
        if not peer.open:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                peer.unread = head
                return
            peer.open, peer.unread = True, b""
            put(
                peer,
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept_key(head) + b"\r\n\r\n",
            )
            if fanout:
                members.add(peer)
        answers, used, closed = frames(data)
        peer.unread = data[used:]
        if answers:
            answer = b"".join(answers)
            for receiver in members if fanout and not closed else (peer,):
                put(receiver, answer)
        if closed:
            drop(peer)

    ready(listener.getsockname()[1])
    while True:
        for fd, event in epoll.poll():
            if fd == listener.fileno():
                try:
                    while True:
                        sock, _ = listener.accept()
                        peer = Peer(sock)
                        peers[sock.fileno()] = peer
                        epoll.register(sock, select.EPOLLIN)
                except BlockingIOError:
                    continue
            elif peer := peers.get(fd):
                if event & select.EPOLLOUT:
                    flush(peer)
                if event & ~select.EPOLLOUT:
                    readable(peer)


if __name__ == "__main__":
    main(*arguments())
