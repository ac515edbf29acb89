"""`wsframework trace URL`: one connection from name resolution to the end of TCP, step by step."""

from __future__ import annotations

import io
import json
import sys
from typing import Annotated

import trio
import typer

from wsframework.cli.output import make_console
from wsframework.cli.tracing.steps import Diagnosis, Step, as_json
from wsframework.cli.tracing.target import parse_headers, parse_subprotocols, parse_target, tls_context
from wsframework.cli.tracing.telling import complain, tell
from wsframework.cli.tracing.tracer import Plan
from wsframework.cli.tracing.tracer import trace as run_trace

__all__ = ["trace"]


def trace(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Such as ws://127.0.0.1:8000/chat.", show_default=False)
    ],
    send: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Send this message; may be repeated.")
    ] = None,
    subprotocol: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Offer this subprotocol; may be repeated.")
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="'NAME: VALUE'", help="Send this header field; may be repeated."),
    ] = None,
    origin: Annotated[str | None, typer.Option(metavar="ORIGIN", help="Send this Origin.")] = None,
    deflate: Annotated[bool, typer.Option("--deflate", help="Offer permessage-deflate.")] = False,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long to listen before closing.", min=0)
    ] = 2.0,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long to wait for each answer.", min=0.001)
    ] = 10.0,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Do not check the server's certificate.")
    ] = False,
    as_json_list: Annotated[
        bool, typer.Option("--json", help="Print a JSON list of steps, for programs.")
    ] = False,
) -> None:
    """Tell one connection step by step, from SYN to FIN.

    Shows name resolution, TCP, TLS, the opening handshake, every frame, the closing handshake and the end of
    TCP, with the time of each, what the kernel says of it, and what is wrong with it. Needs no privileges.

    Exit code: 0 when all is well, 1 when there is no connection or the server breaks a rule.
    """
    target = parse_target(url)
    plan = Plan(
        target=target,
        tls=tls_context(insecure=insecure) if target.secure else None,
        subprotocols=parse_subprotocols(subprotocol or ()),
        headers=parse_headers(header or (), origin),
        deflate=deflate,
        messages=tuple(send or ()),
        timeout_seconds=timeout,
        wait_seconds=wait,
    )
    steps: list[Step] = []
    show = steps.append if as_json_list else _Printer(steps).show
    try:
        all_well = trio.run(run_trace, plan, show)
        code = 0 if all_well else 1
    except KeyboardInterrupt:
        code = _INTERRUPTED
    if as_json_list:
        print(json.dumps([as_json(step) for step in steps], ensure_ascii=False, indent=2), flush=True)
    for step in steps:
        if isinstance(step, Diagnosis) and step.fatal:
            complain(step.sentence)
    sys.exit(code)


_INTERRUPTED = 130
"""What shells call 128 and SIGINT's number."""


class _Printer:
    """Prints steps as they come, but for those that keep a connection from being one: they come last."""

    def __init__(self, steps: list[Step]) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Arrows, and what peers send, must not end the story on a terminal without Unicode.
            sys.stdout.reconfigure(errors="backslashreplace")
        self._console = make_console()
        self._steps = steps

    def show(self, step: Step) -> None:
        """Print one step."""
        self._steps.append(step)
        if isinstance(step, Diagnosis) and step.fatal:
            return
        for line in tell(step):
            self._console.print(line, soft_wrap=True)
