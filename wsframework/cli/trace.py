"""`wsframework trace URL`: one connection from name resolution to the end of TCP, step by step."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import trio
import typer

from wsframework.cli.options import Header, Insecure, Origin, Subprotocol, Timeout, Url, opening_of
from wsframework.cli.output import INTERRUPTED, complain, make_console, print_json
from wsframework.cli.story import lay_out
from wsframework.diagnostics.steps import Step, as_json
from wsframework.diagnostics.target import parse_messages
from wsframework.diagnostics.tracing.steps import Diagnosis
from wsframework.diagnostics.tracing.tracer import Plan
from wsframework.diagnostics.tracing.tracer import trace as run_trace

__all__ = ["trace"]


def trace(
    url: Url,
    send: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Send this message; may be repeated.")
    ] = None,
    subprotocol: Subprotocol = None,
    header: Header = None,
    origin: Origin = None,
    deflate: Annotated[bool, typer.Option("--deflate", help="Offer permessage-deflate.")] = False,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long to listen before closing.", min=0)
    ] = 2.0,
    timeout: Timeout = 10.0,
    insecure: Insecure = False,
    as_json_list: Annotated[
        bool, typer.Option("--json", help="Print a JSON list of steps, for programs.")
    ] = False,
) -> None:
    """Show every step of one connection, from SYN to FIN.

    Shows name resolution, TCP, TLS, the opening handshake, every frame, the closing handshake and the end of
    TCP, each with its time, what the kernel reports, and what is wrong. Needs no privileges.

    Exit code: 0 when nothing is wrong, 1 when there is no connection, or the server breaks a rule or sends
    more than 10,000 frames.
    """
    plan = Plan(
        opening=opening_of(url, subprotocol, header, origin, timeout=timeout, insecure=insecure),
        deflate=deflate,
        messages=parse_messages(send or ()),
        wait_seconds=wait,
    )
    steps: list[Step] = []
    show = steps.append if as_json_list else _Printer(steps).show
    try:
        all_well = trio.run(run_trace, plan, show)
        code = 0 if all_well else 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    if as_json_list:
        print_json([as_json(step) for step in steps], indent=2)
    for step in steps:
        if isinstance(step, Diagnosis) and step.fatal:
            complain(step.sentence)
    sys.exit(code)


class _Printer:
    """Prints each step when it happens, except fatal diagnoses: `trace` prints those on stderr at the end."""

    def __init__(self, steps: list[Step]) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A terminal without Unicode cannot show arrows, nor all that peers send.
            sys.stdout.reconfigure(errors="backslashreplace")
        self._console = make_console()
        self._steps = steps

    def show(self, step: Step) -> None:
        """Print one step."""
        self._steps.append(step)
        if isinstance(step, Diagnosis) and step.fatal:
            return
        for line in lay_out(step):
            self._console.print(line, soft_wrap=True)
