from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.workers.processes import crew, needs_proc


@needs_proc
def test_a_running_server_is_shown_and_changed(tmp_path: Path, command: Command) -> None:
    path = str(tmp_path / "admin.sock")
    with crew(tmp_path, 2, "--admin", path) as found:
        pids = found.pids()
        code, out, _ = command("workers", "--admin", path)
        header, *rows, total = out.splitlines()
        assert (code, header.split()) == (
            0,
            ["WORKER", "PID", "AGE", "STATE", "CONNECTIONS", "MSG/S", "LAG", "RSS", "PSS"],
        )
        assert [int(row.split()[1]) for row in rows] == pids
        assert all(re.search(r"\d+s +ready +0 +0 +\d+ ms +[\d.]+ MB +[\d.]+ MB$", row) for row in rows)
        assert total.split()[0] == "total"
        code, out, _ = command("workers", "--admin", path, "--json")
        assert [worker["pid"] for worker in json.loads(out)["workers"]] == pids
        assert command("workers", "add", "--admin", path)[:2] == (0, "starting one more worker\n")
        found.wait_for("worker.ready", 3)
        assert command("workers", "remove", "--admin", path)[:2] == (0, "ending one worker\n")
        found.wait_for("worker.ended")
        assert command("workers", "restart", "--admin", path)[0] == 0
        found.wait_for("roll.finished")
        assert not set(found.pids()) & set(pids)


@pytest.mark.parametrize(
    ("admin", "why"),
    [
        ("nowhere.sock", "there is no such socket; is the server running?"),
        ("stale.sock", "no server listens there; the file is left from one that has ended"),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_2(command: Command, admin: str, why: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind("stale.sock")
    assert command("workers", "--admin", admin) == (2, "", f"error: --admin {admin}: {why}\n")


def test_without_a_path_there_must_be_one_server(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    code, _, errors = command("workers")
    assert (code, "no server with workers has its admin socket in" in errors) == (2, True)
    folder = tmp_path / "wsframework"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        for number, listener in enumerate((one, other)):
            listener.bind(str(folder / f"{number}.sock"))
            listener.listen()
        code, _, errors = command("workers")
    assert (code, "several servers run; name one with --admin" in errors) == (2, True)
