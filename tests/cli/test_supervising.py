"""What keeps workers from starting: one line on stderr, and exit code 2 for a mistake, 3 for a crash."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.here import run_here
from tests.cli.process import PATIENCE_SECONDS, ROOT, running
from tests.workers.processes import APP, Crew, needs_proc
from wsframework.workers.page import Page


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
    # Python 3.13 marks the call, too.
    assert [line for line in errors if line.strip(" ~^")] == [
        "error: broken.py:2: OSError: no database",
        "Traceback (most recent call last):",
        f'  File "{tmp_path}/broken.py", line 3, in <module>',
        "    set_up()",
        f'  File "{tmp_path}/broken.py", line 2, in set_up',
        "    raise OSError('no database')",
        "OSError: no database",
    ]


def test_the_traceback_of_a_module_is_printed_once(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise OSError('no database')\n")
    command = [sys.executable, "-m", "wsframework", "run", "broken:app", "--workers", "2", "--port", "0"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert ended.stderr.count("Traceback") == 1


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


def test_memory_that_cannot_be_shared_is_one_line_and_3(
    parent: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(slots: int) -> Page:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Page, "create", create)
    (tmp_path / "echo.py").write_text(APP)
    code, _, errors = parent("echo:app", "--workers", "2", "--port", "0")
    line = "error: cannot make the memory that workers share: Too many open files"
    assert (code, errors) == (3, [line])


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


def test_a_file_called_like_a_module_of_python_breaks_no_worker(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(APP)
    (tmp_path / "queue.py").touch()
    # As the command is installed: its own folder is on the import path, and not the working directory.
    command = tmp_path / "bin" / "command.py"
    command.parent.mkdir()
    command.write_text("from wsframework.cli import main\nmain()\n")
    arguments = ["run", "echo:app", "--port", "0", "--workers", "1"]
    with running(str(command), *arguments, cwd=tmp_path) as program:
        program.wait_for("Listening on")
        assert program.stop() == 0


@pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=["alone", "workers"])
@pytest.mark.parametrize("target", ["a:app", "a.py:app"])
def test_a_working_directory_that_has_been_deleted_is_one_line_and_2(
    tmp_path: Path, workers: list[str], target: str
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    command = [sys.executable, "-P", "-m", "wsframework", "run", target, "--port", "0", *workers]
    command += ["--log-format", "json"]
    ended = subprocess.run(
        ["sh", "-c", 'rmdir "$0" && exec "$@"', str(here), *command],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert "the working directory has been deleted: start the program in" in ended.stderr
    assert len(no_records(ended.stderr)) == 1


@pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=["alone", "workers"])
def test_an_address_that_stdout_cannot_encode_is_escaped(tmp_path: Path, workers: list[str]) -> None:
    folder = tmp_path / "tür"
    folder.mkdir()
    (folder / "plain.py").write_text("from wsframework import App\napp = App()\n")
    arguments = ("-m", "wsframework", "run", "plain:app", "--unix", str(folder / "s"), *workers)
    with running(*arguments, cwd=folder, environment={"PYTHONIOENCODING": "ascii"}) as program:
        assert "t\\xfcr/s" in program.wait_for("Listening on")
        assert program.stop() == 0


def test_workers_run_with_the_options_of_the_interpreter(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(
        f"{APP}import sys\nprint('options:', sys.flags.optimize, sys.flags.dev_mode, sys._xoptions['mine'])\n"
    )
    arguments = ["-OO", "-Xdev", "-Xmine=1", "-m", "wsframework", "run", "echo:app", "--workers", "1"]
    with running(*arguments, "--port", "0", cwd=tmp_path) as program:
        program.wait_for("Listening on")
        program.wait_for("options: 2 True 1")
        assert program.stop() == 0


@pytest.mark.parametrize("text", [APP, "raise OSError"], ids=["serves", "fails"])
def test_a_worker_leaves_no_socket_to_the_garbage_collector(tmp_path: Path, text: str) -> None:
    (tmp_path / "echo.py").write_text(text)
    arguments = ("-X", "dev", "-m", "wsframework", "run", "echo:app", "--port", "0", "--workers", "1")
    with running(*arguments, cwd=tmp_path) as program:
        if text == APP:
            program.wait_for("Listening on")
            program.process.terminate()
        assert program.wait() == (0 if text == APP else 2)
    assert "ResourceWarning" not in "\n".join(program.errors)


@needs_proc
def test_how_a_worker_has_ended_is_known_to_a_parent_that_was_started_with_sigchld_ignored(
    tmp_path: Path,
) -> None:
    (tmp_path / "echo.py").write_text(APP)
    start = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.executable, "
    arguments = ["run", "echo:app", "--workers", "1", "--port", "0", "--log-format", "json"]
    command = f"{start}[sys.executable, '-m', 'wsframework', *{arguments}])"
    with running("-c", command, cwd=tmp_path) as program:
        found = Crew(program)
        os.kill(found.wait_for("worker.ready")["pid"], signal.SIGKILL)
        assert found.wait_for("worker.died")["signal"] == "SIGKILL"
        found.wait_for("worker.ready", 2)
        assert program.stop() == 0


@pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=["alone", "workers"])
def test_a_server_whose_output_nobody_reads_serves(tmp_path: Path, workers: list[str]) -> None:
    (tmp_path / "echo.py").write_text("from wsframework import App\napp = App()\n")
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "wsframework", "run", "echo:app", "--port", "0", *workers]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        os.close(writer)
        assert process.stderr is not None
        last = "worker.ready" if workers else "server.listening"
        assert any(last in line for line in process.stderr)
        time.sleep(0.5)
        process.terminate()
        assert "Broken" not in process.stderr.read()
    assert process.returncode == 0


def test_workers_serve_where_the_standard_streams_are_closed(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(f"{APP}open('imported', 'w').close()\n")
    path = str(tmp_path / "socket")
    command = f"exec {sys.executable} -m wsframework run echo:app --workers 1 --unix {path} <&- >&- 2>&-"
    with subprocess.Popen(["sh", "-c", command], cwd=tmp_path, start_new_session=True) as process:
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not (tmp_path / "imported").exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            with socket.socket(socket.AF_UNIX) as asking:
                asking.settimeout(PATIENCE_SECONDS)
                asking.connect(path)
                asking.sendall(b"GET /environment HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert asking.recv(12) == b"HTTP/1.1 200"
        finally:
            process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0
