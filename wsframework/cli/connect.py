"""`wsframework connect URL`: a terminal client that sends what is typed and shows what comes."""

from __future__ import annotations

import sys
from typing import Annotated

import trio
import typer
from trio_websocket import WebSocketConnection

from wsframework.cli.keyboard import Keyboard, has_editing, lines_of_pipe, unchanged_terminal
from wsframework.cli.options import Header, Insecure, Origin, Subprotocol, Timeout, Url, opening_of
from wsframework.cli.output import INTERRUPTED, complain
from wsframework.cli.screen import make_screen
from wsframework.diagnostics.connecting.opening import Overheard, connected
from wsframework.diagnostics.connecting.talk import Ended, Talk
from wsframework.diagnostics.problems import Unreachable

__all__ = ["connect"]

_UNREACHABLE, _CLOSED_BADLY = 1, 3


def connect(
    url: Url,
    subprotocol: Subprotocol = None,
    header: Header = None,
    origin: Origin = None,
    wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="From a pipe: after its last line, close when no message has come for this long, and at the "
            "latest after this and --timeout together.",
            min=0,
        ),
    ] = 2.0,
    timeout: Timeout = 10.0,
    insecure: Insecure = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line, for programs.")
    ] = False,
) -> None:
    """Talk to a WebSocket server.

    At a terminal, type to send; /help lists the commands. From a pipe, every line is sent as a message, and
    replies are printed unchanged: echo hi | wsframework connect ws://127.0.0.1:8000/chat

    Exit code: 0 after a normal end, 1 when there is no connection, or the server breaks a rule or sends
    without end, 3 when the server closed it with a code other than 1000, or without a Close frame.
    """
    opening = opening_of(url, subprotocol, header, origin, timeout=timeout, insecure=insecure)
    typed = sys.stdin.isatty()
    keyboard = Keyboard() if has_editing() and not as_json else None
    screen = make_screen(as_json=as_json, keyboard=keyboard)

    async def talk(ws: WebSocketConnection, stream: Overheard) -> Ended:
        screen.opened(opening.target.url, ws.subprotocol)
        lines = lines_of_pipe(sys.stdin.fileno()) if keyboard is None else keyboard.lines()
        talk = Talk(ws, stream, screen, lines, commands=typed, wait_seconds=wait, timeout_seconds=timeout)
        return await talk.run()

    try:
        with unchanged_terminal():
            ended = trio.run(connected, opening, talk)
    except Unreachable as why:
        for problem in why.problems:
            complain(problem.sentence)
        sys.exit(_UNREACHABLE)
    except KeyboardInterrupt:  # while connecting
        sys.exit(INTERRUPTED)
    if ended.interrupted:
        sys.exit(INTERRUPTED)
    sys.exit(_CLOSED_BADLY if ended.by == "server" and ended.code not in (1000, 1005) else 0)
