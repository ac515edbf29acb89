"""docs/howto/reload.md: the command starts, and says so."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.cli.process import running
from tests.docs.following import exercises
from tests.docs.snippets import DOCS, commands
from tests.workers.processes import needs_proc


@needs_proc
@exercises("howto/reload.md", "wsframework run chat:app --reload")
def test_the_command_serves(tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    (command,) = commands(DOCS / "howto/reload.md")
    (tmp_path / "chat.py").write_text("from examples.chat_server import app\n")
    with running("-m", *shlex.split(command), "--port", "0", cwd=tmp_path) as program:
        program.wait_for("Listening on")
        assert program.stop() == 0
