from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import trio

from tests.workers.processes import APP, Crew, client, clients_of_all, crew, is_alive, needs_proc, wait_until

pytestmark = needs_proc


def test_workers_serve_one_port_and_drain_with_1001_on_sigterm(tmp_path: Path) -> None:
    with crew(tmp_path) as found:
        pids = found.pids()
        assert len(pids) == 2
        codes = trio.run(stop_with_clients, found, signal.SIGTERM)
        assert codes == [1001, 1001]
        assert found.program.wait() == 0
    assert [line for line in found.program.lines if line.startswith("Listening")] == [
        f"Listening on {found.url} (Ctrl-C stops)"
    ]
    # The parent does not import the App.
    assert sorted(line for line in found.program.lines if line.startswith("imported")) == sorted(
        f"imported by {pid}" for pid in pids
    )
    assert {entry["worker"] for entry in found.logged("connection.opened")} == {1, 2}
    assert [entry["status"] for entry in found.logged("worker.ended")] == [0, 0]
    assert found.logged("worker.died") == []


async def stop_with_clients(found: Crew, number: signal.Signals) -> list[int]:
    async with clients_of_all(found.url, found.pids()) as clients:
        found.signal(number)
        return [await one.code() for one in clients.values()]


def test_a_second_signal_cuts_the_drain_short_and_a_third_kills(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import trio\nfrom wsframework import App, Timeouts\napp = App(timeouts=Timeouts(drain=60))\n"
        "@app.websocket('/')\nasync def stay(ws):\n"
        "    await ws.send('0')\n    await trio.sleep_forever()\n"
        "@app.lifespan\nasync def live():\n    yield\n"
        "    with trio.CancelScope(shield=True):\n        await trio.sleep(60)\n"
    )
    with crew(tmp_path, 1, target="slow:app") as found:

        async def stop() -> None:
            async with client(found.url):
                for event in ("server.draining", "server.drain_timeout"):
                    found.signal(signal.SIGTERM)
                    await trio.to_thread.run_sync(found.wait_for, event)

        trio.run(stop)
        found.signal(signal.SIGTERM)
        assert found.program.wait() == 0
        assert found.logged("worker.died", signal="SIGKILL")


def test_sigttin_and_sigttou_change_the_number_of_workers_but_one_stays(tmp_path: Path) -> None:
    with crew(tmp_path, 1) as found:
        found.signal(signal.SIGTTIN)
        found.wait_for("worker.ready", 2)
        assert len(found.pids()) == 2
        found.signal(signal.SIGTTOU)
        found.wait_for("worker.ended", worker=2)
        found.signal(signal.SIGTTOU)
        found.wait_for("server.signal", 3)
        assert trio.run(pid_of_server, found.url) == found.pids()[0]
        assert found.program.stop() == 0
    assert len(found.logged("worker.ended")) == 2


async def pid_of_server(url: str) -> int:
    async with client(url) as one:
        return one.pid


def test_a_parent_with_a_terminal_drains_when_the_terminal_is_closed(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(APP)
    arguments = ["-m", "wsframework", "run", "echo:app", "--workers", "1", "--port", "0"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execv(sys.executable, [sys.executable, *arguments])
    text = b""
    while b"Listening on" not in text:
        text += os.read(terminal, 4096)
    # What it logs of this signal shows that it prints nothing any more, which would fail.
    os.kill(pid, signal.SIGTTOU)
    while b"SIGTTOU" not in text:
        text += os.read(terminal, 4096)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    wait_until(lambda: not any(is_alive(int(child)) for child in children), "workers are left")


def test_nohup_makes_the_parent_ignore_sighup(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(APP)
    command = [sys.executable, "-m", "wsframework", "run", "echo:app", "--workers", "1", "--port", "0"]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGHUP, before)
    with process:
        assert process.stdout is not None
        while b"Listening on" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"SIGHUP" not in errors
