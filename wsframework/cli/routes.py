"""`wsframework routes module:app`: list an App's routes and where they are defined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import attrs
import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from wsframework.cli.importing import Target, load_app, shorten
from wsframework.cli.output import make_console, print_json
from wsframework.routing import Route

__all__ = ["routes"]

_TITLES = ("PATH", "ANSWERS", "HANDLER", "DEFINED")


@attrs.frozen
class Row:
    """One line of the table, and one object of the JSON list.

    Attributes:
        path: the template.
        kind: "websocket", "http", or "mount" for an application and what is below its path.
        subprotocols: those of a WebSocket handler; empty when it asks for none.
        methods: those of an HTTP handler.
        handler: the function's qualified name.
        defined: where it is defined, as `file:line`.
    """

    path: str
    kind: str
    subprotocols: tuple[str, ...]
    methods: tuple[str, ...]
    handler: str
    defined: str

    @property
    def answers(self) -> str:
        """The table's text for methods or subprotocols."""
        if self.kind == "mount":
            return "an application"
        return " ".join(self.methods) or ", ".join(self.subprotocols) or "no subprotocol"


def routes(
    target: Target,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list, for programs.")] = False,
) -> None:
    """List an App's routes and their handlers.

    Shows the path, the subprotocols or HTTP methods, the handler, and where it is defined; and the paths of
    mounted applications.
    """
    app = load_app(target)
    rows = [_row(route) for route in app.routes]
    rows += [Row(path, "mount", (), (), "", "") for path in app.mounts]
    if as_json:
        print_json([attrs.asdict(row) for row in rows], indent=2)
    else:
        _print_table(rows)


def _row(route: Route[Any]) -> Row:
    keys = tuple(key for key in route.keys if key is not None)
    return Row(
        path=route.template.text,
        kind=route.kind,
        subprotocols=keys if route.kind == "websocket" else (),
        methods=keys if route.kind == "http" else (),
        handler=route.name,
        defined=shorten(route.place),
    )


def _print_table(rows: Sequence[Row]) -> None:
    cells = [(row.path, row.answers, row.handler, row.defined) for row in rows]
    console = make_console()
    if not console.is_terminal:
        widths = [max(map(len, column)) for column in zip(_TITLES, *cells, strict=True)]
        for line in (_TITLES, *cells):
            padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            print("  ".join(padded).rstrip())
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for title, style in zip(_TITLES, ("cyan", "green", "", "dim"), strict=True):
        table.add_column(title, style=style, overflow="fold")
    for line in cells:
        table.add_row(*line)
    console.print(table)
