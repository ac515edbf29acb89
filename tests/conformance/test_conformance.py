"""The suite itself, without the long compression cases: some 400 cases in half a minute to two minutes.

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


@pytest.mark.slow
@pytest.mark.skipif(not WANTED, reason="set WSFRAMEWORK_CONFORMANCE=1 to run the Autobahn testsuite")
def test_the_native_server_has_no_fault_in_the_autobahn_testsuite(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.conformance", "--cases", "short", "--reports", str(tmp_path)]
    finished = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=1200, check=False
    )
    assert finished.returncode == 0, f"{finished.stdout}\n{finished.stderr}"
