"""The program of howto/sizing.md, and its table."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.sizing import WORKLOADS, Costs, table
from tests.docs.following import exercises
from tests.docs.snippets import DOCS, ROOT

PAGE = "howto/sizing.md"
COMMAND = "python -m benchmarks.sizing --connections 200000 --rooms 5000 --per-second 0.5"


@exercises(PAGE, COMMAND)
def test_the_program_answers() -> None:
    finished = subprocess.run(
        [sys.executable, *COMMAND.split()[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    assert "| 200,000 | 5,000 | 2,500 | 100,000 |" in finished.stdout


def test_the_pages_table_is_the_programs() -> None:
    assert table(WORKLOADS, Costs()) in (DOCS / PAGE).read_text()
