"""`wsframework workers`: show the workers of a running server, or change them."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from wsframework.cli.output import make_console, print_json
from wsframework.errors import ConfigurationError
from wsframework.workers.admin import admin_folder

__all__ = ["workers"]

_ANSWER_SECONDS = 10.0


class Action(StrEnum):
    """What to do."""

    SHOW = "show"
    RESTART = "restart"
    ADD = "add"
    REMOVE = "remove"


def workers(
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.SHOW,
    admin: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="The server's admin socket. [default: that of the only server of this user]",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    watch: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            max=86400,
            help="Show again after so many seconds, until Ctrl-C. [default: 2 on a terminal; once elsewhere]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show the workers of a running server, or change them.

    restart replaces all of them, one after the other; add starts one more; remove ends one.

    The server is one that `wsframework run --workers` has started. MSG/S are messages received and sent, LAG
    is how late the event loop was last, PSS is the memory with shared pages divided among the processes.
    """
    with _connect(admin) as server:
        if action is not Action.SHOW:
            done = _ask(server, action)["done"]
            if as_json:
                print_json({"done": done})
            else:
                print(done)
            return
        with contextlib.suppress(KeyboardInterrupt):
            _show(server, as_json=as_json, seconds=watch)


def _show(server: socket.socket, *, as_json: bool, seconds: float | None) -> None:
    console = make_console()
    live = console.is_terminal and not console.is_dumb_terminal and not as_json
    interval = seconds or (2.0 if live else None)
    if live:
        with Live(_table(_ask(server, Action.SHOW)), console=console, auto_refresh=False) as screen:
            while True:
                time.sleep(interval or 0)
                screen.update(_table(_ask(server, Action.SHOW)), refresh=True)
    while True:
        figures = _ask(server, Action.SHOW)
        if as_json:
            print_json(figures)
        else:
            console.print(_table(figures))
        if interval is None:
            return
        time.sleep(interval)


def _connect(path: str | None) -> socket.socket:
    if path is not None:
        return _open(path)
    folder = admin_folder()
    found: list[tuple[Path, socket.socket]] = []
    for file in sorted(folder.glob("*.sock")):
        try:
            found.append((file, _open(str(file))))
        except ConfigurationError:
            continue  # left behind by a parent that was killed
    if len(found) == 1:
        return found[0][1]
    for _, server in found:
        server.close()
    if not found:
        raise ConfigurationError(
            f"no server with workers has its admin socket in {folder}; name the socket with --admin"
        )
    names = ", ".join(str(file) for file, _ in found)
    raise ConfigurationError(f"several servers run; name one with --admin: {names}")


def _open(path: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.settimeout(_ANSWER_SECONDS)
    try:
        server.connect(path)
    except FileNotFoundError:
        why = "there is no such socket; is the server running?"
    except PermissionError:
        why = "not permitted; the socket is for the server's user and root"
    except ConnectionRefusedError:
        why = "no server listens there; the file is left from one that has ended"
    except OSError as error:
        why = str(error.strerror or error)
    else:
        return server
    server.close()
    raise ConfigurationError(f"--admin {path}: {why}")


def _ask(server: socket.socket, action: Action) -> dict[str, Any]:
    answer = b""
    try:
        server.sendall(json.dumps({"do": action.value}).encode() + b"\n")
        while not answer.endswith(b"\n"):
            piece = server.recv(65536)
            if not piece:
                raise ConfigurationError("the server has ended")
            answer += piece
        found = json.loads(answer)
    except TimeoutError:
        raise ConfigurationError(f"the server did not answer within {_ANSWER_SECONDS:g} s") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the server did not answer: {error}") from None
    if "error" in found:
        raise ConfigurationError(found["error"])
    return dict(found)


def _table(figures: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    # Of rooms that other processes share, if there are some.
    more = ("ROOMS", "QUEUED", "TAKES", "LOST", "GAPS") if figures["total"]["engines"] else ()
    for name in ("WORKER", "PID", "AGE", "STATE", "CONNECTIONS", "MSG/S", "LAG", "RSS", "PSS", *more):
        table.add_column(name, justify="left" if name == "STATE" else "right", no_wrap=True)
    for worker in figures["workers"]:
        table.add_row(
            str(worker["worker"]),
            str(worker["pid"]),
            _age(worker["age"]),
            worker["state"],
            f"{worker['connections']:,}",
            f"{worker['messages_per_second']:,.0f}",
            f"{worker['loop_lag'] * 1000:.0f} ms",
            _bytes(worker["rss"]),
            _bytes(worker["pss"]),
            *_engines(worker["engines"]),
        )
    total = figures["total"]
    state = "restarting" if figures["restarting"] else ""
    sums = (f"{total.get('connections', 0):,}", f"{total.get('messages_per_second', 0):,.0f}")
    memory = (_bytes(total.get("rss")), _bytes(total.get("pss")))
    table.add_row("total", "", "", state, *sums, "", *memory, *_engines(total["engines"]))
    return table


def _engines(figures: dict[str, Any] | None) -> tuple[str, ...]:
    if figures is None:
        return ()
    return (
        "up" if figures["up"] else "down",
        f"{figures['queued']:,} ({figures['queued_seconds']:.1f} s)",
        f"{figures['lag_seconds'] * 1000:.0f} ms",
        f"{figures['lost']:,}",
        f"{sum(figures['gaps'].values()):,}",
    )


def _age(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def _bytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**20:,.1f} MB"
