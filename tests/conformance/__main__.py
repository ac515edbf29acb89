"""Run the Autobahn testsuite against wsframework: `python -m tests.conformance --help`.

Exit status: 0 when every wanted case ran and the suite found nothing but OK and INFORMATIONAL, for the
messages and for the close; 1 when every case ran and some are not accepted; 2 when cases did not run, or none
could.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from tests.conformance.cases import SETS, UnknownCases, in_running_order, select
from tests.conformance.install import HERE, InstallError, ensure_suite
from tests.conformance.report import Result, clock
from tests.conformance.run import Job, ServerError, conformance

REPORTS = HERE / "reports"
OUR_SERVER = "tests.conformance.echo_server"

# A line every so often tells a log that the run is alive; a terminal sees every case.
LOG_SECONDS = 10


class Progress:
    """Shows which case of how many is done; what is not accepted is shown at once and stays."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._faults = 0
        self._started = self._shown = time.monotonic()
        self._live = sys.stderr.isatty()

    def __call__(self, result: Result) -> None:
        """Count and show one result."""
        self._done += 1
        if not result.accepted:
            self._faults += 1
            self._print(f"{result.case:<8} {result.verdict}", stay=True)
        now = time.monotonic()
        last = self._done == self._total
        if self._live or last or now - self._shown >= LOG_SECONDS:
            self._shown = now
            counts = f"{self._done}/{self._total} cases, {self._faults} not accepted"
            self._print(f"{counts}, {clock(now - self._started)}, {result.case}", stay=last)

    def _print(self, line: str, *, stay: bool) -> None:
        start, end = ("\r\x1b[K", "\n" if stay else "") if self._live else ("", "\n")
        print(f"{start}{line}", end=end, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance", description="Run the Autobahn testsuite against wsframework."
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        default=["all"],
        metavar="CASES",
        help=f"{', '.join(SETS)} (the default), ids, groups or patterns: --cases core 9 '12.*.1'",
    )
    server = parser.add_mutually_exclusive_group()
    server.add_argument(
        "--server",
        default=OUR_SERVER,
        metavar="MODULE",
        help=f"an echo server to start (default: {OUR_SERVER})",
    )
    server.add_argument("--port", type=int, help="an echo server that runs already, on 127.0.0.1")
    parser.add_argument(
        "--clients",
        type=int,
        default=min(4, os.cpu_count() or 1),
        metavar="N",
        help="fuzzing clients, each with its own server, that share the cases (default: one a core, up to 4)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON too")
    parser.add_argument(
        "--reports",
        type=Path,
        default=REPORTS,
        metavar="DIR",
        help="where logs and pages go (default: tests/conformance/reports)",
    )
    options = parser.parse_args(arguments)
    if options.clients < 1:
        parser.error("--clients must be 1 or more")
    return options


def make_room(reports: Path) -> None:
    """Make the folder, without what an earlier run left in it."""
    reports.mkdir(parents=True, exist_ok=True)
    for pattern in ("client-*.log", "server-*.log", "server_*_case_*.html"):
        for leftover in reports.glob(pattern):
            leftover.unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        suite = ensure_suite()
        cases = in_running_order(select(suite.cases, options.cases))
        make_room(options.reports)
        server = options.server if options.port is None else options.port
        job = Job(suite, cases, options.reports.resolve(), server, min(options.clients, len(cases)))
        print(f"Autobahn testsuite {suite.version}: {len(cases)} cases against {server}", file=sys.stderr)
        report = trio.run(conformance, job, Progress(len(cases)))
    except (InstallError, UnknownCases, ServerError) as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    print(report.table(suite.groups))
    if report.not_accepted:
        print(f"wire logs: {options.reports}/server_*_case_*.html", file=sys.stderr)
    if options.json:
        options.json.write_text(
            json.dumps({"suite": suite.version, "server": server, **report.as_json()}, indent=1) + "\n"
        )
    return report.exit_status


if __name__ == "__main__":
    sys.exit(main())
