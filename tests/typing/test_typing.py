"""What type checkers make of the public names: they accept one file, and find each mistake in the other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import HERE as CLIENTS
from tests.clients.conftest import node_with

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SOUND, MISTAKES = HERE / "sound.py", HERE / "mistakes.py"

pytestmark = pytest.mark.slow


def wrong_lines() -> list[int]:
    lines = MISTAKES.read_text(encoding="utf-8").splitlines()
    return [number for number, line in enumerate(lines, 1) if line.endswith("# wrong")]


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def test_mypy_finds_the_mistakes_and_nothing_else(tmp_path: Path) -> None:
    options = ["--no-error-summary", "--hide-error-context", "--cache-dir", str(tmp_path)]
    said = run(sys.executable, "-m", "mypy", *options, str(SOUND), str(MISTAKES))
    found = re.findall(r"^(.*?):(\d+): error: ", said, re.MULTILINE)
    assert [(Path(file).name, int(line)) for file, line in found] == [
        (MISTAKES.name, line) for line in wrong_lines()
    ], said


@pytest.mark.node
def test_pyright_finds_the_mistakes_and_nothing_else() -> None:
    program = [node_with("pyright"), str(CLIENTS / "node_modules" / "pyright" / "index.js")]
    options = ["--outputjson", "--pythonpath", sys.executable]
    said = json.loads(run(*program, *options, str(SOUND), str(MISTAKES)))
    found = {
        (Path(entry["file"]).name, entry["range"]["start"]["line"] + 1, entry["message"])
        for entry in said["generalDiagnostics"]
        if entry["severity"] == "error"
    }
    assert sorted({(name, line) for name, line, _ in found}) == [
        (MISTAKES.name, line) for line in wrong_lines()
    ], found
