from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conformance import __main__ as program
from tests.conformance.fake_suite import FakeSuite
from tests.conformance.install import InstallError, Suite


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    suite = FakeSuite("25", {"1": "Framing"}, ("1.1", "1.2", "3.1", "9.1.1"))
    monkeypatch.setattr(program, "ensure_suite", lambda: suite)
    return tmp_path / "reports"


def run(reports: Path, *arguments: str) -> int:
    return program.main(["--port", "1", "--reports", str(reports), *arguments])


def test_a_clean_run_exits_with_0_and_prints_the_table(
    reports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(reports, "--cases", "1") == 0
    shown = capsys.readouterr()
    assert "1 Framing" in shown.out
    assert "conformant: 2 of 2 cases ran" in shown.out
    assert "2/2 cases, 0 not accepted" in shown.err


def test_a_failed_case_is_shown_when_it_happens_and_makes_the_exit_status_1(
    reports: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(reports, "--cases", "core", "--json", str(reports.parent / "report.json")) == 1
    shown = capsys.readouterr()
    assert "3.1      FAILED: why" in shown.err
    assert "3.1      FAILED: why" in shown.out
    assert json.loads((reports.parent / "report.json").read_text())["not_accepted"] == {"3.1": "FAILED: why"}


def test_an_unknown_case_is_a_usage_error(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(reports, "--cases", "core", "8.1") == 2
    assert "no case matches '8.1'" in capsys.readouterr().err


def test_a_suite_that_cannot_be_installed_is_one_line_on_stderr(
    reports: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Suite:
        raise InstallError("no Python 2.7 found")

    monkeypatch.setattr(program, "ensure_suite", refuse)
    assert run(reports) == 2
    assert capsys.readouterr().err == "conformance: no Python 2.7 found\n"


def test_what_an_earlier_run_left_goes_and_other_files_stay(reports: Path) -> None:
    reports.mkdir()
    for name in ("client-9.log", "server_9_case_1_1.html", "thesis.log"):
        (reports / name).touch()
    run(reports, "--cases", "1", "--clients", "1")
    assert sorted(path.name for path in reports.iterdir()) == ["client-1.log", "thesis.log"]
