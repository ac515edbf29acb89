"""The bounds of a room: what they are by default, and which may be set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from wsframework import History, SlowPolicy

Kind = Callable[..., Any]

BOUNDS: dict[Kind, dict[str, float]] = {
    SlowPolicy: {"max_bytes": 1024 * 1024, "max_seconds": 10.0, "max_messages": 16_384},
    History: {"messages": 1000, "seconds": 300.0, "bytes": 1024 * 1024},
}
NAMES = [(kind, name) for kind, bounds in BOUNDS.items() for name in bounds]
each_bound = pytest.mark.parametrize(("kind", "name"), NAMES, ids=[name for _, name in NAMES])


@pytest.mark.parametrize("kind", BOUNDS)
def test_the_defaults_are_those_that_are_documented(kind: Kind) -> None:
    assert attrs.asdict(kind()).items() >= BOUNDS[kind].items()
    assert SlowPolicy().action == "close"


@each_bound
def test_a_bound_may_be_one(kind: Kind, name: str) -> None:
    assert getattr(kind(**{name: 1}), name) == 1


@each_bound
@pytest.mark.parametrize("value", [0, -1])
def test_a_bound_that_lets_nothing_through_is_refused(kind: Kind, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        kind(**{name: value})


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(ValueError, match="action"):
        SlowPolicy(action="wait")  # type: ignore[arg-type]
