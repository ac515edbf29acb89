"""The files that docs/testing.md shows run as they stand, under pytest-trio."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"

_FILE = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_OUTPUT = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the page's files as a reader would."""
    path = tmp_path_factory.mktemp("reader")
    for name, text in _FILE.findall(PAGE.read_text()):
        (path / name).write_text(text)
    return path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_every_test_of_the_page_passes_but_the_one_that_shows_a_failure(folder: Path) -> None:
    result = run(folder, "--deselect", "test_silence.py::test_silence")
    shown = sum(text.count("def test_") for _, text in _FILE.findall(PAGE.read_text()))
    assert result.returncode == 0, result.stdout
    assert f"{shown - 1} passed" in result.stdout


def test_the_failure_says_what_the_page_shows(folder: Path) -> None:
    result = run(folder, "test_silence.py")
    assert result.returncode == 1
    [shown] = _OUTPUT.findall(PAGE.read_text())
    assert " ".join(shown.split()) in result.stdout
