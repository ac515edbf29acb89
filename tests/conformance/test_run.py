"""The runner with a fuzzing client and a server that are made up: no Python 2.7 needed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.conformance import run
from tests.conformance.fake_suite import FakeSuite
from tests.conformance.report import Result
from tests.conformance.run import Job, ServerError, conformance


def job(reports: Path, *cases: str, clients: int = 1, server: str | int = 1) -> Job:
    return Job(FakeSuite("0", {}, cases), cases, reports, server, clients)


def ignore(result: Result) -> None:
    pass


async def test_clients_share_the_cases_and_each_is_run_once(tmp_path: Path) -> None:
    cases = [f"1.{n}" for n in range(1, 30)]
    seen: list[str] = []
    report = await conformance(job(tmp_path, *cases, clients=3), lambda result: seen.append(result.case))
    assert report.exit_status == 0
    assert sorted(seen) == sorted(cases)
    assert {path.name for path in os.scandir(tmp_path)} == {f"client-{n}.log" for n in (1, 2, 3)}


async def test_a_client_that_dies_loses_its_case_and_no_other(tmp_path: Path) -> None:
    cases = ["1.1", "6.6.6", *(f"2.{n}" for n in range(1, 20))]
    report = await conformance(job(tmp_path, *cases, clients=2), ignore)
    assert report.missing == ["6.6.6"]
    assert report.exit_status == 2
    assert "ended during case 6.6.6: the server is gone" in report.notes[0]


async def test_cases_that_no_client_is_left_for_are_missing(tmp_path: Path) -> None:
    report = await conformance(job(tmp_path, "1.1", "6.6.6", "2.1", "2.2"), ignore)
    assert report.missing == ["2.1", "2.2", "6.6.6"]


async def test_a_case_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "CASE_SECONDS", 0.5)
    report = await conformance(job(tmp_path, "1.1", "7.7.7", "2.1", clients=2), ignore)
    assert report.missing == ["7.7.7"]
    assert "gave up on case 7.7.7" in report.notes[0]


async def test_a_run_that_is_told_to_stop_reports_what_it_knows(tmp_path: Path) -> None:
    def stop(result: Result) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    report = await conformance(job(tmp_path, "1.1", "7.7.7"), stop)
    assert report.missing == ["7.7.7"]
    assert report.notes == ("stopped by SIGTERM",)


async def test_a_server_that_prints_no_port_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="instead of its port"):
        await conformance(job(tmp_path, "1.1", server="tests.conformance.cases"), ignore)


async def test_every_client_has_a_server_and_all_are_stopped(tmp_path: Path) -> None:
    server = "tests.conformance.trio_websocket_server"
    report = await conformance(job(tmp_path, "1.1", "1.2", clients=2, server=server), ignore)
    assert report.exit_status == 0
    assert {"server-1.log", "server-2.log"} < {path.name for path in os.scandir(tmp_path)}
    assert report.notes == ()


async def test_a_server_that_ends_before_the_run_does_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "short_lived.py").write_text("import sys; print(1, flush=True); sys.exit('cannot go on')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    reports = tmp_path / "reports"
    reports.mkdir()
    cases = [f"1.{n}" for n in range(1, 30)]
    report = await conformance(job(reports, *cases, server="short_lived"), ignore)
    assert any("exited with 1 during the run" in note for note in report.notes)
    assert any("had something to say: cannot go on" in note for note in report.notes)
