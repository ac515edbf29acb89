"""Programs that hold out against being stopped, and signals."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

HEAD = """
import sys, time, trio
from wsframework import App, Timeouts
from wsframework.cli.logs import LogFormat, LogLevel, set_up_logging
set_up_logging(LogLevel.INFO, LogFormat.TEXT)
app = App(timeouts=Timeouts(drain=0.3, lifespan=0.3))
"""
TAIL = """
app.run('127.0.0.1', 0, on_listening=lambda s: print(s.port, flush=True))
print('returned', flush=True)
"""
SAY = "    print('there', flush=True)\n"
HANDLER = "@app.websocket('/')\nasync def x(ws):\n" + SAY
PAGE = "@app.http('/')\nasync def x(request):\n" + SAY
LIFESPAN = "@app.lifespan\nasync def x(app):\n"
PATIENT = "app = App(timeouts=Timeouts(drain=60, lifespan=60))\n"
HOLD_OUT = "    with trio.CancelScope(shield=True):\n        await trio.sleep(3600)\n"
GUARD = "@app.guard\nasync def x(request):\n" + SAY + HOLD_OUT
GUARD += "@app.websocket('/')\nasync def y(ws):\n    pass\n"
SWALLOW = """
    while True:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            pass
"""
CHILD = """
    async def child():
        with trio.CancelScope(shield=True):
            await trio.sleep(3600)
    ws.nursery.start_soon(child)
    await trio.sleep_forever()
"""

GENERATOR = """
async def rows():
    try:
        yield 1
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(3600)
abandoned = []
"""
HOLD_ON = """
async def x():
    with trio.CancelScope(shield=True):
        await trio.sleep(3600)
"""

STUCK = {
    "abandoned generator": GENERATOR + HANDLER + "    async for row in rows():\n        break\n",
    "generator that is left": GENERATOR
    + HANDLER
    + "    abandoned.append(rows())\n    await anext(abandoned[0])\n",
    "system task": HOLD_ON + HANDLER.replace("def x", "def y") + "    trio.lowlevel.spawn_system_task(x)\n",
    "shield": HANDLER + HOLD_OUT,
    "thread": HANDLER + "    await trio.to_thread.run_sync(time.sleep, 3600)\n",
    "swallows": HANDLER + SWALLOW,
    "blocks": HANDLER + "    time.sleep(3600)\n",
    "spins": HANDLER + "    while True:\n        pass\n",
    "shielded child": HANDLER + CHILD,
    "page": PAGE + HOLD_OUT,
    "guard": GUARD,
    "lifespan's end": LIFESPAN + "    yield\n" + HOLD_OUT,
    "lifespan's start": LIFESPAN + "    print(0, flush=True)\n" + HOLD_OUT + "    yield\n",
}
SLOW = {
    "lifespan that begins": LIFESPAN + "    print(0, flush=True)\n    await trio.sleep(3600)\n    yield\n",
    "page": PAGE + "    await trio.sleep(3600)\n",
    "handler": HANDLER + "    await trio.sleep(3600)\n",
    "lifespan that ends": LIFESPAN + "    yield\n" + SAY + "    await trio.sleep(3600)\n",
}
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PLAIN = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextlib.contextmanager
def running(program: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + program + TAIL],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def visiting(program: str, before: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, and be a client of it that is there when its handler, page or guard runs."""
    with running(before + program) as (process, port), contextlib.ExitStack() as stack:
        if port:  # else it does not listen yet
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            client.sendall(PLAIN if program.startswith(PAGE) else UPGRADE)
            if not program.startswith(LIFESPAN):
                wait_there(process)
        yield process


def wait_there(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"


def end(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, log = process.communicate(timeout=30)
    return process.returncode, log.decode()


@pytest.fixture(scope="module")
def stuck() -> dict[str, tuple[int, str]]:
    """How the stuck programs end, each after one signal. They wait at the same time."""
    spinning = ("swallows", "spins")  # last: they leave the others no time to start
    with contextlib.ExitStack() as stack:
        processes = {
            name: stack.enter_context(visiting(STUCK[name]))
            for name in sorted(STUCK, key=spinning.__contains__)
        }
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        return {name: end(process) for name, process in processes.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", STUCK)
def test_one_signal_ends_the_process_some_seconds_after_the_deadline_and_tells_what_was_stuck(
    name: str, stuck: dict[str, tuple[int, str]]
) -> None:
    status, log = stuck[name]
    assert status == 1
    assert "task.stuck" in log
    assert "function=x" in log or "function=x.<locals>" in log or "function=rows" in log
    assert "server.left" in log


@pytest.mark.slow
def test_what_ends_before_the_deadline_is_waited_for() -> None:
    # Longer than a process that is stuck may still run after the deadline.
    with visiting(PAGE + "    await trio.sleep(4)\n    return 'a page'\n", PATIENT) as process:
        process.send_signal(signal.SIGTERM)
        status, log = end(process)
    assert status == 0, log
    assert "server.left" not in log


@pytest.mark.parametrize("name", ["shield", "blocks", "lifespan's end"])
def test_the_third_signal_ends_the_process_at_once(name: str) -> None:
    with visiting(STUCK[name], PATIENT) as process:
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        status, log = end(process)
        assert status == 1
        assert "task.stuck" in log


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name
)
@pytest.mark.parametrize("name", SLOW)
def test_what_can_be_cancelled_is_and_the_program_returns(name: str, number: signal.Signals) -> None:
    with visiting(SLOW[name]) as process:
        process.send_signal(number)
        status, log = end(process)
        assert status == 0, log
        assert "task.stuck" not in log
        assert ("lifespan.timeout" in log) == (name == "lifespan that ends")


def test_a_second_signal_ends_a_lifespan_that_does_not_end() -> None:
    with running(PATIENT + SLOW["lifespan that ends"]) as (process, _):
        process.send_signal(signal.SIGTERM)
        wait_there(process)
        process.send_signal(signal.SIGTERM)
        status, log = end(process)
        assert status == 0, log


def test_a_terminal_that_is_gone_ends_no_server_that_was_told_to_outlive_it() -> None:
    program = (
        "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        + HANDLER
        + "    await ws.send('hello')\n"
    )
    with running(program) as (process, port):
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(UPGRADE)
            assert client.recv(12) == b"HTTP/1.1 101"


def test_an_interrupt_that_a_handler_raises_is_the_programs() -> None:
    with visiting(HANDLER + "    raise KeyboardInterrupt\n") as process:
        status, log = end(process)
        assert status == -signal.SIGINT
        assert log.rstrip().endswith("KeyboardInterrupt")


def test_a_lifespans_exit_status_is_the_programs() -> None:
    with running(
        "@app.lifespan\nasync def x(app):\n    print(0, flush=True)\n    sys.exit(7)\n    yield\n"
    ) as (process, _):
        assert end(process)[0] == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_signals_to_a_child_that_a_handler_has_forked_end_the_child_and_not_the_server() -> None:
    program = (
        "import multiprocessing\nfork = multiprocessing.get_context('fork')\n"
        # Python forgets a signal that comes while it forks.
        "def work(pipe):\n    pipe.send('ready')\n    time.sleep(60)\n"
    )
    program += PAGE + (
        "    ours, theirs = fork.Pipe()\n"
        "    processes = [fork.Process(target=work, args=(theirs,)) for _ in range(4)]\n"
        "    for process in processes:\n        process.start()\n        ours.recv()\n"
        "    for process in processes:\n        process.terminate()\n"
        "    for process in processes:\n        await trio.to_thread.run_sync(process.join, 5)\n"
        "        process.kill()\n"
        "    return str([process.exitcode for process in processes])\n"
    )
    with running(program) as (process, port):
        client = socket.create_connection(("127.0.0.1", port), timeout=30)
        client.sendall(PLAIN)
        answer = b""
        while piece := client.recv(4096):
            answer += piece
        client.close()
        assert answer.endswith(b"[-15, -15, -15, -15]")
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert end(process)[0] == 0
