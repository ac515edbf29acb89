"""Charts of a result: one overview, and one figure per workload, as PNG and SVG."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

from benchmarks.contenders import CEILINGS, OURS
from benchmarks.report import number
from benchmarks.runner import summary

__all__ = ["draw"]

OVERVIEW = ("echo:64x1:64B", "echo:64x16:64B", "fanout:1000:1x16", "churn:32", "idle:5000", "mixed")
OURS_COLOUR, PEER_COLOUR, CEILING_COLOUR = "#c2410c", "#64748b", "#cbd5e1"
MARKUP = {"svg.hashsalt": "wsframework", "svg.fonttype": "none", "font.size": 9, "axes.titlesize": 10}


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """Draw every chart into `folder`; return the files.

    Raises:
        ImportError: matplotlib is not installed.
    """
    importlib.import_module("matplotlib").use("Agg")
    plt = importlib.import_module("matplotlib.pyplot")

    folder.mkdir(parents=True, exist_ok=True)
    rows = {row["key"]: row for row in result["rows"] if row["samples"]}
    figures = {"overview": [rows[key] for key in OVERVIEW if key in rows]}
    for row in rows.values():
        figures.setdefault(row["workload"], []).append(row)
    written = []
    with plt.rc_context(MARKUP):
        for name, panels in figures.items():
            if not panels:
                continue
            columns = min(2 if name != "overview" else 3, len(panels))
            lines = math.ceil(len(panels) / columns)
            figure, axes = plt.subplots(lines, columns, figsize=(5.2 * columns, 3.6 * lines), squeeze=False)
            for axis, row in zip(axes.flat, panels, strict=False):
                _panel(axis, row)
            for axis in list(axes.flat)[len(panels) :]:
                axis.set_visible(False)
            machine = result["machine"]
            where = f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}"
            how = "medians, whiskers min–max; hatched: limited by the load client"
            figure.text(0.01, 0.01, f"{result['date']}, {where}\n{how}", fontsize=7, color="#475569")
            figure.tight_layout(rect=(0, 0.12 / lines, 1, 1))
            for suffix, metadata in (("png", {}), ("svg", {"Date": None})):
                path = folder / f"{name}.{suffix}"
                figure.savefig(path, dpi=120, metadata=metadata)
                written.append(path)
            plt.close(figure)
    return written


def _panel(axis: Any, row: dict[str, Any]) -> None:
    """Draw one row as horizontal bars, the best on top."""
    lines = [line for line in summary(row) if not math.isnan(line["median"])]
    lines.sort(key=lambda line: line["median"], reverse=row["better"] == "lower")
    values = [line["median"] for line in lines]
    colours = [
        OURS_COLOUR if line["name"] == OURS else CEILING_COLOUR if line["name"] in CEILINGS else PEER_COLOUR
        for line in lines
    ]
    low = [line["median"] - line["min"] for line in lines]
    high = [line["max"] - line["median"] for line in lines]
    bars = axis.barh(
        [line["name"] for line in lines], values, xerr=[low, high], color=colours, ecolor="#0f172a"
    )
    for bar, line in zip(bars, lines, strict=True):
        if line["client_bound"]:
            bar.set_hatch("///")
        axis.annotate(
            f" {number(line['median'])}",
            (line["max"], bar.get_y() + bar.get_height() / 2),
            va="center",
            fontsize=7,
        )
    axis.set_title(f"{row['workload']}: {row['label']}")
    axis.set_xlabel(f"{row['unit']} ({row['better']} is better)")
    axis.margins(x=0.14)
    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.set_major_formatter(
        lambda value, _: f"{value:,.0f}" if value >= 10 or not value else f"{value:g}"
    )
    axis.tick_params(axis="x", labelsize=7)
