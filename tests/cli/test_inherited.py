"""`wsframework run` under a service manager, in one process; `tests/workers/test_units.py` has several."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from tests.workers.units import unit

APP = """\
import os
from wsframework import App
app = App()
print("variables", *(name for name in os.environ if name.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_"))))

@app.http("/")
async def hello(request):
    return "hello"
"""


def ask(address: tuple[str, int] | str, host: str = "localhost") -> str:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as asking:
        asking.connect(address)
        asking.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: asking.recv(65536), b"")).decode()


def test_one_process_takes_the_socket_and_tells_how_it_goes(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with unit(tmp_path, ["run", "hello:app"], listener, watchdog_seconds=1) as found:
            said = found.wait_for("READY=1")
            assert said == f"READY=1\nSTATUS=Listening on 127.0.0.1:{address[1]}"
            assert "variables" in found.program.lines
            assert ask(address).endswith("hello")
            # As with --host 127.0.0.1.
            assert ask(address, "evil.example").startswith("HTTP/1.1 421 ")
            for _ in range(3):
                found.wait_for("WATCHDOG=1")
            found.program.process.send_signal(signal.SIGTERM)
            found.wait_for("STOPPING=1")
            assert found.program.wait() == 0
        # It is still there for the next process.
        socket.create_connection(address).close()


def test_a_unix_socket_is_left_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(APP)
    path = str(tmp_path / "hello.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with unit(tmp_path, ["run", "hello:app"], listener) as found:
            found.wait_for("READY=1")
            assert ask(path, "any.example").endswith("hello")
            assert found.program.stop() == 0
    assert Path(path).exists()


@pytest.mark.parametrize("option", ["--host=::1", "--port=8000", "--unix=a.sock"])
def test_an_address_beside_the_sockets_is_one_line_and_2(tmp_path: Path, option: str) -> None:
    (tmp_path / "hello.py").write_text(APP)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        unit(tmp_path, ["run", "hello:app", option], listener) as found,
    ):
        assert found.program.wait() == 2
        (line,) = found.program.errors
        assert line.startswith(f"error: {option.partition('=')[0]}: the service manager has passed")


def test_a_socket_of_no_use_is_one_line_and_2(tmp_path: Path) -> None:
    one, other = socket.socketpair()
    with one, other, unit(tmp_path, ["run", "hello:app"], one) as found:
        assert found.program.wait() == 2
        (line,) = found.program.errors
        assert line.startswith("error: descriptor 3 of LISTEN_FDS, 'chat.socket', is of no use: ")
