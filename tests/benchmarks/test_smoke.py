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


def measure(folder: Path, *arguments: str) -> dict[str, Any]:
    path = folder / "result.json"
    command = [sys.executable, "-m", "benchmarks", *arguments, "--json", str(path)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr + finished.stdout
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize(
    ("workload", "metric"),
    [
        ("echo:64x1:64B", "rate"),
        ("echo:8x2:16KiB", "rate"),
        ("fanout:100:1x16", "rate"),
        ("fanout:100:10x1", "rate"),
        ("churn", "rate"),
        ("deflate:64x1:1KiB", "rate"),
        ("tls:64x1:64B", "rate"),
        ("mixed", "p99_ms"),
    ],
)
def test_a_workload_yields_numbers(tmp_path: Path, workload: str, metric: str) -> None:
    result = measure(tmp_path, workload, "--only", "wsframework,websockets-trio,ceiling-python", "--quick")
    (row,) = result["rows"]
    errors = row["errors"]
    samples = row["samples"]
    assert errors.get("wsframework") is None
    assert "wsframework" in samples
    for taken in samples.values():
        assert taken[0][metric] > 0
        assert math.isfinite(taken[0][metric])


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
