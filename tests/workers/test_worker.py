from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import attrs
import pytest
import trio

from tests.cli.process import PATIENCE_SECONDS
from tests.workers.processes import client, clients_of_all, crew, is_alive, needs_proc, wait_until
from wsframework.cli.worker import Program
from wsframework.workers.launching import Launch
from wsframework.workers.page import Page

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


HELD = """\
import re
from wsframework import App
app = App()

@app.websocket("/")
async def hold(ws):
    await ws.send("0")
    await ws.receive()
    # Takes ages, and lets no other thread run.
    re.match("(a+)+$", "a" * 64 + "b")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it ends when the call returns")
def test_a_worker_whose_c_code_does_not_return_does_not_keep_the_port_when_its_parent_is_killed(
    tmp_path: Path,
) -> None:
    with crew(tmp_path, 1, text=HELD) as found:
        (held,) = found.pids()

        async def hold() -> None:
            async with client(found.url) as one:
                await one.ws.send_message("now")
                await trio.sleep(0.2)
                os.kill(found.parent, signal.SIGKILL)
                await trio.to_thread.run_sync(wait_until, lambda: not is_alive(held), "the worker is left")

        trio.run(hold)
        wait_until(lambda: can_listen(int(found.url.rpartition(":")[2])), "the port is taken", 1)


async def test_a_worker_whose_parent_was_gone_at_once_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "held.py").write_text("import re\nre.match('(a+)+$', 'a' * 64 + 'b')\n")
    page = Page.create(1)
    code = f"import os, sys; os.chdir({str(tmp_path)!r}); from wsframework.cli.worker import main; main()"
    program = Program(
        target="held:app",
        local_host=None,
        allow_host=[],
        trusted_proxy=[],
        proxy_field=None,
        proxy_protocol=False,
        log_level="info",
        log_format="text",
    )
    launch = Launch([sys.executable, "-c", code, program.target], attrs.asdict(program), [], page.fd)
    process, channel = launch.start(1, 0)
    channel.close()
    try:
        with trio.fail_after(PATIENCE_SECONDS):
            assert await process.wait() == 1
    finally:
        process.send_signal(signal.SIGKILL)
        page.close()


def can_listen(port: int) -> bool:
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            again.bind(("127.0.0.1", port))
            again.listen()
        except OSError:
            return False
        return True
