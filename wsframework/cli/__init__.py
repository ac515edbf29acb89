"""The command line, `wsframework run` and the other commands; needs the extra `cli`.

Every command is a module with one function, and `program.COMMANDS` lists them. A mistake of the user (a wrong
import string, a port in use) is a `ConfigurationError`: one line on stderr and exit code 2. The traceback of
a module that cannot be imported follows the line.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from wsframework.errors import ConfigurationError, ImportStringError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; always ends in SystemExit.

    Args:
        arguments: what follows the program's name; None takes them from `sys.argv`.
    """
    _open_missing_streams()
    _print_any_character()
    try:
        from wsframework.cli.importing import own_traceback
        from wsframework.cli.output import fail
        from wsframework.cli.program import build
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        print("error: the command line needs typer and rich: pip install typer rich", file=sys.stderr)
        sys.exit(2)
    try:
        build()(args=arguments, prog_name="wsframework")
    except ConfigurationError as error:
        cause = error.__cause__ if isinstance(error, ImportStringError) else None
        fail(str(error), "" if cause is None else own_traceback(cause))


def _print_any_character() -> None:
    """Escape what the encoding of stdout does not have, as Python does for stderr: a path, for example."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _open_missing_streams() -> None:
    """Open the standard streams that the parent process has closed on /dev/null.

    Without them Python has None in their places, and their numbers would be given to sockets: what a library
    writes to descriptor 2 would go to a client.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)
            # Programs that this one starts, such as workers, need them too.
            os.set_inheritable(stream.fileno(), stream.fileno() <= 2)
