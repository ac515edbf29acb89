"""Programs that hang in code of their own, and signals: the process always ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time

import pytest

from tests.hostile.process import Target, serving
from tests.hostile.raw import Ended, connect, request

DRAIN = {"drain": 1.0}
WAYS = ("shield", "thread", "swallow", "block", "sleep")


def end_by_signals(process: subprocess.Popen[str], pauses: list[float]) -> float:
    """Send SIGTERM and SIGINT in turn; return the seconds until the process was gone."""
    began = time.monotonic()
    for number, pause in enumerate(pauses):
        process.send_signal(signal.SIGTERM if number % 2 == 0 else signal.SIGINT)
        try:
            process.wait(pause)
            break
        except subprocess.TimeoutExpired:
            continue
    assert process.poll() is not None, f"still there after {len(pauses)} signals and {sum(pauses):g} s"
    return time.monotonic() - began


def begin(target: Target, how: str) -> socket.socket:
    """Open a WebSocket whose handler is stuck; one that blocks says nothing before."""
    sock = connect(target.port)
    sock.sendall(request(f"/stuck/{how}"))
    if how != "block":
        while b"stuck" not in sock.recv(4096):
            pass
    time.sleep(0.2)
    return sock


@pytest.mark.parametrize("how", ["shield", "thread"])
def test_three_signals_end_a_process_whose_handler_is_stuck(how: str) -> None:
    end_stuck_process(how)


@pytest.mark.attack
@pytest.mark.parametrize("how", ["swallow", "block", "sleep"])
def test_three_signals_end_a_process_in_whatever_way_its_handler_is_stuck(how: str) -> None:
    end_stuck_process(how)


def end_stuck_process(how: str) -> None:
    with serving(timeouts=DRAIN) as target:
        sock = begin(target, how)
        end_by_signals(target.process, [0.4, 0.4, 10])
        sock.close()
        if how in ("shield", "thread", "swallow", "block"):
            assert "be_stuck" in target.log, "the record says where it is stuck"
            assert target.process.returncode == 1


@pytest.mark.attack
@pytest.mark.parametrize("how", WAYS)
def test_one_signal_ends_a_process_whose_handler_is_stuck_some_seconds_after_the_drain(how: str) -> None:
    with serving(timeouts=DRAIN) as target:
        sock = begin(target, how)
        end_by_signals(target.process, [20])
        sock.close()


@pytest.mark.parametrize("how", ["shield"])
def test_signals_end_a_process_whose_http_handler_is_stuck(how: str) -> None:
    with serving(timeouts=DRAIN) as target:
        sock = connect(target.port)
        sock.sendall(f"GET /stuck/{how} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        time.sleep(0.3)
        end_by_signals(target.process, [0.4, 0.4, 10])
        sock.close()


def test_one_signal_ends_a_lifespan_that_hangs_while_it_starts() -> None:
    with serving(timeouts=DRAIN, lifespan="starting") as target:
        end_by_signals(target.process, [5])


def test_signals_end_a_lifespan_that_hangs_while_it_ends() -> None:
    with serving(timeouts=DRAIN, lifespan="ending") as target:
        peer = target.connect()
        target.process.send_signal(signal.SIGTERM)
        assert peer.close_code() == 1001
        peer.sock.close()
        end_by_signals(target.process, [2, 10])


def test_sighup_is_a_goodbye_too() -> None:
    with serving(timeouts=DRAIN) as target:
        peer = target.connect()
        peer.echo()
        os.kill(target.process.pid, signal.SIGHUP)
        try:
            assert peer.close_code() == 1001
        except Ended as ended:
            pytest.fail(f"killed without a word: {ended}")
        peer.sock.close()
        assert target.process.wait(10) == 0
