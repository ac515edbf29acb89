from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.report import ContradictoryReport, Report, Result, merge, read_result

OK = Result("1.1.1", "OK", "OK", 1000, 0.5)


def answer(**changes: Any) -> str:
    """Return a line as the fuzzing client writes it."""
    line = {
        "id": "3.2",
        "behavior": "OK",
        "behaviorClose": "OK",
        "remoteCloseCode": 1002,
        "duration": 250,
        "result": "Actual events match at least one expected.",
        "resultClose": "Connection was properly closed",
        "received": [["message", "Hello", False]],
        "expected": {"OK": [["message", "Hello", False]]},
    }
    return json.dumps({**line, **changes})


def report(*results: Result, wanted: tuple[str, ...] | None = None) -> Report:
    return merge(wanted or [result.case for result in results], [results], seconds=61)


def test_a_line_of_the_client_is_read() -> None:
    assert read_result(answer()) == Result(
        "3.2",
        "OK",
        "OK",
        1002,
        0.25,
        "Actual events match at least one expected.",
        "Connection was properly closed",
    )


def test_a_case_without_an_opening_handshake_has_no_duration() -> None:
    assert read_result(answer(duration=1_763_800_000_000)).seconds is None


def test_a_non_strict_result_says_what_came_and_what_should_have() -> None:
    result = read_result(answer(behavior="NON-STRICT", received=[]))
    assert result.verdict.endswith("Received nothing; OK would be message Hello.")


@pytest.mark.parametrize("behavior", ["OK", "INFORMATIONAL"])
@pytest.mark.parametrize("close", ["OK", "INFORMATIONAL"])
def test_ok_and_informational_are_accepted(behavior: str, close: str) -> None:
    judged = report(Result("1.1.1", behavior, close))
    assert judged.exit_status == 0
    assert judged.not_accepted == []


@pytest.mark.parametrize("behavior", ["NON-STRICT", "UNIMPLEMENTED", "FAILED", "A WORD OF A LATER RELEASE"])
def test_no_other_behavior_is_accepted(behavior: str) -> None:
    judged = report(OK, Result("1.1.2", behavior, "OK"))
    assert judged.exit_status == 1
    assert [result.case for result in judged.not_accepted] == ["1.1.2"]
    assert behavior in judged.table({})


@pytest.mark.parametrize("close", ["UNCLEAN", "WRONG CODE", "FAILED", "FAILED BY CLIENT", "NO_CLOSE"])
def test_no_other_close_is_accepted_though_the_messages_were_right(close: str) -> None:
    judged = report(OK, Result("7.1.1", "OK", close, 1006, close_explanation="The spec says otherwise"))
    assert judged.exit_status == 1
    assert f"close {close} (code 1006): The spec says otherwise" in judged.table({})


def test_a_missing_case_makes_the_run_incomplete_even_when_others_failed() -> None:
    judged = report(OK, Result("1.1.2", "FAILED", "OK"), wanted=("1.1.1", "1.1.2", "1.1.3"))
    assert judged.exit_status == 2
    assert judged.missing == ["1.1.3"]
    assert "did not run: 1.1.3" in judged.table({})


def test_a_run_of_nothing_is_incomplete() -> None:
    assert merge([], [], seconds=0).exit_status == 2


def test_the_results_of_several_clients_make_one_report() -> None:
    others = [Result("12.1.1", "FAILED", "OK"), Result("2.9", "OK", "UNCLEAN")]
    judged = merge(
        ["12.1.1", "1.1.1", "2.9", "2.10"], [[OK], [], others], seconds=1, notes=["client 2: died"]
    )
    assert judged.wanted == ("1.1.1", "2.9", "2.10", "12.1.1")
    assert [result.case for result in judged.not_accepted] == ["2.9", "12.1.1"]
    assert judged.missing == ["2.10"]
    assert "note: client 2: died" in judged.table({})


def test_a_case_that_two_clients_report_is_refused() -> None:
    with pytest.raises(ContradictoryReport, match=r"1\.1\.1 was reported twice"):
        merge(["1.1.1"], [[OK], [OK]], seconds=1)


def test_a_case_that_nobody_asked_for_is_refused() -> None:
    with pytest.raises(ContradictoryReport, match=r"nobody asked for: 1\.1\.1"):
        merge(["1.1.2"], [[OK]], seconds=1)


def test_every_case_is_counted_once_by_behavior_and_faults_of_the_close_beside_it() -> None:
    judged = report(
        OK,
        Result("1.1.2", "NON-STRICT", "OK"),
        Result("2.1", "INFORMATIONAL", "INFORMATIONAL"),
        Result("2.2", "UNIMPLEMENTED", "OK"),
        Result("2.3", "FAILED", "FAILED"),
        Result("2.4", "FAILED", "FAILED BY CLIENT"),
        Result("2.5", "OK", "UNCLEAN"),
        Result("2.6", "OK", "WRONG CODE"),
    )
    assert judged.counts() == {
        "OK": 3,
        "NON-STRICT": 1,
        "INFORMATIONAL": 1,
        "UNIMPLEMENTED": 1,
        "FAILED": 2,
        "unclean": 3,
        "wrong code": 1,
    }


def test_the_table_has_a_line_for_each_group_in_order_and_one_for_all() -> None:
    judged = report(OK, Result("10.1.1", "OK", "OK", 1000, 2.0), Result("2.1", "FAILED", "OK", 1000, 1.0))
    lines = judged.table({"1": "Framing", "2": "Pings/Pongs", "10": "Misc"}).splitlines()
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["1", "Framing", "1"],
        ["2", "Pings/Pongs", "1"],
        ["10", "Misc", "1"],
    ]
    assert lines[4].split() == ["all", "3", "2", ".", ".", ".", "1", ".", ".", ".", "3.5"]
    assert lines[-1] == "NOT CONFORMANT: 3 of 3 cases ran in 1:01, 1 not accepted"


def test_the_report_survives_json() -> None:
    judged = report(OK, Result("2.1", "FAILED", "OK", None, None, "why"), wanted=("1.1.1", "2.1", "2.2"))
    read = json.loads(json.dumps(judged.as_json()))
    assert read["exit_status"] == 2
    assert read["missing"] == ["2.2"]
    assert read["not_accepted"] == {"2.1": "FAILED: why"}
    assert read["cases"]["1.1.1"]["close_code"] == 1000
