"""Lay out the steps of a trace for a terminal: time, layer, direction and sentence, in colour."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from wsframework.diagnostics.steps import Step
from wsframework.diagnostics.tracing.telling import tell

__all__ = ["lay_out"]

_STYLES = {
    "NAME": "blue",
    "TCP": "cyan",
    "TLS": "magenta",
    "HTTP": "yellow",
    "FRAME": "green",
    "CLOSE": "green",
}
_INDENT = " " * 20


def lay_out(step: Step) -> Iterator[Text]:
    """Return a step's lines."""
    first, *rest = tell(step)
    style = _STYLES.get(first.layer, "bold red")
    yield Text.assemble(
        (f"{step.at * 1000:9.1f} ms  ", "dim"),
        (f"{first.layer:<6}", style),
        (f"{first.arrow:<2}", "bold"),
        first.text,
    )
    for line in rest:
        yield Text.assemble(_INDENT, (line.text, "dim")) if line.text else Text()
