"""The load loops notice what a benchmark must not overlook (wrong bytes, ends, Close) and answer pings."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from benchmarks import load, native
from benchmarks.connections import Connection
from benchmarks.frames import PING, PONG, TEXT, Failed, frame, payload
from benchmarks.load import Measured

Answer = Callable[[int, bytes], bytes]


class Watch:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")


def read_frames(sock: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yield the client's frames, unmasked."""
    data = b""
    while True:
        while len(data) >= 8:
            length, head = data[1] & 0x7F, 2
            if length == 126:
                length, head = struct.unpack("!H", data[2:4])[0], 4
            elif length == 127:
                length, head = struct.unpack("!Q", data[2:10])[0], 10
            end = head + 4 + length
            if len(data) < end:
                break
            key = data[head : head + 4] * (length // 4 + 1)
            yield data[0] & 0x0F, bytes(a ^ b for a, b in zip(data[head + 4 : end], key, strict=False))
            data = data[end:]
        try:
            more = sock.recv(65536)
        except ConnectionError:
            return
        if not more:
            return
        data += more


@contextmanager
def server(answer: Answer, pongs: list[bytes]) -> Iterator[Connection]:
    """A peer that answers the n-th message with `answer(n, payload)`; nothing ends the stream."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        number = 0
        for opcode, data in read_frames(theirs):
            if opcode == PONG:
                pongs.append(data)
                continue
            reply = answer(number, data)
            number += 1
            try:
                if reply:
                    theirs.sendall(reply)
                else:
                    theirs.shutdown(socket.SHUT_WR)
            except ConnectionError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    ours.setblocking(False)
    try:
        yield Connection(ours, b"")
    finally:
        ours.close()
        thread.join()
        theirs.close()


Loop = Callable[[list[Connection], int, float, float, Watch], Measured]
LOOPS: list[Loop] = [load.echo, load.echo_large]
if native.available():
    LOOPS.append(native.echo)

every_loop = pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: f"{loop.__module__}.{loop.__name__}")


def run(
    loop: Loop, answer: Answer, *, in_flight: int = 2, size: int = 64, seconds: float = 0.05
) -> tuple[Measured, list[bytes]]:
    pongs: list[bytes] = []
    with server(answer, pongs) as connection:
        texts = [payload(size, f"{k}") for k in range(4)]
        connection.carries(
            [frame(TEXT, t, masked=True) for t in texts], [frame(TEXT, t, masked=False) for t in texts], 65536
        )
        watch = Watch()
        measured = loop([connection], in_flight, 0.02, seconds, watch)
        assert watch.calls == ["start", "stop"]
    return measured, pongs


def right(number: int, data: bytes) -> bytes:
    return frame(TEXT, data, masked=False)


@every_loop
def test_right_replies_are_counted(loop: Loop) -> None:
    # load.echo is made for frames that fit a socket buffer.
    measured, _ = run(loop, right, size=64 if loop is load.echo else 70_000, in_flight=1)
    assert measured.messages > 0
    assert measured.percentile(0.99) >= measured.percentile(0.5) > 0


@every_loop
def test_a_wrong_byte_fails(loop: Loop) -> None:
    def wrong(number: int, data: bytes) -> bytes:
        return right(number, data if number != 5 else data[:-1] + bytes([data[-1] ^ 1]))

    with pytest.raises(Failed, match="wrong byte"):
        run(loop, wrong, seconds=30)


@every_loop
def test_a_reply_of_another_length_fails(loop: Loop) -> None:
    with pytest.raises(Failed, match="wrong byte"):
        run(loop, lambda number, data: right(number, data if number != 5 else data + b"!"), seconds=30)


@every_loop
def test_a_reply_twice_fails(loop: Loop) -> None:
    with pytest.raises(Failed):
        run(
            loop,
            lambda number, data: right(number, data) * (2 if number == 5 else 1),
            in_flight=1,
            seconds=30,
        )


@every_loop
def test_a_close_fails_with_its_code(loop: Loop) -> None:
    with pytest.raises(Failed, match="1009"):
        run(
            loop,
            lambda n, data: right(n, data) if n < 5 else b"\x88\x02" + struct.pack("!H", 1009),
            seconds=30,
        )


@every_loop
def test_an_end_fails(loop: Loop) -> None:
    with pytest.raises(Failed, match="ended the connection"):
        run(loop, lambda n, data: right(n, data) if n < 5 else b"", seconds=30)


@every_loop
def test_a_ping_is_answered_and_the_run_goes_on(loop: Loop) -> None:
    def ping_sometimes(number: int, data: bytes) -> bytes:
        before = frame(PING, b"are you there", masked=False) if number % 10 == 3 else b""
        return before + right(number, data)

    measured, pongs = run(loop, ping_sometimes)
    assert measured.messages > 10
    assert pongs
    assert set(pongs) == {b"are you there"}
