"""`wsframework run --workers N`: serve an App from several processes."""

from __future__ import annotations

import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NoReturn

import attrs

from wsframework.cli.importing import working_directory
from wsframework.cli.output import fail
from wsframework.cli.worker import Program
from wsframework.request import Address
from wsframework.workers.parent import Plan, run_parent, usable_cores
from wsframework.workers.supervisor import StartFailed

__all__ = ["run_workers"]

_FLAGS = {
    "-B": "dont_write_bytecode",
    "-E": "ignore_environment",
    "-I": "isolated",
    "-P": "safe_path",
    "-S": "no_site",
    "-b": "bytes_warning",
    "-s": "no_user_site",
}

_NOT_STARTED = 3
"""The exit code when a worker of the first round fails, as gunicorn and uvicorn have it."""


def run_workers(
    program: Program,
    workers: int,
    *,
    host: str | None,
    port: int,
    unix_path: str | None,
    unix_mode: int | None,
    sockets: Sequence[socket.socket],
    announce: Callable[[tuple[Address, ...]], None],
    admin: str | None = None,
    watch: Callable[..., Awaitable[object]] | None = None,
) -> None:
    """Serve until a signal stops all workers.

    Args:
        program: what the workers serve.
        workers: how many; 0 for one per core that this process may use.
        sockets: listening ones, instead of an address; may be empty.
        announce: called with the addresses, once every worker serves.
        admin: as in a `Plan`, and so is `watch`.

    Raises:
        ConfigurationError: an address cannot be listened on.
        SystemExit: a worker does not start; the reason has been printed.
    """
    options = _interpreter_options()
    if watch is not None:
        # A file that is written twice in a second, with one length, would be taken from the cache (PEP 3147).
        options.append("-B")
    plan = Plan(
        command=[sys.executable, *options, "-m", "wsframework.cli.worker", program.target],
        program=attrs.asdict(program),
        workers=workers or usable_cores(),
        host=host,
        port=port,
        unix_path=unix_path,
        unix_mode=unix_mode,
        sockets=sockets,
        on_ready=announce,
        admin=admin,
        watch=watch,
    )
    try:
        run_parent(plan)
    except StartFailed as error:
        _give_up(error)


def _give_up(error: StartFailed) -> NoReturn:
    failure = error.failure
    fail(failure.line, failure.details, 2 if failure.mistake else _NOT_STARTED)


def _interpreter_options() -> list[str]:
    """Return the options of this interpreter that change what a program does.

    With -P, a file of the user's that is called queue.py takes the place of Python's module for the user's
    program only, as in one process: the working directory joins the import path when the App is imported.
    """
    options = ["-O"] * sys.flags.optimize
    options += [option for option, flag in _FLAGS.items() if getattr(sys.flags, flag)]
    if "-P" not in options and str(Path(__file__).parents[2]) != working_directory():
        options.append("-P")
    options += [f"-W{option}" for option in sys.warnoptions]
    named = getattr(sys, "_xoptions", {}).items()  # CPython's, and documented
    options += [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in named]
    return options
