"""The suite itself, without the long compression cases: 385 cases in about half a minute.

Needs a Python 2.7, so it runs where it is asked for and always in CI, where a missing Python 2.7 is a failure
(its message is in the output). `make conformance` runs all cases.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WANTED = os.environ.get("CI", "").lower() in {"true", "1"} or os.environ.get("WSFRAMEWORK_CONFORMANCE") == "1"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WANTED, reason="set WSFRAMEWORK_CONFORMANCE=1 to run the Autobahn testsuite"),
]


def run(reports: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.conformance", "--reports", str(reports), *arguments]
    return subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=1200, check=False
    )


def test_the_native_server_has_no_fault_in_the_autobahn_testsuite(tmp_path: Path) -> None:
    finished = run(tmp_path, "--cases", "short")
    assert finished.returncode == 0, f"{finished.stdout}\n{finished.stderr}"


def test_a_server_without_compression_does_not_pass(tmp_path: Path) -> None:
    server = "tests.conformance.trio_websocket_server"
    finished = run(tmp_path, "--cases", "1.1.1", "12.1.1", "--server", server)
    assert finished.returncode == 1, f"{finished.stdout}\n{finished.stderr}"
    assert "12.1.1   UNIMPLEMENTED" in finished.stdout
    assert "2 of 2 cases ran" in finished.stdout
