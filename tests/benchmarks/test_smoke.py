"""`python -m benchmarks` from end to end: numbers must come out; how large they are is nobody's promise."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


METRICS = {
    "echo:64x1:64B": "rate",
    "echo:8x2:16KiB": "rate",
    "fanout:100:1x16": "rate",
    "fanout:100:10x1": "rate",
    "churn:32": "rate",
    "deflate:64x1:1KiB": "rate",
    "tls:64x1:64B": "rate",
    "mixed": "p99_ms",
}
"""What ranks the contenders, by the row's key."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What one run measures, by workload."""
    path = tmp_path_factory.mktemp("benchmarks") / "result.json"
    command = [sys.executable, "-m", "benchmarks", *METRICS, "--json", str(path), "--rounds", "1"]
    command += ["--seconds", "0.1", "--only", "wsframework,websockets-trio,ceiling-python"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stderr + finished.stdout
    return {row["key"]: row for row in json.loads(path.read_text())["rows"]}


@pytest.mark.parametrize("workload", METRICS)
def test_a_workload_yields_numbers(rows: dict[str, dict[str, Any]], workload: str) -> None:
    row = rows[workload]
    errors = row["errors"]
    samples = row["samples"]
    assert errors.get("wsframework") is None
    assert "wsframework" in samples
    for taken in samples.values():
        assert taken[0][METRICS[workload]] > 0
        assert math.isfinite(taken[0][METRICS[workload]])


def test_contenders_that_are_not_installed_are_left_out_and_named() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--list"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0
    assert "wsframework" in finished.stdout
    assert "echo:64x1:64B" in finished.stdout


def test_an_unknown_workload_is_answered_with_the_known_ones() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks", "ehco"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 2
    assert "fanout" in finished.stderr
