"""The table of commands, and the typer program made of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from wsframework.cli.chat import chat
from wsframework.cli.connect import connect
from wsframework.cli.publish import publish
from wsframework.cli.routes import routes
from wsframework.cli.run import run
from wsframework.cli.trace import trace
from wsframework.cli.workers import workers

__all__ = ["COMMANDS", "build"]

COMMANDS: tuple[Callable[..., None], ...] = (run, workers, routes, chat, connect, trace, publish)
"""Every command: its name is the function's, its help the docstring, its options the parameters."""


def build() -> typer.Typer:
    """Return the typer program."""
    program = typer.Typer(
        name="wsframework",
        help="Serve and inspect WebSocket applications.",
        no_args_is_help=True,
        add_completion=False,
        # Panels are for terminals; a pipe gets plain text.
        rich_markup_mode="rich" if sys.stdout.isatty() and sys.stderr.isatty() else None,
        # Python's own traceback, which authors of handlers know, and which bug reports need.
        pretty_exceptions_enable=False,
    )
    program.callback()(_options)
    for command in COMMANDS:
        program.command()(command)
    return program


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"wsframework {version('wsframework')}")
        raise typer.Exit


def _options(
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Declare the options that come before the command."""
