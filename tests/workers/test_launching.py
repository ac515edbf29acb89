from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import cast

import pytest
import trio

from tests.workers.processes import Crew, clients_of_all, crew, needs_proc
from wsframework.workers.launching import Process

pytestmark = needs_proc


def test_workers_do_not_inherit_what_a_service_manager_tells_the_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.setenv(name, "1")
    with crew(tmp_path, 1) as found:
        answer = ask(found, "/environment")
        assert "PATH" in answer
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(answer.split("\n"))


def test_ctrl_c_reaches_the_workers_through_the_parent_alone(tmp_path: Path) -> None:
    with crew(tmp_path) as found:

        async def interrupt() -> list[int]:
            async with clients_of_all(found.url, found.pids()) as clients:
                # As a terminal does: to the whole process group.
                os.killpg(found.parent, signal.SIGINT)
                return [await one.code() for one in clients.values()]

        assert trio.run(interrupt) == [1001, 1001]
        assert found.program.wait() == 0
    assert len(found.logged("server.signal")) == 1
    assert "KeyboardInterrupt" not in "\n".join(found.program.errors)


def test_programs_that_a_handler_starts_get_the_signals_of_the_terminal(tmp_path: Path) -> None:
    with crew(tmp_path, 1) as found:
        masks = re.findall(r"Sig(?:Blk|Ign):\t([0-9a-f]+)", ask(found, "/signals"))
    terminal = 1 << signal.SIGINT - 1 | 1 << signal.SIGHUP - 1
    assert [int(mask, 16) & terminal for mask in masks] == [0, 0]


def test_signals_for_the_parent_do_not_stop_workers_that_get_them_too(tmp_path: Path) -> None:
    with crew(tmp_path, 1) as found:
        (worker,) = found.pids()
        # As `systemctl kill -s TTIN`, which sends it to every process.
        for number in (signal.SIGTTIN, signal.SIGTTOU):
            os.kill(worker, number)
        assert "PATH" in ask(found, "/environment")


async def test_the_ends_of_many_processes_are_noticed_where_there_is_no_pidfd(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    waiting = [ManyWait(number) for number in range(50)]
    async with trio.open_nursery() as nursery:
        for popen in waiting:
            nursery.start_soon(Process(cast("subprocess.Popen[bytes]", popen)).wait)
        with trio.fail_after(30):
            while not all(popen.waited for popen in waiting):  # noqa: ASYNC110
                await trio.sleep(0.01)
        for popen in waiting:
            popen.ended.set()


class ManyWait:
    """A process that ends when the test says so."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.waited = False
        self.ended = threading.Event()

    def wait(self) -> int:
        self.waited = True
        self.ended.wait()
        return 0


def ask(found: Crew, path: str) -> str:
    with socket.create_connection(("127.0.0.1", int(found.url.rpartition(":")[2])), 30) as asking:
        asking.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: asking.recv(65536), b"")).decode()
