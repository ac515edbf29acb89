"""docs/howto/systemd.md: the units as systemd reads them, and their program under a stand-in for it."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.following import exercises
from tests.docs.snippets import DOCS, files
from tests.workers.processes import needs_proc
from tests.workers.units import unit
from wsframework import Limits, Timeouts
from wsframework.workers.watching import STUCK_SECONDS
from wsframework.workers.worker import STUCK_SECONDS as STUCK_AT_THE_END_SECONDS

PAGE = DOCS / "howto/systemd.md"
FILES = files(PAGE)


def section(name: str, part: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(FILES[name])
    return parser[part]


@needs_proc
@exercises("howto/systemd.md", "chat.service", "chat.socket")
def test_the_units_start_a_server_and_leave_it_time_to_stop(tmp_path: Path) -> None:
    service, listening = section("chat.service", "Service"), section("chat.socket", "Socket")
    ends_within = Timeouts().drain + Timeouts().lifespan + STUCK_AT_THE_END_SECONDS
    assert int(service["TimeoutStopSec"]) > ends_within == 25
    assert int(service["WatchdogSec"]) > STUCK_SECONDS == 30
    assert int(service["LimitNOFILE"]) > (Limits().connections or 0)
    assert f"unix:{listening['ListenStream']};" in (DOCS / "deployment.md").read_text()
    assert (service["Type"], service["ExecReload"]) == ("notify", "kill -HUP $MAINPID")
    (tmp_path / "chat.py").write_text("from examples.chat_server import app\n")
    program, *arguments = shlex.split(service["ExecStart"])
    assert program.startswith(service["WorkingDirectory"])
    assert program.endswith("/wsframework")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "chat.sock"))
        listener.listen()
        with unit(tmp_path, arguments, listener) as found:
            found.wait_for("READY=1")
            found.program.process.send_signal(signal.SIGHUP)
            found.wait_for("RELOADING=1")
            found.wait_for("READY=1")
            assert found.program.stop() == 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="reads units with systemd-analyze")
def test_systemd_finds_no_mistake_in_the_units(tmp_path: Path) -> None:
    for name, text in FILES.items():
        # A program and a folder that this machine has.
        text = re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable} -m wsframework", text)
        (tmp_path / name).write_text(text.replace("=/srv/chat\n", f"={tmp_path}\n"))
    command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in FILES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line or line.startswith("chat.")]
    assert (done.returncode, said) == (0, []), done.stderr
