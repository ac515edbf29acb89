from __future__ import annotations

import itertools
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.cli.process import PATIENCE_SECONDS, Program, serving
from tests.cli.test_supervising import Run, run
from tests.cli.test_supervising import parent as parent  # the fixture
from tests.workers.processes import client, needs_proc
from wsframework.cli.reloading import folder_of, watch_files
from wsframework.errors import ConfigurationError

watchfiles = pytest.importorskip("watchfiles")

APP = """\
from pathlib import Path
from wsframework import App
from words import WORD
app = App()

@app.lifespan
async def alone():
    # Two of them at a time would be a mistake.
    with open("lock", "x"):
        yield
    Path("lock").unlink()

@app.websocket("/")
async def say(ws):
    await ws.send("0")
    async for message in ws:
        await ws.send(WORD)
"""


@needs_proc
def test_a_change_restarts_the_worker_and_a_mistake_does_not(tmp_path: Path) -> None:
    words = tmp_path / "words.py"
    words.write_text("WORD = 'one'\n")
    (tmp_path / "say.py").write_text(APP)
    with serving("say:app", "--reload", cwd=tmp_path) as program:

        async def work() -> None:
            async with client(program.url) as old:
                assert await old.ask() == "one"
                words.write_text("WORD = \n")
                await trio.to_thread.run_sync(wait_for_error, program, "roll.aborted")
                assert await old.ask() == "one"
                words.write_text("WORD = 'two'\n")
                assert await old.code() == 1012
                # Newcomers wait in the queue until the new one serves.
                async with client(program.url) as new:
                    assert await new.ask() == "two"

        trio.run(work)
        assert program.stop() == 0
    text = "\n".join(program.errors)
    assert 'error="words.py:1: SyntaxError: invalid syntax"' in text
    assert "lifespan" not in text


@needs_proc
def test_a_program_that_is_broken_at_first_or_hangs_later_runs_once_it_is_mended(tmp_path: Path) -> None:
    module = tmp_path / "say.py"
    module.write_text("app = \n")
    app = "from wsframework import App\napp = App()\n@app.http('/')\nasync def f(r): return '{}'\n"
    with serving("say:app", "--reload", cwd=tmp_path) as program:
        program.wait_for("reload.waiting", stderr=True)
        assert 'error="say.py:1: SyntaxError: invalid syntax"' in "\n".join(program.errors)
        module.write_text(app.format("one"))
        assert ask(program.url) == b"one"
        module.write_text("print('hanging')\nwhile True:\n    pass\n")
        program.wait_for("hanging")
        assert ask(program.url) == b"one"
        module.write_text(app.format("two"))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while ask(program.url) != b"two":
            assert time.monotonic() < deadline
        assert program.stop() == 0
    assert "roll.aborted" not in "\n".join(program.errors)


def ask(url: str) -> bytes:
    with urllib.request.urlopen(url.replace("ws:", "http:"), timeout=PATIENCE_SECONDS) as answer:
        return bytes(answer.read())


async def test_what_changes_as_soon_as_files_are_watched_is_noticed(tmp_path: Path) -> None:
    async with watching(tmp_path) as changed:
        (tmp_path / "some.py").touch()
        await changed()


async def test_a_folder_that_is_made_anew_is_watched_again(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    async with watching(folder) as changed:
        folder.rename(tmp_path / "old")
        await trio.sleep(0.3)
        folder.mkdir()
        (folder / "some.py").touch()
        await changed()
        await trio.sleep(0.3)
        (folder / "other.py").touch()
        await changed()


async def test_no_change_is_forgotten_because_a_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With a timeout, watchfiles drops what changes between its last look and the end of the time.
    timeouts: list[object] = []
    watch = watchfiles.watch

    def note(*folders: Path, rust_timeout: int = 5000, **options: Any) -> Iterator[set[Any]]:
        timeouts.append(rust_timeout)
        yield from watch(*folders, rust_timeout=rust_timeout, **options)

    monkeypatch.setattr("watchfiles.watch", note)
    async with watching(tmp_path):
        assert timeouts == [0]


async def test_a_folder_that_vanishes_before_it_is_watched_is_awaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, calls = watchfiles.watch, itertools.count()

    def vanish(*folders: Path, **options: Any) -> Iterator[set[Any]]:
        if next(calls) == 0:
            raise FileNotFoundError
        yield from watch(*folders, **options)

    monkeypatch.setattr("watchfiles.watch", vanish)
    async with watching(tmp_path) as changed:
        (tmp_path / "some.py").touch()
        await changed()


async def test_a_folder_that_cannot_be_watched_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch(*folders: Path, **options: object) -> Iterator[set[object]]:
        yield from ()
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr("watchfiles.watch", watch)
    with pytest.raises(ConfigurationError, match=r"--reload cannot watch .*: OS file watch limit reached"):
        await watch_files([tmp_path], lambda: None)


@asynccontextmanager
async def watching(folder: Path) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Watch a folder; the function waits for the next change."""
    noticed, notice = trio.open_memory_channel[None](100)

    async def changed() -> None:
        with trio.fail_after(PATIENCE_SECONDS):
            await notice.receive()

    async with trio.open_nursery() as nursery:
        with trio.fail_after(PATIENCE_SECONDS):
            await nursery.start(watch_files, [folder], lambda: noticed.send_nowait(None))
        yield changed
        nursery.cancel_scope.cancel()


def wait_for_error(program: Program, text: str) -> None:
    program.wait_for(text, stderr=True)


@needs_proc
def test_a_debugger_has_the_terminal_and_ctrl_c_ends_the_program(tmp_path: Path) -> None:
    (tmp_path / "stop.py").write_text(
        "from wsframework import App\napp = App()\n"
        "@app.http('/')\nasync def hello(request):\n    breakpoint()\n    return 'done'\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        arguments = ["-m", "wsframework", "run", "stop:app", "--port", "0", "--reload"]
        os.execv(sys.executable, [sys.executable, *arguments])
    screen = Screen(terminal)
    port = re.search(r"ws://127.0.0.1:(\d+)", screen.wait_for("(Ctrl-C stops)"))
    assert port is not None
    ask = ["-c", f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port[1]}').read())"]
    with subprocess.Popen([sys.executable, *ask], stdout=subprocess.PIPE) as asking:
        screen.wait_for("(Pdb)")
        os.write(terminal, b"p 6 * 7\n")
        screen.wait_for("\n42")
        os.write(terminal, b"c\n")
        assert asking.communicate(timeout=PATIENCE_SECONDS)[0] == b"b'done'\n"
    os.write(terminal, b"\x03")
    screen.wait_for("worker.ended")
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, -signal.SIGHUP)


class Screen:
    """What a program has written to a terminal."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._text = ""

    def wait_for(self, text: str) -> str:
        """Wait until it has written this, and return all of it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self._text:
            ready, _, _ = select.select([self._terminal], [], [], deadline - time.monotonic())
            assert ready, self._text
            self._text += os.read(self._terminal, 65536).decode()
        return self._text


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--reload", "--workers", "2"], "error: --reload is for development, with one worker"),
        (["--reload-dir", "."], "error: --reload-dir needs --reload"),
        (["--reload", "--reload-dir", "nowhere"], "error: --reload-dir nowhere: there is no such folder"),
    ],
)
def test_wrong_options_are_one_line_and_2(parent: Run, options: list[str], line: str) -> None:
    code, out, (error,) = parent("say:app", "--port", "0", *options)
    assert (code, out, error[: len(line)]) == (2, "", line)


def test_without_watchfiles_a_line_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "watchfiles.py").write_text("raise ModuleNotFoundError('watchfiles')\n")
    code, _, errors = run(tmp_path, "say:app", "--port", "0", "--reload")
    assert (code, errors) == (2, ["error: --reload needs watchfiles: pip install watchfiles"])


def test_the_folder_of_an_app_is_that_of_its_package_or_of_its_module(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "one.py").touch()
    assert folder_of("shop.web:app", tmp_path) == tmp_path / "shop"
    assert folder_of("one:app", tmp_path) == tmp_path
    assert folder_of("nowhere:app", tmp_path) == tmp_path
