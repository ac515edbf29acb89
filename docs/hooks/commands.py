"""Run commands while the site is built, and put what they print into the pages.

    <!-- run: wsframework trace {chat}/ws/chat --send Hello! -->
    <!-- run 1: wsframework trace {chat}/nowhere -->
    <!-- log: chat -->
    <!-- help: wsframework -->
    <!-- defaults: Limits -->
    <!-- file: examples/chat_server.py -->

A `run` line becomes the command and its output; the number is the exit code it must have, 0 if there is none.
A `log` line becomes what that server has logged since the last `log` line, a `help` line a section for every
command of the program, a `defaults` line a table of a class's defaults, a `file` line the file. `{chat}` is
the address of an example server, started for the build on a port of the system's choice. A command that ends
otherwise, or does not end, fails the build: a page never shows what the program does not print.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent, wrap
from typing import IO, Any

import attrs

import wsframework

ROOT = Path(__file__).parents[2]

SERVERS = {"chat": "examples.chat_server:app", "guards": "examples.guards:app"}
"""Servers that commands may speak to, by the name that stands for their address."""

COMMAND_SECONDS = 60.0
START_SECONDS = 20.0
COLUMNS = 102
"""What fits beside the menus. Longer lines of output go on below, as far to the right as they began."""

LOG_SECONDS = 5.0
"""How long a closed connection may take to get into the server's log: its handler has some grace."""

_DIRECTIVE = re.compile(r"^( *)<!-- (run|log|help|defaults|file)(?: (\d+))?: (.+) -->$", re.MULTILINE)


class BuildFailed(Exception):
    """A command did not do what its page says."""


class ExampleServer:
    """One example served by `wsframework run`, with the lines it logs."""

    def __init__(self, target: str) -> None:
        self._lines: list[str] = []
        self._shown = 0
        command = [*_program("wsframework"), "run", target, "--port", "0", "--log-level", "debug"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._said: list[str] = []
        self._listening = threading.Event()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        for pipe, lines in ((self._process.stdout, self._said), (self._process.stderr, self._lines)):
            threading.Thread(target=self._read, args=(pipe, lines), daemon=True).start()
        deadline = time.monotonic() + START_SECONDS
        while not self._listening.wait(0.05):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise BuildFailed(f"{shlex.join(command)} does not listen: {self._said + self._lines}")
        self.url = next(word for line in self._said for word in line.split() if word.startswith("ws://"))

    def _read(self, pipe: IO[str], lines: list[str]) -> None:
        with pipe:
            for line in pipe:
                lines.append(line.rstrip("\n"))
                if "ws://" in line:
                    self._listening.set()

    def log(self) -> str:
        """Return what was logged since the last call, once the last connection is over."""
        deadline = time.monotonic() + LOG_SECONDS
        while time.monotonic() < deadline:
            lines = [line for line in self._lines[self._shown :] if " server." not in line]
            if any("connection.closed" in line or "http.answered" in line for line in lines):
                self._shown += len(self._lines[self._shown :])
                return "\n".join(lines)
            time.sleep(0.05)
        raise BuildFailed(f"no connection came to its end in the server's log: {self._lines}")

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        try:
            self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Stage:
    """The servers of one build; each is started when the first command speaks to it."""

    def __init__(self) -> None:
        self._servers: dict[str, ExampleServer] = {}

    def server(self, name: str) -> ExampleServer:
        """Return a running server.

        Raises:
            BuildFailed: there is none of that name, or it does not start.
        """
        if name not in SERVERS:
            raise BuildFailed(f"there is no example server {name!r}; there are {', '.join(SERVERS)}")
        if name not in self._servers:
            self._servers[name] = ExampleServer(SERVERS[name])
        return self._servers[name]

    def stop(self) -> None:
        """End all of them."""
        while self._servers:
            self._servers.popitem()[1].stop()

    def fill_in(self, markdown: str) -> str:
        """Replace the directives of a page by what the commands print.

        Raises:
            BuildFailed: a command has another exit code, or does not end.
        """
        return _DIRECTIVE.sub(self._replace, markdown)

    def _replace(self, found: re.Match[str]) -> str:
        margin, kind, code, rest = found.groups()
        match kind:
            case "log":
                text = _block(self.server(rest).log())
            case "help":
                text = "\n\n".join(_help(rest))
            case "defaults":
                text = "\n".join(_defaults(rest))
            case "file":
                text = f'```python title="{rest}"\n{(ROOT / rest).read_text()}```'
            case _:
                command = re.sub(r"\{(\w+)\}", lambda name: self.server(name[1]).url, rest)
                text = _block(f"$ {command}\n{run(command, int(code or 0))}")
        return indent(text, margin)


def run(command: str, code: int = 0) -> str:
    """Run a command and return what it prints.

    Raises:
        BuildFailed: its exit code is not `code`, or it does not end.
    """
    name, *arguments = shlex.split(command)
    try:
        done = subprocess.run(
            [*_program(name), *arguments],
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"{command!r} does not end within {COMMAND_SECONDS:g} s") from None
    if done.returncode != code:
        raise BuildFailed(f"{command!r} ended with {done.returncode}, not {code}:\n{done.stdout}")
    return done.stdout.rstrip("\n")


def _defaults(name: str) -> Iterator[str]:
    """Make the table that no signature shows: attrs writes `__init__` when the class is made."""
    yield "| Setting | Default |\n| --- | --- |"
    for field in attrs.fields(getattr(wsframework, name)):
        value = field.default
        number = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{value!r}"
        yield f"| `{field.name}` | `{number}` |"


def _help(program: str) -> Iterator[str]:
    overview = run(f"{program} --help")
    yield _block(overview)
    for name in re.findall(r"^  (\w+) ", overview.partition("\nCommands:\n")[2], re.MULTILINE):
        yield f"## {program} {name}"
        yield _block(run(f"{program} {name} --help"))


def directives(markdown: str) -> Iterator[tuple[str, str]]:
    """Yield the kind and the argument of each directive of a page."""
    for _, kind, _, rest in _DIRECTIVE.findall(markdown):
        yield kind, rest


def _program(name: str) -> list[str]:
    """Return how to start a program of ours with this Python, whatever the PATH says."""
    if name == "python":
        return [sys.executable]
    if name == "wsframework":
        return [sys.executable, "-m", "wsframework"]
    raise BuildFailed(f"pages run python and wsframework only, not {name!r}")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "COLUMNS": str(COLUMNS)}


def _fold(line: str) -> str:
    if len(line) <= COLUMNS:
        return line
    margin = line[: len(line) - len(line.lstrip())]
    pieces = wrap(
        line.lstrip(),
        COLUMNS,
        initial_indent=margin,
        subsequent_indent=margin or "    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(pieces)


def _block(text: str) -> str:
    text = "\n".join(map(_fold, text.split("\n")))
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


_stage = Stage()


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Fill in a page's commands (a hook of MkDocs)."""
    try:
        return _stage.fill_in(markdown)
    except BuildFailed as error:
        from mkdocs.exceptions import PluginError

        raise PluginError(f"{page.file.src_uri}: {error}") from error


def on_post_build(**_: object) -> None:
    """End the servers (a hook of MkDocs)."""
    _stage.stop()


def on_build_error(**_: object) -> None:
    """End the servers (a hook of MkDocs)."""
    _stage.stop()
