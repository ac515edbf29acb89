"""Where the foreign clients are, or why their tests cannot run; in CI they are required."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

HERE = Path(__file__).parent


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it where it is required."""
    if os.environ.get("CI", "").lower() in {"true", "1"}:
        pytest.fail(f"{reason}; CI needs it (tests/clients/install)")
    pytest.skip(f"{reason} (tests/clients/install installs it)")


@pytest.fixture
def node() -> str:
    """Return the path of Node.js, where the npm package ws is installed too."""
    return node_with("ws")


def node_with(package: str) -> str:
    """Return the path of Node.js, where a npm package is installed too."""
    program = shutil.which("node")
    if program is None:
        missing("Node.js is not installed")
    if not (HERE / "node_modules" / package / "package.json").is_file():
        missing(f"the npm package {package} is not installed")
    return program
