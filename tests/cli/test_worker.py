from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from tests.cli.process import ROOT
from tests.workers.processes import crew, needs_proc


@needs_proc
def test_workers_get_every_option_of_run(tmp_path: Path) -> None:
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
        assert found.logged("connection.accepted", worker=1)


def ask(port: int, host: str, fields: str = "") -> str:
    with socket.create_connection(("127.0.0.1", port)) as asking:
        asking.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode())
        return b"".join(iter(lambda: asking.recv(65536), b"")).decode()


def test_a_worker_whose_parent_is_gone_already_ends() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        command = [sys.executable, "-m", "wsframework.cli.worker", "a:app", "--worker", "1", "--channel"]
        ended = subprocess.run([*command, str(theirs.fileno())], cwd=ROOT, pass_fds=[theirs.fileno()])
    assert ended.returncode == 1
