"""Twenty peers send one kind of frame as fast as they can: nobody else may feel it."""

from __future__ import annotations

import socket
import statistics
import threading
import time

import pytest

from tests.hostile.flooder import KINDS
from tests.hostile.process import Target, bar_seconds, eventually, flooding, linux_only, serving
from tests.hostile.raw import PING, PONG, Client, Ended, frame

FLOODERS = 20
QUICK = ("empty fragments", "compressed")


class Quiet:
    """An innocent that only answers pings, at once, in a thread."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.pongs = 0
        self.end = ""
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """End the connection, and wait for the thread before the descriptor gets a new owner."""
        self.client.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.client.sock.close()

    def _live(self) -> None:
        try:
            while True:
                opcode, payload = self.client.frame()
                if opcode == PING:
                    self.client.send(frame(PONG, payload))
                    self.pongs += 1
                else:
                    self.end = f"a frame of opcode {opcode}: {payload!r}"
                    return
        except (Ended, OSError) as error:
            self.end = self.end or repr(error)


def attack(target: Target, kind: str, seconds: float) -> None:
    bar = bar_seconds(target)
    quiet = Quiet(target.connect(seconds=60))
    with target.connect(seconds=6) as innocent, flooding(target, kind, FLOODERS, seconds + 30):
        time.sleep(0.3)
        waits = [innocent.echo()]
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            waits.append(innocent.echo())
    median = statistics.median(waits)
    assert median < bar, f"an echo waits {median:.3f} s, at worst {max(waits):.3f} s; the bar is {bar:.3f} s"
    assert not quiet.end, f"an innocent was closed: {quiet.end}"
    quiet.leave()
    eventually(lambda: target.figures()["websockets"] == 0, "the flooders' connections are gone")
    target.still_serves()


@linux_only
@pytest.mark.parametrize("kind", QUICK)
def test_a_flood_lets_an_innocent_echo_within_60_ms(kind: str) -> None:
    with serving(keepalive={"interval": 0.5, "timeout": 3}) as target:
        attack(target, kind, 1.0)


@linux_only
def test_compressed_bytes_that_inflate_to_nothing_do_not_block_the_loop() -> None:
    with serving() as target:
        with target.connect(seconds=30) as innocent, flooding(target, "empty blocks", FLOODERS, 30):
            until = time.monotonic() + 3.0
            while time.monotonic() < until:
                innocent.echo()
        assert not target.records("loop.blocked")


@pytest.mark.attack
@linux_only
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_flood_of_any_kind_lets_an_innocent_wait_60_ms(kind: str, tls: bool) -> None:
    with serving(tls=tls, keepalive={"interval": 0.5, "timeout": 3}) as target:
        attack(target, kind, 6.0)
