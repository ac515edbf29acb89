"""A loop that is blocked, a process that is stopped, a fork, other threads: mistakes of the program's own."""

from __future__ import annotations

import selectors
import signal
import threading
import time

import pytest

from tests.hostile.process import linux_only, serving
from tests.hostile.raw import CLOSE, PING, PONG, Client, Ended, frame

PEERS = 700
"""More than what one look at epoll tells of: whoever is beyond it must not be judged before it was read."""
KEEPALIVE = {"interval": 0.5, "timeout": 1.0}


def survivors(clients: list[Client], seconds: float) -> int:
    """Answer every ping at once; return how many are still open at the end."""
    until = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.sock, selectors.EVENT_READ, client)
        while (left := until - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                client = key.data
                try:
                    opcode, payload = client.frame()
                except (Ended, OSError):
                    opcode = CLOSE
                if opcode == CLOSE:
                    selector.unregister(client.sock)
                elif opcode == PING:
                    client.send(frame(PONG, payload))
        return len(selector.get_map())


@pytest.mark.attack
@pytest.mark.parametrize("how", ["block", "stop"])
def test_nobody_who_answered_at_once_dies_of_a_loop_that_did_not_run(how: str) -> None:
    """Each ping's answer waits in the kernel while we do not run: judged afterwards, nobody is late."""
    with serving(keepalive=KEEPALIVE) as target:
        clients = [target.connect() for _ in range(PEERS)]

        def strike() -> None:
            time.sleep(0.6)
            if how == "block":
                target.connect("/block/2.0", seconds=20)
            else:
                target.process.send_signal(signal.SIGSTOP)
                time.sleep(2.0)
                target.process.send_signal(signal.SIGCONT)

        striking = threading.Thread(target=strike)
        striking.start()
        left = survivors(clients, 4.5)
        striking.join()
        assert left == len(clients)
        if how == "block":
            (blocked,) = target.records("loop.blocked")
            assert "block" in str(blocked)


@pytest.mark.parametrize("verb", ["broadcast", "send_nowait", "nursery"])
def test_a_call_from_another_thread_is_refused_before_anything_changes(verb: str) -> None:
    with serving() as target:
        innocent = target.connect()
        innocent.echo()
        with target.connect(f"/from-thread/{verb}", seconds=4) as peer:
            assert peer.message() != b"returned"
            peer.echo(b"and it goes on")
        innocent.echo()
        target.still_serves()


@linux_only
def test_a_fork_by_a_handler_costs_nobody_a_core_and_cuts_nobody_off() -> None:
    with serving() as target:
        others = [target.connect() for _ in range(5)]
        pool = target.connect("/pool", seconds=30)
        assert pool.message() == b"1"
        for client in (*others, pool):
            client.send(frame(CLOSE, b"\x03\xe8"))
            assert client.close_code() == 1000
            client.sock.close()
        time.sleep(0.3)
        assert target.busy_share() < 0.2
        newcomers = [target.connect() for _ in range(20)]
        for client in newcomers:
            client.echo()
