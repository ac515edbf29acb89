"""`python -m benchmarks [workload …]`: measure, print, and write JSON and charts."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.certificates import make_certificate
from benchmarks.charts import draw
from benchmarks.contenders import CEILINGS, CONTENDERS, OURS, find, versions
from benchmarks.holder import raise_file_limit
from benchmarks.report import table
from benchmarks.rows import ROWS, WORKLOADS, select_rows
from benchmarks.runner import Plan, run


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure wsframework against its peers."
    )
    p.add_argument(
        "workload", nargs="*",
        help=f"{', '.join(WORKLOADS)}; one row's key; or any echo as echo:CONNECTIONSxIN_FLIGHT:SIZE "
        "(default: everything)",
    )  # fmt: skip
    p.add_argument("--against", metavar="A,B", help="only these beside wsframework and the ceilings")
    p.add_argument("--only", metavar="A,B", help="exactly these contenders")
    p.add_argument("--rounds", type=int, help="rounds per row (default: the row's own)")
    p.add_argument("--seconds", type=float, help="measured seconds per turn (default: the row's own)")
    p.add_argument("--minutes", type=float, help="take fewer rounds where the run would last longer")
    p.add_argument("--quick", action="store_true", help="one round of 0.3 s: a look, not a measurement")
    p.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    p.add_argument("--charts", type=Path, metavar="DIR", help="draw PNG and SVG charts into this folder")
    p.add_argument("--list", action="store_true", help="show workloads, rows and contenders, and stop")
    return p


def show_list() -> None:
    for workload, text in WORKLOADS.items():
        print(f"{workload}: {text}")
        for row in ROWS:
            if row.workload == workload:
                print(f"    {row.key:24} {row.label}")
    print("\ncontenders:")
    installed = versions(list(CONTENDERS))
    for contender in CONTENDERS:
        print(f"    {contender.name:20} {installed.get(contender.name, '(not installed)')}")


def main() -> int:
    arguments = parser().parse_args()
    if arguments.list:
        show_list()
        return 0
    try:
        rows = select_rows(arguments.workload)
        if arguments.only:
            contenders = [find(name) for name in arguments.only.split(",")]
        elif arguments.against:
            chosen = [find(name) for name in arguments.against.split(",")]
            contenders = [c for c in CONTENDERS if c.name in (OURS, *CEILINGS) or c in chosen]
        else:
            contenders = list(CONTENDERS)
    except ValueError as error:
        parser().error(str(error))
    if arguments.quick:
        arguments.rounds, arguments.seconds = arguments.rounds or 1, arguments.seconds or 0.3
    raise_file_limit()
    with tempfile.TemporaryDirectory() as folder:
        certificate, context = make_certificate(Path(folder))
        plan = Plan(
            rows, contenders, arguments.rounds, arguments.seconds, arguments.minutes,
            command="python -m benchmarks " + " ".join(sys.argv[1:]),
        )  # fmt: skip
        result = run(
            plan,
            certificate=certificate,
            client_context=context,
            show=lambda row: print(table(row), flush=True),
        )
    print(f"\n{result['seconds']:.0f} s; " + "; ".join(f"{n}: {v}" for n, v in result["versions"].items()))
    for name, reason in result["left_out"].items():
        print(f"left out: {name}: {reason}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    if arguments.charts:
        try:
            draw(result, arguments.charts)
        except ImportError:
            print("no charts: matplotlib is not installed in this environment", file=sys.stderr)
    return 0 if any(row["samples"] for row in result["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main())
