"""Workers under a service manager: the parent speaks for all of them."""

from __future__ import annotations

import functools
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.workers.fakes import FakeLaunch, supervising
from tests.workers.processes import APP, needs_proc
from tests.workers.units import unit
from wsframework.server.crowd import Figures, Phase
from wsframework.workers.page import Page
from wsframework.workers.watching import FRESH_SECONDS, all_fresh


@needs_proc
def test_the_parent_takes_the_socket_and_speaks_for_its_workers(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with unit(tmp_path, ["run", "echo:app", "--workers", "2"], listener, watchdog_seconds=1) as found:
            assert found.wait_for("READY=1") == f"READY=1\nSTATUS=2 workers on 127.0.0.1:{port}"
            for _ in range(2):
                found.wait_for("WATCHDOG=1")
            found.program.process.send_signal(signal.SIGHUP)
            assert "\nMONOTONIC_USEC=" in found.wait_for("RELOADING=1")
            found.wait_for("READY=1")
            for number, count in ((signal.SIGTTOU, "1 worker"), (signal.SIGTTIN, "2 workers")):
                found.program.process.send_signal(number)
                assert found.wait_for("STATUS=") == f"STATUS={count} on 127.0.0.1:{port}"
            found.program.process.send_signal(signal.SIGTERM)
            found.wait_for("STOPPING=1")
            assert found.program.wait() == 0
        with socket.create_connection(("127.0.0.1", port)):
            pass  # it is still there for the next process


@pytest.mark.parametrize(
    ("phase", "age", "fresh"),
    [
        (Phase.SERVING, 0, True),
        (Phase.SERVING, FRESH_SECONDS + 1, False),
        (Phase.DRAINING, FRESH_SECONDS + 1, False),
        (Phase.STARTING, FRESH_SECONDS + 1, True),
        (Phase.STOPPED, FRESH_SECONDS + 1, True),
    ],
)
async def test_the_watchdog_is_fed_while_every_worker_shows_life(
    phase: Phase, age: float, fresh: bool
) -> None:
    async with supervising(FakeLaunch(), 2) as (supervisor, page):
        for slot, behind in enumerate((0, age)):
            fd = os.dup(page.fd)
            at = time.monotonic() - behind
            worker = Page.attach(fd, slot, functools.partial(float, at))
            os.close(fd)
            worker.enter(phase)
            worker.beat(Figures())
        assert all_fresh(supervisor, page) is fresh
