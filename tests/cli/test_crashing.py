"""What `wsframework run` does when a lifespan crashes: a record, and an exit code of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Write
from tests.cli.process import serving
from tests.cli.test_run import ECHO

CRASHES = {
    "before it listens": "@app.lifespan\nasync def die():\n    raise OSError('no database')\n    yield\n",
    "in a task": (
        "import trio\n"
        "async def refresh():\n    raise OSError('no database')\n"
        "@app.lifespan\nasync def tasks():\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        nursery.start_soon(refresh)\n        yield\n"
    ),
}


@pytest.mark.parametrize("when", CRASHES)
def test_a_lifespan_that_crashes_is_a_record_with_the_traceback_and_exit_code_1(
    when: str, write: Write, tmp_path: Path
) -> None:
    write("dies.py", ECHO + CRASHES[when])
    with serving("dies:app", "--log-format", "json", cwd=tmp_path) as server:
        assert server.wait() == 1
    crashed = json.loads(server.errors[-1])
    assert (crashed["level"], crashed["event"]) == ("error", "server.crashed")
    assert crashed["error"] == "OSError('no database')"
    assert "dies.py" in crashed["traceback"]
    assert crashed["traceback"].endswith("OSError: no database")
    assert sum("Traceback" in line for line in server.errors) == 1


def test_a_crash_is_an_indented_traceback_below_its_record_in_text(write: Write, tmp_path: Path) -> None:
    write("dies.py", ECHO + CRASHES["in a task"])
    with serving("dies:app", "--log-level", "error", cwd=tmp_path) as server:
        assert server.wait() == 1
    assert "error server.crashed error=\"OSError('no database')\"" in server.errors[0]
    assert server.errors[1] == "  Traceback (most recent call last):"
    assert server.errors[-1] == "  OSError: no database"


def test_a_lifespan_may_choose_the_exit_code(write: Write, tmp_path: Path) -> None:
    write("leaves.py", ECHO + "@app.lifespan\nasync def leave():\n    raise SystemExit(7)\n    yield\n")
    with serving("leaves:app", cwd=tmp_path) as server:
        assert server.wait() == 7
    assert not any("server.crashed" in line for line in server.errors)


def test_a_lifespan_that_crashes_at_the_end_is_a_record_too(write: Write, tmp_path: Path) -> None:
    write("dies.py", ECHO + "@app.lifespan\nasync def die():\n    yield\n    raise OSError('no database')\n")
    with serving("dies:app", "--log-format", "json", cwd=tmp_path) as server:
        server.wait_for("Listening on")
        assert server.stop() == 1
    assert json.loads(server.errors[-1])["event"] == "server.crashed"
