"""The matcher of templates against what it must agree with: a regular expression's greedy groups."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wsframework.matching import KINDS, Matcher, Path

Pieces = list[tuple[str, str]]

PATTERNS = {
    "str": r"[^/]+",
    "int": r"-?[0-9]+",
    "float": r"-?[0-9]+(?:\.[0-9]+)?",
    "uuid": r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "path": r".*",
}
UUID = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"

literals = st.sampled_from(["/", "-", ".", "1", "a", "/a", "-1", ".5", "ab", "--", "0"]).map(
    lambda text: ("", text)
)
parameters = st.sampled_from(KINDS).map(lambda kind: (kind, ""))
scraps = st.text("/-.01a", min_size=1, max_size=5) | st.sampled_from(["1", "-1", "1.5", "12.34", "a/b", UUID])


@st.composite
def templates_and_paths(draw: st.DrawFn) -> tuple[Pieces, str]:
    """A template, and a path that often fits it."""
    pieces = [("", "/"), *draw(st.lists(literals | parameters, min_size=1, max_size=7))]
    path = "".join(literal or (UUID if kind == "uuid" else draw(scraps)) for kind, literal in pieces)
    if draw(st.booleans()):
        at = draw(st.integers(0, len(path) - 1))
        path = path[:at] + draw(st.sampled_from(["", *"/-.01a"])) + path[at + 1 :]
    return pieces, path


def by_regex(pieces: Pieces, path: str) -> tuple[str, ...] | None:
    pattern = "".join(f"({PATTERNS[kind]})" if kind else re.escape(literal) for kind, literal in pieces)
    found = re.fullmatch(pattern, path)
    return None if found is None else found.groups()


@settings(max_examples=1500, deadline=None)
@given(case=templates_and_paths())
@example(case=([("", "/"), ("str", ""), ("", "-"), ("str", "")], "/a-b-c"))
@example(case=([("", "/"), ("int", ""), ("int", "")], "/-1-1"))
@example(case=([("", "/"), ("float", ""), ("", ".5")], "/1.5"))
@example(case=([("", "/"), ("float", ""), ("int", "")], "/1.5"))
@example(case=([("", "/"), ("path", ""), ("", "/x/"), ("path", "")], "/a/x/x/b"))
@example(case=([("", "/"), ("uuid", ""), ("uuid", "")], f"/{UUID}{UUID}"))
def test_a_template_splits_a_path_as_a_regular_expression_does(case: tuple[Pieces, str]) -> None:
    pieces, path = case
    assert Matcher(pieces).match(Path(path)) == by_regex(pieces, path)


def test_a_path_is_examined_once_for_all_templates() -> None:
    path = Path("/a-b")
    assert Matcher([("", "/"), ("str", ""), ("", "-"), ("str", "")]).match(path) == ("a", "b")
    assert Matcher([("", "/"), ("path", ""), ("", "-"), ("str", "")]).match(path) == ("a", "b")
    assert Matcher([("", "/x"), ("str", ""), ("str", "")]).match(path) is None


@pytest.mark.parametrize("size", [100, 16_000])
def test_every_position_of_a_long_path_is_seen(size: int) -> None:
    pieces = [("", "/"), ("str", ""), ("", "-"), ("str", ""), ("", "-"), ("str", "")]
    assert Matcher(pieces).match(Path("/" + "-" * size)) == ("-" * (size - 4), "-", "-")
    assert Matcher(pieces).match(Path("/" + "-" * size + "/")) is None
    assert Matcher(pieces).match(Path("/a-b-" + "c" * size)) == ("a", "b", "c" * size)
