from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
import trio

from tests.workers.processes import clients_of_all, crew, needs_proc

pytestmark = needs_proc


def test_workers_do_not_inherit_what_a_service_manager_tells_the_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.setenv(name, "1")
    with crew(tmp_path, 1) as found:
        port = int(found.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as asking:
            asking.sendall(b"GET /environment HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b"".join(iter(lambda: asking.recv(65536), b"")).decode()
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
