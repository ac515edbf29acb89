from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

from tests.workers.processes import crew, needs_proc

pytestmark = needs_proc


def test_workers_share_a_unix_socket_and_its_file_goes_with_the_parent(tmp_path: Path) -> None:
    with crew(tmp_path, 2, "--unix", "echo.sock", "--unix-mode", "600") as found:
        file = tmp_path / "echo.sock"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        os.kill(found.pids()[0], signal.SIGTERM)
        found.wait_for("worker.ready", 3)
        # One worker that stops does not take the file away from the others.
        assert file.exists()
        assert found.program.stop() == 0
        assert not file.exists()
