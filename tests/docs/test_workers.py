"""docs/howto/workers.md: its command, and the events and signals that it names."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.cli.process import running
from tests.docs.following import exercises
from tests.docs.snippets import DOCS, ROOT, commands

PAGE = DOCS / "howto" / "workers.md"
TEXT = PAGE.read_text()


@exercises(
    "howto/workers.md",
    "wsframework run chat:app --workers 4",
    "wsframework run chat:app --workers 4 --max-age 3600",
)
@pytest.mark.parametrize("number", [0, 1])
def test_the_commands_start_workers(tmp_path: Path, number: int) -> None:
    (tmp_path / "chat.py").write_text("from examples.chat_server import app\n")
    command = commands(PAGE)[number].replace("--workers 4", "--workers 2")
    with running("-m", *shlex.split(command), "--port", "0", cwd=tmp_path) as program:
        program.wait_for("Listening on")
        assert program.stop() == 0
    assert sum("worker.ready" in line for line in program.errors) == 2


def test_the_page_names_every_event_and_no_other() -> None:
    folder = ROOT / "wsframework" / "workers"
    sources = "".join(file.read_text() for file in folder.glob("*.py"))
    logged = set(re.findall(r'"((?:worker|roll|parent)\.\w+)"', sources))
    assert set(re.findall(r"`((?:worker|roll|parent)\.\w+)`", TEXT)) == logged


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGTTIN", "SIGTTOU"])
def test_the_page_names_every_signal(name: str) -> None:
    assert name in (ROOT / "wsframework" / "workers" / "parent.py").read_text()
    assert name in TEXT.split("## Signals")[1]
