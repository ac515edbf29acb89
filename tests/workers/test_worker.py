from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import trio

from tests.workers.processes import clients_of_all, crew, is_alive, needs_proc, wait_until

pytestmark = needs_proc


def test_workers_end_when_their_parent_is_killed_even_with_a_blocked_event_loop(tmp_path: Path) -> None:
    with crew(tmp_path) as found:
        blocked, idle = found.pids()

        async def block() -> int:
            async with clients_of_all(found.url, [blocked, idle]) as clients:
                await clients[blocked].ws.send_message("block")
                await trio.sleep(0.2)
                os.kill(found.parent, signal.SIGKILL)
                return await clients[idle].code()

        assert trio.run(block) == 1001
        took = wait_until(lambda: not any(map(is_alive, (blocked, idle))), "workers are left")
        assert took < 25, "the blocked one has waited for its minute"
        # A process of several threads looks ended a moment before the last of them has closed its files.
        wait_until(lambda: can_listen(int(found.url.rpartition(":")[2])), "the port is taken", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel does not wake it")
def test_a_worker_that_is_stopped_does_not_keep_the_port_when_its_parent_is_killed(tmp_path: Path) -> None:
    with crew(tmp_path, 1) as found:
        (stopped,) = found.pids()
        os.kill(stopped, signal.SIGSTOP)
        os.kill(found.parent, signal.SIGKILL)
        wait_until(lambda: not is_alive(stopped), "the worker is left")
        wait_until(lambda: can_listen(int(found.url.rpartition(":")[2])), "the port is taken", 1)


def can_listen(port: int) -> bool:
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            again.bind(("127.0.0.1", port))
            again.listen()
        except OSError:
            return False
        return True
