"""Who is present by key, coalesced: what is told, and what is no news."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest

from wsframework import PresenceChange
from wsframework.rooms.roster import Roster, merged

NOTHING = PresenceChange({}, {}, {}, False)


def change(
    entered: dict[str, Any] | None = None,
    left: dict[str, Any] | None = None,
    updated: dict[str, Any] | None = None,
) -> PresenceChange:
    return PresenceChange(entered or {}, left or {}, updated or {}, False)


class Stage:
    """A roster, and a clock."""

    def __init__(self, linger: float = 5.0) -> None:
        self.roster = Roster(linger)
        self.now = 100.0

    def enter(self, member: str, data: Any = None) -> None:
        self.roster.change({member: data}, (), self.now)

    def leave(self, *members: str) -> None:
        self.roster.change({}, members, self.now)

    def after(self, seconds: float) -> PresenceChange:
        self.now += seconds
        return self.roster.flush(self.now, stale=False)


def test_who_enters_and_leaves_is_told_by_key() -> None:
    stage = Stage()
    assert stage.roster.due == math.inf
    stage.enter("n/1/ada", "Ada")
    stage.enter("n/2")
    assert stage.roster.due == 100.05
    assert stage.after(0.05) == change({"ada": "Ada", "n/2": None})
    assert stage.roster.due == math.inf
    stage.leave("n/1/ada", "n/9")
    assert stage.roster.due == pytest.approx(105.05)
    assert stage.after(4.9) == NOTHING
    assert stage.after(0.2) == change(left={"ada": "Ada"})
    assert stage.roster.due == math.inf
    assert stage.roster.told == {"n/2": None}


def test_a_second_tab_is_no_news_nor_is_its_end() -> None:
    stage = Stage()
    stage.enter("n/1/ada", "first")
    stage.after(1)
    stage.enter("m/1/ada", "second")
    assert stage.after(1) == NOTHING
    stage.leave("m/1/ada")
    assert stage.after(10) == NOTHING
    stage.enter("m/2/ada", "third")
    stage.after(1)
    stage.leave("n/1/ada")
    assert stage.after(10) == change(updated={"ada": "third"})


def test_new_data_are_told_if_they_are_of_the_oldest_tab_and_differ() -> None:
    stage = Stage()
    stage.enter("n/1/ada", "a")
    stage.enter("n/2/ada", "b")
    assert stage.after(1) == change({"ada": "a"})
    stage.enter("n/2/ada", "c")
    assert stage.after(1) == NOTHING
    stage.enter("n/1/ada", "x")
    stage.enter("n/1/ada", "a")
    assert stage.after(1) == NOTHING
    stage.enter("n/1/ada", "y")
    assert stage.after(1) == change(updated={"ada": "y"})


def test_who_comes_back_in_time_was_never_away() -> None:
    stage = Stage()
    stage.enter("n/1/ada", "Ada")
    stage.after(1)
    for number in range(10):
        stage.leave(f"n/{number + 1}/ada")
        assert stage.after(4.9) == NOTHING
        stage.enter(f"n/{number + 2}/ada", "Ada")
        assert stage.after(0.05) == NOTHING
    stage.leave("n/11/ada")
    stage.after(4)
    stage.enter("n/12/ada", "Ada, new")
    assert stage.after(2) == change(updated={"ada": "Ada, new"})


def test_who_comes_and_goes_between_two_looks_is_no_news() -> None:
    stage = Stage()
    for number in range(1000):
        stage.enter(f"n/{number}/{number}")
        stage.leave(f"n/{number}/{number}")
    assert stage.roster.due == math.inf
    assert stage.after(10) == NOTHING
    assert (
        vars(stage.roster)["_touched"] == vars(stage.roster)["_away"] == vars(stage.roster)["_people"] == {}
    )


def test_without_lingering_a_leave_is_told_at_once() -> None:
    stage = Stage(linger=0)
    stage.enter("n/1/ada")
    stage.after(1)
    stage.leave("n/1/ada")
    assert stage.roster.due == stage.now
    assert stage.after(0) == change(left={"ada": None})


def test_all_members_anew_are_compared_with_what_was_told() -> None:
    stage = Stage()
    for member in ("n/1/ada", "n/2/bob", "n/3/eve"):
        stage.enter(member, 1)
    stage.after(1)
    members = {"m/1/bob": 1, "n/3/eve": 2, "m/2/kim": 3}
    stage.roster.reset(members, stage.now)
    assert stage.after(0.05) == change({"kim": 3}, updated={"eve": 2})
    stage.roster.reset(members, stage.now)
    assert stage.roster.due == pytest.approx(106.0)
    assert stage.after(5) == change(left={"ada": 1})
    stage.roster.reset({}, stage.now)
    stage.roster.reset(members, stage.now + 1)
    assert stage.after(10) == NOTHING


def apply(state: dict[str, Any], news: PresenceChange) -> dict[str, Any]:
    state = dict(state)
    for key in news.left:
        del state[key]
    for key, data in news.entered.items():
        assert key not in state
        state[key] = data
    for key, data in news.updated.items():
        assert key in state
        state[key] = data
    return state


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_the_changes_lead_to_who_is_present(seed: int) -> None:
    rng = random.Random(seed)
    stage = Stage(linger=rng.choice([0.0, 1.0, 5.0]))
    present: dict[str, Any] = {}
    quick: dict[str, Any] = {}
    slow: dict[str, Any] = {}
    pending = NOTHING
    numbers = itertools.count()
    for _ in range(300):
        action = rng.random()
        if action < 0.45:
            member = f"n/{next(numbers)}/{rng.choice('abcdef')}"
            present[member] = data = rng.randrange(3)
            stage.enter(member, data)
        elif action < 0.55 and present:
            member = rng.choice(list(present))
            present[member] = data = rng.randrange(3)
            stage.enter(member, data)
        elif action < 0.95 and present:
            member = rng.choice(list(present))
            del present[member]
            stage.leave(member)
        else:
            stage.roster.reset(present, stage.now)
        if rng.random() < 0.3:
            news = stage.after(rng.uniform(0, 3))
            quick = apply(quick, news)
            pending = merged(pending, news)
            if rng.random() < 0.2:
                slow, pending = apply(slow, pending), NOTHING
                assert slow == quick
    quick = apply(quick, news := stage.after(100))
    slow = apply(slow, merged(pending, news))
    expected: dict[str, Any] = {}
    for member, data in present.items():
        expected.setdefault(member.split("/")[2], data)
    assert quick == slow == expected == stage.roster.told
    assert stage.roster.due == math.inf


def test_two_changes_become_one() -> None:
    assert merged(change({"a": 1}), change(left={"a": 1})).is_empty
    assert merged(change({"a": 1}), change(updated={"a": 2})) == change({"a": 2})
    assert merged(change(left={"a": 1}), change({"a": 2})) == change(updated={"a": 2})
    assert merged(change(updated={"a": 1}), change(left={"a": 1})) == change(left={"a": 1})
    assert merged(NOTHING, PresenceChange({}, {}, {}, True)).stale
