"""Who is present in a room by key, and how that changes, for those who watch it.

Theory of operation
-------------------
Members with one key, such as the tabs of one user, are one *person* here. A `Roster` follows the members as
they come and go, and remembers what it has told. `flush` returns the difference, so what happens between two
of them is coalesced: a person that came and left is no news.

A person whose last member has left counts as *away* for `linger` seconds. Only then it has left. One that
comes back before, because a page was loaded again, a connection was resumed or a process was replaced, is no
news.

All work is in proportion to what changes, not to how many are present; only `reset` compares everything.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import attrs

from wsframework.rooms.keys import key_of

__all__ = ["COALESCE_SECONDS", "PresenceChange", "Roster", "merged"]

COALESCE_SECONDS = 0.05
"""How long the first of several changes waits for more."""


@attrs.frozen
class PresenceChange:
    """How those who are present in a room have changed, from `room.watch()`.

    The mappings have the data of members by their keys (`room.join(ws, data, key=…)`). A member without a key
    has its id as the key. Of several members with one key, the data are those of the oldest one.

    Attributes:
        entered: who is new.
        left: who has left, with their last data.
        updated: whose data have changed, with the new data.
        stale: whether this may be out of date, because the engine has lost its broker.
    """

    entered: Mapping[str, Any]
    left: Mapping[str, Any]
    updated: Mapping[str, Any]
    stale: bool

    @property
    def is_empty(self) -> bool:
        """Whether nobody has entered, left or been updated."""
        return not (self.entered or self.left or self.updated)


def merged(earlier: PresenceChange, later: PresenceChange) -> PresenceChange:
    """Return two changes as one, for a watcher that takes its time.

    It has at most the people who were present before and those who are now.
    """
    entered, left, updated = dict(earlier.entered), dict(earlier.left), dict(earlier.updated)
    for key, data in later.left.items():
        updated.pop(key, None)
        if key in entered:
            del entered[key]
        else:
            left[key] = data
    for key, data in later.entered.items():
        if key in left:
            del left[key]
            updated[key] = data
        else:
            entered[key] = data
    for key, data in later.updated.items():
        (entered if key in entered else updated)[key] = data
    return PresenceChange(entered, left, updated, later.stale)


class Roster:
    """The people of one room.

    Args:
        linger: for how many seconds a person is away before it has left.

    Attributes:
        told: data by key, as of the last `flush`.
    """

    def __init__(self, linger: float) -> None:
        self._linger = linger
        self.told: dict[str, Any] = {}
        # The members of each person, the oldest one first.
        self._people: dict[str, dict[str, Any]] = {}
        # People who are present and may be news.
        self._touched: dict[str, None] = {}
        self._touched_at = math.inf
        # When people went away who were told; the first one first.
        self._away: dict[str, float] = {}

    @property
    def due(self) -> float:
        """When `flush` will have news; infinity if there is none."""
        due = self._touched_at + COALESCE_SECONDS
        return min(due, next(iter(self._away.values())) + self._linger) if self._away else due

    def reset(self, members: Mapping[str, Any], now: float) -> None:
        """Take all members anew.

        Args:
            members: their data by their ids, in the order in which they entered.
            now: seconds.
        """
        before, self._people = self._people, {}
        for member, data in members.items():
            self._people.setdefault(key_of(member), {})[member] = data
        for key in before.keys() - self._people.keys():
            self._went_away(key, now)
        for key, group in self._people.items():
            if before.get(key) != group:
                self._touch(key, now)

    def change(self, entered: Mapping[str, Any], left: Collection[str], now: float) -> None:
        """Take members that entered or have new data, and those that left."""
        for member, data in entered.items():
            key = key_of(member)
            self._people.setdefault(key, {})[member] = data
            self._touch(key, now)
        for member in left:
            key = key_of(member)
            group = self._people.get(key, {})
            if member not in group:
                continue
            del group[member]
            if group:
                self._touch(key, now)
            else:
                del self._people[key]
                self._went_away(key, now)

    def _touch(self, key: str, now: float) -> None:
        self._away.pop(key, None)
        self._touched[key] = None
        self._touched_at = min(self._touched_at, now)

    def _went_away(self, key: str, now: float) -> None:
        self._touched.pop(key, None)
        if not self._touched:
            self._touched_at = math.inf
        if key in self.told:
            self._away[key] = now

    def flush(self, now: float, *, stale: bool) -> PresenceChange:
        """Return what has changed since the last time.

        Args:
            now: seconds.
            stale: for the result.
        """
        entered: dict[str, Any] = {}
        updated: dict[str, Any] = {}
        left: dict[str, Any] = {}
        for key in self._touched:
            data = next(iter(self._people[key].values()))
            if key not in self.told:
                entered[key] = self.told[key] = data
            elif self.told[key] != data:
                updated[key] = self.told[key] = data
        self._touched.clear()
        self._touched_at = math.inf
        while self._away:
            key, away_at = next(iter(self._away.items()))
            if away_at + self._linger > now:
                break
            del self._away[key]
            left[key] = self.told.pop(key)
        return PresenceChange(entered, left, updated, stale)
