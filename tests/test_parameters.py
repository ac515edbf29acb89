"""Parameters of queries and forms."""

from __future__ import annotations

import pytest

from wsframework.parameters import Parameters


def test_the_last_value_of_a_name_counts_and_all_can_be_had() -> None:
    parameters = Parameters.parse("a=1&b=%C3%BC+x&a=2&c&=d&a=")
    assert dict(parameters) == {"a": "", "b": "ü x", "c": "", "": "d"}
    assert parameters.get_all("a") == ["1", "2", ""]
    assert parameters.get_all("z") == []
    assert parameters.pairs()[:2] == (("a", "1"), ("b", "ü x"))
    assert (parameters["a"], parameters.get("z"), len(parameters), list(parameters)) == (
        *("", None, 4, ["a", "b", "c", ""]),
    )
    assert "b" in parameters
    assert parameters == {"a": "", "b": "ü x", "c": "", "": "d"}


def test_too_many_are_an_error_where_there_is_a_limit() -> None:
    assert len(Parameters.parse("&".join(f"{number}=x" for number in range(10)), most=10)) == 10
    with pytest.raises(ValueError, match="fields"):
        Parameters.parse("a&" * 11, most=10)


def test_its_representation_shows_what_there_is() -> None:
    assert repr(Parameters.parse("a=1&a=2")) == "Parameters([('a', '1'), ('a', '2')])"
