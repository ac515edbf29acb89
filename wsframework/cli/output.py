"""The output of commands: colour on a terminal, plain text in whole lines elsewhere."""

from __future__ import annotations

import codecs
import json
import sys
from typing import NoReturn

from rich.console import Console
from rich.text import Text

from wsframework.records import escape_json

__all__ = ["INTERRUPTED", "complain", "fail", "make_console", "print_json"]

INTERRUPTED = 130
"""The exit code after SIGINT: 128 and the signal's number, as shells report it."""

_NEVER_WRAP = 100_000
"""The width of an output that is not a terminal: programs read whole lines."""


def make_console(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr, which uses colour on a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _NEVER_WRAP
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def fail(message: str, details: str = "", status: int = 2) -> NoReturn:
    """Print one line on stderr, and details below it, and end the program.

    Args:
        message: becomes one line.
        details: lines without control characters, such as a traceback.
        status: the exit code; 2 is that of a user's mistake.
    """
    complain(" ".join(part.strip() for part in message.splitlines()))
    if details:
        make_console(stderr=True).print(Text(details), soft_wrap=True)
    sys.exit(status)


def complain(sentence: str) -> None:
    """Print an error as one line on stderr."""
    line = Text.assemble(("error: ", "bold red"), escape_json(sentence))
    make_console(stderr=True).print(line, soft_wrap=True)


def print_json(value: object, *, indent: int | None = None) -> None:
    """Print JSON on stdout at once, with every character escaped that acts on a terminal or shows nothing.

    Args:
        value: what `json.dumps` takes.
        indent: spaces for each level; None prints one line.
    """
    utf8 = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
    text = json.dumps(value, ensure_ascii=not utf8, indent=indent)
    print("\n".join(map(escape_json, text.split("\n"))), flush=True)
