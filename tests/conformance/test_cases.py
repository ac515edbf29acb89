from __future__ import annotations

import pytest

from tests.conformance.cases import UnknownCases, in_running_order, select

# The shape of the suite in 25.10.1, abridged.
KNOWN = [
    *("1.1.1", "1.1.2", "2.9", "2.10", "7.13.2", "9.1.1", "9.8.6", "10.1.1"),
    *(f"12.{content}.{size}" for content in range(1, 6) for size in range(1, 19)),
    *(f"13.{parameters}.{size}" for parameters in range(1, 8) for size in range(1, 19)),
]


def test_core_is_everything_but_limits_and_compression() -> None:
    assert select(KNOWN, ["core"]) == ["1.1.1", "1.1.2", "2.9", "2.10", "7.13.2", "10.1.1"]


def test_limits_is_group_9() -> None:
    assert select(KNOWN, ["limits"]) == ["9.1.1", "9.8.6"]


def test_short_adds_the_compression_cases_up_to_8_kib() -> None:
    short = select(KNOWN, ["short"])
    compression = set(short) - set(select(KNOWN, ["core", "limits"]))
    assert len(compression) == 84
    assert {int(case.split(".")[2]) for case in compression} == {1, 2, 3, 4, 5, 6, 11}


def test_all_is_every_case_once_whatever_else_is_named() -> None:
    assert sorted(select(KNOWN, ["all", "core", "9"])) == sorted(KNOWN)


def test_a_group_names_its_cases_and_not_those_whose_number_starts_alike() -> None:
    assert select(KNOWN, ["1"]) == ["1.1.1", "1.1.2"]
    assert len(select(KNOWN, ["12.1"])) == 18


def test_an_id_names_one_case() -> None:
    assert select(KNOWN, ["12.1.1"]) == ["12.1.1"]


def test_a_pattern_matches_the_whole_id() -> None:
    assert select(KNOWN, ["12.*.1"]) == ["12.1.1", "12.2.1", "12.3.1", "12.4.1", "12.5.1"]


def test_cases_are_sorted_by_number() -> None:
    assert select(KNOWN, ["2.10", "10", "2.9"]) == ["2.9", "2.10", "10.1.1"]


@pytest.mark.parametrize("pattern", ["8", "1.1.3", "12.1.*.1", "cores", ""])
def test_a_pattern_that_names_nothing_is_an_error(pattern: str) -> None:
    with pytest.raises(UnknownCases, match="no case matches"):
        select(KNOWN, ["core", pattern])


def test_the_core_runs_first_and_then_the_longest_cases() -> None:
    order = in_running_order(["12.1.1", "9.1.1", "12.1.18", "13.2.18", "1.1.2", "13.1.2", "1.1.1"])
    assert order == ["1.1.1", "1.1.2", "12.1.18", "13.2.18", "13.1.2", "12.1.1", "9.1.1"]
