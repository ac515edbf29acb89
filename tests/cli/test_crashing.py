"""What `wsframework run` does when a lifespan crashes: a record, and an exit code of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Write
from tests.cli.here import run_here, serve_here
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
    when: str, write: Write
) -> None:
    write("dies.py", ECHO + CRASHES[when])
    code, _, err = run_here("run", "dies:app", "--port", "0", "--log-format", "json")
    assert code == 1
    errors = err.splitlines()
    crashed = json.loads(errors[-1])
    assert (crashed["level"], crashed["event"]) == ("error", "server.crashed")
    assert crashed["error"] == "OSError('no database')"
    assert "dies.py" in crashed["traceback"]
    assert crashed["traceback"].endswith("OSError: no database")
    assert sum("Traceback" in line for line in errors) == 1


def test_so_it_is_in_a_process_of_its_own(write: Write, tmp_path: Path) -> None:
    write("dies.py", ECHO + CRASHES["in a task"])
    with serving("dies:app", "--log-format", "json", cwd=tmp_path) as server:
        assert server.wait() == 1
    assert json.loads(server.errors[-1])["event"] == "server.crashed"


def test_a_crash_is_an_indented_traceback_below_its_record_in_text(write: Write) -> None:
    write("dies.py", ECHO + CRASHES["in a task"])
    code, _, err = run_here("run", "dies:app", "--port", "0", "--log-level", "error")
    assert code == 1
    first, second, *_, last = err.splitlines()
    assert "error server.crashed error=\"OSError('no database')\"" in first
    assert second == "  Traceback (most recent call last):"
    assert last == "  OSError: no database"


def test_a_lifespan_may_choose_the_exit_code(write: Write) -> None:
    write("leaves.py", ECHO + "@app.lifespan\nasync def leave():\n    raise SystemExit(7)\n    yield\n")
    code, _, err = run_here("run", "leaves:app", "--port", "0")
    assert code == 7
    assert "server.crashed" not in err


def test_a_lifespan_that_crashes_at_the_end_is_a_record_too(write: Write) -> None:
    write("dies.py", ECHO + "@app.lifespan\nasync def die():\n    yield\n    raise OSError('no database')\n")
    code, _, err = serve_here("run", "dies:app", "--port", "0", "--log-format", "json", visit=str)
    assert code == 1
    assert json.loads(err.splitlines()[-1])["event"] == "server.crashed"
