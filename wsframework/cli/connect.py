"""`wsframework connect URL`: a terminal client; what is typed is sent, what comes is shown."""

from __future__ import annotations

import sys
from typing import Annotated

import trio
import typer
from trio_websocket import WebSocketConnection

from wsframework.cli.connecting.keyboard import Keyboard, has_editing, lines_of_pipe, unchanged_terminal
from wsframework.cli.connecting.opening import Options, connected
from wsframework.cli.connecting.screen import make_screen
from wsframework.cli.connecting.talk import Ended, Talk
from wsframework.cli.tracing.problems import Unreachable
from wsframework.cli.tracing.target import parse_headers, parse_subprotocols, parse_target, tls_context
from wsframework.cli.tracing.telling import complain

__all__ = ["connect"]

_UNREACHABLE, _CLOSED_BADLY, _INTERRUPTED = 1, 3, 130


def connect(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Such as ws://127.0.0.1:8000/chat.", show_default=False)
    ],
    subprotocol: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Offer this subprotocol; may be repeated.")
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="'NAME: VALUE'", help="Send this header field; may be repeated."),
    ] = None,
    origin: Annotated[str | None, typer.Option(metavar="ORIGIN", help="Send this Origin.")] = None,
    wait: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="From a pipe: close when nothing has come for so long.", min=0),
    ] = 2.0,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long to wait for the server.", min=0.001)
    ] = 10.0,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Do not check the server's certificate.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line, for programs.")
    ] = False,
) -> None:
    """Talk to a WebSocket server.

    At a terminal, type to send; /help lists what else there is. From a pipe every line is a message, and the
    replies are printed as they are: echo hi | wsframework connect ws://127.0.0.1:8000/chat

    Exit code: 0 after a normal end, 1 when there is no connection, 3 when the server closed it with another
    code than 1000, or left without a Close frame.
    """
    target = parse_target(url)
    options = Options(
        target=target,
        tls=tls_context(insecure=insecure) if target.secure else None,
        subprotocols=parse_subprotocols(subprotocol or ()),
        headers=parse_headers(header or (), origin),
        timeout_seconds=timeout,
    )
    typed = sys.stdin.isatty()
    keyboard = Keyboard() if has_editing() and not as_json else None
    screen = make_screen(as_json=as_json, keyboard=keyboard)

    async def talk(ws: WebSocketConnection) -> Ended:
        screen.opened(target.url, ws.subprotocol)
        lines = lines_of_pipe(sys.stdin.fileno()) if keyboard is None else keyboard.lines()
        return await Talk(ws, screen, lines, commands=typed, wait_seconds=wait, timeout_seconds=timeout).run()

    try:
        with unchanged_terminal():
            ended = trio.run(connected, options, talk)
    except Unreachable as why:
        for problem in why.problems:
            complain(problem.sentence)
        sys.exit(_UNREACHABLE)
    except KeyboardInterrupt:  # while connecting
        sys.exit(_INTERRUPTED)
    if ended.interrupted:
        sys.exit(_INTERRUPTED)
    sys.exit(_CLOSED_BADLY if ended.by == "server" and ended.code not in (1000, 1005) else 0)
