"""`python -m benchmarks.tables RESULT.json`: the README's chart and the docs' table, from a result.

Writes benchmarks.md and charts beside the result, and what stands between the lines `<!-- bench:begin -->`
and `<!-- bench:end -->`: one chart in README.md, the same chart and one table in docs/performance.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.charts import draw
from benchmarks.contenders import CEILINGS, OURS, ROOT
from benchmarks.losses import reason
from benchmarks.report import disturbed, number, remarks, time_text
from benchmarks.runner import summary

__all__ = ["bars", "conditions", "full_tables", "headline", "replace_between"]

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
CHART_ROW = "echo:64x16:64B"
CHART_NAMES = {
    OURS: "wsframework",
    "socketify": "socketify (C++)",
    "picows": "picows (Cython)",
    "aiohttp": "aiohttp",
    "node-ws": "ws (Node.js)",
    "websockets": "websockets",
    "trio-websocket": "trio-websocket",
}
CHART_CELLS = 40
HEADLINE = {
    "echo:64x1:64B": "echo, 64 × 1 in flight (msg/s)",
    "echo:64x16:64B": "echo, 64 × 16 in flight (msg/s)",
    "fanout:1000:1x16": "room of 1,000 (deliveries/s)",
    "churn:32": "connect and close (per s)",
    "idle:5000": "idle connection (kB)",
}


def conditions(result: dict[str, Any]) -> str:
    """Return one paragraph: machine, versions, date, command."""
    machine = result["machine"]
    cores = (
        f"server on core {machine['server_core']}, load client ({result['client']}) on core "
        f"{machine['client_core']}"
        if machine["server_core"] is not None
        else "server and load client on one core"
    )
    versions = "; ".join(dict.fromkeys(result["versions"].values()))
    return (
        f"{result['date']}, `{result['command'].strip()}`: {machine['processor']}, {machine['cores']} cores "
        f"({cores}), {machine['system']}, Python {machine['python']}. {versions}."
    )


def headline(result: dict[str, Any]) -> str:
    """Return the short table: contenders by the headline rows, with the ratio to wsframework."""
    rows = {row["key"]: row for row in result["rows"]}
    keys = [key for key in HEADLINE if key in rows]
    lines = {key: {line["name"]: line for line in summary(rows[key])} for key in keys}
    names = list(dict.fromkeys(name for key in keys for name in lines[key]))
    first = lines[keys[0]] if keys else {}
    names.sort(key=lambda n: (n in CEILINGS, -first[n]["median"] if n in first else 0))
    text = ["| | " + " | ".join(HEADLINE[key] for key in keys) + " |", "| --- |" + " ---: |" * len(keys)]
    marks: dict[str, str] = {}
    for name in names:
        cells = []
        for key in keys:
            line = lines[key].get(name)
            if line is None:
                cells.append("–")
                continue
            cell = number(line["median"])
            if "ratio" in line and not line["client_bound"]:
                cell += f" ({line['ratio']:.2f}×)"
            if line["client_bound"]:
                cell += " ᶜ"
                marks["ᶜ"] = "limited by the load client"
            if disturbed(line):
                cell += " ᵈ"
                marks["ᵈ"] = "other programs used the cores"
            cells.append(f"**{cell}**" if name == OURS else cell)
        shown = f"**{name}**" if name == OURS else name
        text.append(f"| {shown} | " + " | ".join(cells) + " |")
    note = "In brackets: how many times better wsframework is (medians of the rounds' ratios)."
    if marks:
        note += " " + "; ".join(f"{mark}: {text}" for mark, text in marks.items()) + ": not used for a claim."
    return "\n".join([*text, "", f"{note} {conditions(result)}"])


def bars(result: dict[str, Any]) -> str:
    """Return a chart in text, which needs no picture: messages a second of some contenders."""
    lines = {line["name"]: line for row in result["rows"] if row["key"] == CHART_ROW for line in summary(row)}
    rates = {CHART_NAMES[name]: lines[name]["median"] for name in CHART_NAMES if name in lines}
    most = max(rates.values(), default=1.0)
    width = max(map(len, CHART_NAMES.values()))
    text = ["echo of 64 bytes, 64 connections, 16 messages in flight on each: messages per second", ""]
    for name, rate in sorted(rates.items(), key=lambda item: -item[1]):
        bar = "█" * max(1, round(CHART_CELLS * rate / most))
        text.append(f"{name:<{width}}  {bar:<{CHART_CELLS}}  {number(rate):>9}")
    return "\n".join(["```text", *text, "```"])


def full_tables(result: dict[str, Any]) -> str:
    """Return the page with every row."""
    text = [
        "# Benchmarks",
        "",
        "Written by `make bench-tables`. How it is measured: `benchmarks/README.md` in the repository.",
        "",
        conditions(result),
        "",
        "The ratio is wsframework's number by the other's (for memory, latency and CPU the other's by "
        "wsframework's), round by round: above 1 wsframework is better. µs is the CPU time of the server per "
        "message. A *client-bound* line was limited by the load client and is not used for a claim; a "
        "*disturbed* one shared its cores with other programs.",
        "",
        "![overview](charts/overview.png)",
    ]
    if result["left_out"]:
        text += [
            "",
            "Left out: " + "; ".join(f"{n} ({r.splitlines()[0]})" for n, r in result["left_out"].items()),
        ]
    workload = ""
    for row in result["rows"]:
        if row["workload"] != workload:
            workload = row["workload"]
            text += ["", f"## {workload}", "", f"![{workload}](charts/{workload}.png)"]
        text += ["", f"### {row['label']} (`{row['key']}`)", ""]
        text += [
            f"| | {row['unit']} | min–max | p50 | p99 | µs | ratio | min–max | |",
            "| --- |" + " ---: |" * 7 + " --- |",
        ]
        lost = []
        for line in summary(row):
            cells = [
                number(line["median"]),
                f"{number(line['min'])}–{number(line['max'])}",
                time_text(line["p50"]) if "p50" in line else "",
                time_text(line["p99"]) if "p99" in line else "",
                f"{line['server_us']:.2f}" if "server_us" in line else "",
                f"{line['ratio']:.2f}×" if "ratio" in line else "",
                f"{line['ratio_min']:.2f}–{line['ratio_max']:.2f}" if "ratio" in line else "",
                remarks(line),
            ]
            name = f"**{line['name']}**" if line["name"] == OURS else line["name"]
            text.append(f"| {name} | " + " | ".join(cells) + " |")
            if line.get("ratio", 1.0) < 1.0:
                lost.append(f"- {line['name']}: {reason(line['name'], workload)}.")
        if lost:
            text += ["", "Why these are ahead:", "", *lost]
        if row["errors"]:
            missing = "; ".join(f"{name}: {error.splitlines()[0]}" for name, error in row["errors"].items())
            text += ["", f"Not measured: {missing}."]
    return "\n".join(text) + "\n"


def replace_between(path: Path, text: str) -> bool:
    """Put `text` between the markers of a file; return False when the file or its markers are missing."""
    if not path.exists():
        return False
    content = path.read_text()
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return False
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
    return True


def main(source: Path) -> int:
    if not source.exists():
        print(f"{source} is not there: run `make bench` first", file=sys.stderr)
        return 1
    result = json.loads(source.read_text())
    page, charts = source.parent / "benchmarks.md", source.parent / "charts"
    page.write_text(full_tables(result))
    print(f"wrote {page}")
    try:
        print(f"drew {len(draw(result, charts))} charts into {charts}/")
    except ImportError:
        print(
            "no charts: matplotlib is not installed here; `make bench-tables` runs where it is",
            file=sys.stderr,
        )
    marked = {"README.md": bars(result), "docs/performance.md": f"{bars(result)}\n\n{headline(result)}"}
    for name, text in marked.items():
        if replace_between(ROOT / name, text):
            print(f"wrote the numbers in {name}")
        else:
            print(
                f"{name} has no lines {BEGIN} and {END}: put them where the table shall stand",
                file=sys.stderr,
            )
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
