"""What commands print: colour on a terminal, plain text with whole lines anywhere else."""

from __future__ import annotations

import sys
from typing import NoReturn

from rich.console import Console
from rich.text import Text

from wsframework.records import escape_json

__all__ = ["complain", "fail", "make_console"]

_NEVER_WRAP = 100_000
"""Columns of what is no terminal: a line that a program reads must stay one line."""


def make_console(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr that knows whether a person is looking."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _NEVER_WRAP
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def fail(message: str) -> NoReturn:
    """Print one line on stderr and end the program with exit code 2."""
    complain(" ".join(part.strip() for part in message.splitlines()))
    sys.exit(2)


def complain(sentence: str) -> None:
    """Print an error as one line on stderr."""
    line = Text.assemble(("error: ", "bold red"), escape_json(sentence))
    make_console(stderr=True).print(line, soft_wrap=True)
