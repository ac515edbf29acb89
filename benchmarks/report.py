"""The tables on the terminal."""

from __future__ import annotations

from typing import Any

from benchmarks.contenders import OURS
from benchmarks.runner import summary

__all__ = ["disturbed", "number", "remarks", "table", "time_text"]

DISTURBED = 0.15  # share of a core that other programs may take on the two cores before a line says so


def number(value: float) -> str:
    """Return a number with as many digits as it deserves."""
    if abs(value) >= 10:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}"
    return f"{value:,.2f}"


def time_text(seconds: float) -> str:
    """Return a latency with a fitting unit."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def disturbed(line: dict[str, Any]) -> bool:
    """Whether other programs took so much of the two cores that the line says little."""
    return float(line.get("others_cpu", 0.0)) > DISTURBED


def remarks(line: dict[str, Any]) -> str:
    """Return what one must know to read a line."""
    found = []
    if line["client_bound"]:
        found.append("client-bound")
    if disturbed(line):
        found.append(f"disturbed: other programs took {line['others_cpu']:.0%} of a core")
    if "reply_bytes" in line:
        found.append(f"{line['reply_bytes']:.0f} bytes a reply")
    if "pings" in line:
        found.append(f"{line['pings']:,.0f} pings")
    return ", ".join(found)


def table(row: dict[str, Any]) -> str:
    """Return one row of the result as a text table."""
    head = ["", row["unit"], "min–max", "p50", "p99", "µs/server", "CPU s/c", "wsframework is", "by CPU", ""]
    lines = [head]
    for line in summary(row):
        ratio = ""
        if "ratio" in line:
            ratio = f"{line['ratio']:.2f}×"
            if line["rounds"] > 1:
                ratio += f" ({line['ratio_min']:.2f}–{line['ratio_max']:.2f})"
        lines.append(
            [
                ("* " if line["name"] == OURS else "  ") + line["name"],
                number(line["median"]),
                f"{number(line['min'])}–{number(line['max'])}" if line["rounds"] > 1 else "",
                time_text(line["p50"]) if "p50" in line else "",
                time_text(line["p99"]) if "p99" in line else "",
                f"{line['server_us']:.2f}" if "server_us" in line else "",
                f"{line['server_cpu']:.0%}/{line['client_cpu']:.0%}" if "client_cpu" in line else "",
                ratio,
                f"{line['cpu_ratio']:.2f}×" if "cpu_ratio" in line else "",
                remarks(line),
            ]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = [f"\n{row['workload']}: {row['label']} ({row['key']}, {row['seconds']:g} s a round)"]
    for cells in lines:
        padded = [
            cells[0].ljust(widths[0]),
            *(cell.rjust(widths[i]) for i, cell in enumerate(cells[1:-1], 1)),
        ]
        text.append("  ".join([*padded, cells[-1]]).rstrip())
    text += [f"  {name}: {error}" for name, error in row["errors"].items()]
    return "\n".join(text)
