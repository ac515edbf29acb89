"""The command line: `wsframework run`, `wsframework routes` and their like; needs the extra `cli`.

Every command is a module with one function, and `program.COMMANDS` is the one place that lists them.
Mistakes of the caller (a wrong import string, a port in use) are `ConfigurationError`s: one line on stderr
and exit code 2.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from wsframework.errors import ConfigurationError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; always ends in SystemExit.

    Args:
        arguments: what follows the program's name; None takes them from `sys.argv`.
    """
    try:
        from wsframework.cli.output import fail
        from wsframework.cli.program import build
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        print("error: the command line needs typer and rich: pip install 'wsframework[cli]'", file=sys.stderr)
        sys.exit(2)
    try:
        build()(args=arguments, prog_name="wsframework")
    except ConfigurationError as error:
        fail(str(error))
