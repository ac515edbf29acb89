"""What keeps workers from starting: one line on stderr, and exit code 2 for a mistake, 3 for a crash."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.here import run_here
from tests.cli.process import PATIENCE_SECONDS
from tests.workers.processes import APP


def run(cwd: Path, *arguments: str) -> tuple[int, str, list[str]]:
    """Run to its end; return the exit code, stdout, and the lines of stderr that are no records."""
    command = [sys.executable, "-m", "wsframework", "run", *arguments, "--log-format", "json"]
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    return ended.returncode, ended.stdout, no_records(ended.stderr)


def no_records(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if line[:1] != "{"]


Run = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def parent(capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that does as `run` does in this process, which starts the workers."""

    def parent(*arguments: str) -> tuple[int, str, list[str]]:
        code, out, errors = run_here("run", *arguments, "--log-format", "json")
        of_workers = capfd.readouterr()
        return code, out + of_workers.out, no_records(errors + of_workers.err)

    return parent


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("nowhere:app", "error: there is no module 'nowhere' in {cwd} or among the installed packages"),
        ("echo", "error: 'echo' is not of the form module:app, such as 'chat:app'"),
        ("echo:none", "error: 'echo:none': echo.py has no 'none'; it has echo:app"),
    ],
)
def test_a_wrong_import_string_is_one_line_and_2(parent: Run, tmp_path: Path, target: str, line: str) -> None:
    (tmp_path / "echo.py").write_text(APP)
    code, _, errors = parent(target, "--workers", "2", "--port", "0")
    assert (code, errors) == (2, [line.format(cwd=tmp_path)])


def test_an_exception_of_the_module_is_shown_with_the_users_frames_and_2(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def set_up():\n    raise OSError('no database')\nset_up()\n")
    code, out, errors = run(tmp_path, "broken:app", "--workers", "2", "--port", "0")
    assert (code, out) == (2, "")
    assert errors == [
        "error: broken.py:2: OSError: no database",
        "Traceback (most recent call last):",
        f'  File "{tmp_path}/broken.py", line 3, in <module>',
        "    set_up()",
        f'  File "{tmp_path}/broken.py", line 2, in set_up',
        "    raise OSError('no database')",
        "OSError: no database",
    ]


def test_a_lifespan_that_fails_is_one_line_and_3(parent: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "from wsframework import App\napp = App()\n"
        "@app.lifespan\nasync def live():\n    raise OSError('no database')\n    yield\n"
    )
    code, out, errors = parent("broken:app", "--workers", "2", "--port", "0")
    assert (code, out, errors) == (3, "", ["error: OSError('no database')"])


def test_a_worker_that_dies_before_it_serves_is_one_line_and_3(parent: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    code, out, errors = parent("broken:app", "--workers", "2", "--port", "0")
    assert (code, out) == (3, "")
    assert errors == ["error: worker 1 ended before it was ready: killed by SIGKILL"]


def test_a_port_in_use_is_one_line_and_2(parent: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, errors = parent("echo:app", "--workers", "2", "--port", str(port))
    why = "the port is in use; stop the other program or choose another"
    assert (code, out, errors) == (2, "", [f"error: cannot listen on 127.0.0.1:{port}: {why}"])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--ssl-cert", "no.pem"], "error: --ssl-cert no.pem: there is no such file"),
        (["--unix", "nowhere/a"], "error: cannot listen on nowhere/a: No such file or directory"),
        (["--trusted-proxy", "moon"], "error: "),
        (["--proxy-protocol"], "error: proxy_protocol is for connections of trusted proxies"),
    ],
)
def test_a_wrong_option_is_one_line_and_2(parent: Run, tmp_path: Path, options: list[str], line: str) -> None:
    (tmp_path / "echo.py").write_text(APP)
    code, out, (error,) = parent("echo:app", "--workers", "2", "--port", "0", *options)
    assert (code, error[: len(line)]) == (2, line)
    assert "Listening" not in out
