from __future__ import annotations

import inspect
import socket
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import trio

from tests.cli.process import ROOT
from tests.workers.processes import clients_of_all, crew, needs_proc
from wsframework.cli.run import run
from wsframework.cli.worker import Program

PARENTS = {"options", "host", "port", "unix", "unix_mode", "workers", "admin", "reload_dir"}
"""Parameters of `run` that only the parent needs."""


def test_no_option_of_run_is_lost_on_the_way_to_a_worker() -> None:
    wanted = set(inspect.signature(run).parameters) - PARENTS
    assert set(attrs.fields_dict(Program)) - {"local_host"} == wanted


@needs_proc
def test_workers_get_the_options_of_run(tmp_path: Path) -> None:
    options = ("--allow-host", "chat.example", "--trusted-proxy", "127.0.0.1", "--log-level", "debug")
    (tmp_path / "named.py").write_text(
        "from wsframework import App\napp = App()\n"
        "@app.http('/')\nasync def page(request):\n    return f'{request.remote.host} {request.secure}'\n"
    )
    with crew(tmp_path, 1, *options, target="named:app") as found:
        port = int(found.url.rpartition(":")[2])
        proxied = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
        assert ask(port, "chat.example", proxied).endswith("192.0.2.7 True")
        assert "200" in ask(port, "localhost")
        # On a loopback address, the hosts are those of one process on it.
        assert "421" in ask(port, "evil.example")
        found.wait_for("connection.accepted", worker=1)


ROOM = """\
import os
from wsframework import App, Rooms
app = App()
rooms = Rooms()

@app.websocket("/")
async def talk(ws):
    async with rooms["tea"].join(ws):
        await ws.send(str(os.getpid()))
        await ws.wait_closed()
"""


@needs_proc
@pytest.mark.parametrize("workers", [1, 2])
def test_connections_of_workers_have_an_age_and_local_rooms_are_warned_of_where_there_are_several(
    tmp_path: Path, workers: int
) -> None:
    (tmp_path / "talk.py").write_text(ROOM)
    with crew(tmp_path, workers, "--max-age", "2", target="talk:app") as found:

        async def talk() -> list[int]:
            async with clients_of_all(found.url, found.pids()) as clients:
                return [await one.code() for one in clients.values()]

        assert trio.run(talk) == [1012] * workers
        assert found.program.stop() == 0
        # One warns for all, and only where there are others. Every record has been read by now.
        assert len(found.logged("rooms.one_process")) == workers - 1


def ask(port: int, host: str, fields: str = "") -> str:
    with socket.create_connection(("127.0.0.1", port)) as asking:
        asking.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: asking.recv(65536), b"")).decode()


def test_a_worker_whose_parent_is_gone_already_ends() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        command = [sys.executable, "-m", "wsframework.cli.worker", "a:app", "--worker", "1", "--channel"]
        ended = subprocess.run([*command, str(theirs.fileno())], cwd=ROOT, pass_fds=[theirs.fileno()])
    assert ended.returncode == 1
