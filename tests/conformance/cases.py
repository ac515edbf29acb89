"""Which cases to run, and in which order. Pure: ids in, ids out.

A case id is numbers with dots, `12.3.11`; its first number is its group. Groups 1 to 7 and 10 are about the
protocol, 9 sends large and finely chopped messages, 12 and 13 are permessage-deflate: each of their cases is
1,000 echoes, at 18 message sizes, for 12 combinations of content and parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

__all__ = ["SETS", "UnknownCases", "in_running_order", "number", "group", "select"]

LIMITS = "9"
COMPRESSION = frozenset({"12", "13"})

# The last number of a compression case chooses the message size: 16, 64, 256, 1,024, 4,096 and 8,192 bytes
# in one frame each, and 8,192 in fragments of 256. What follows are the same tests with up to 128 KiB: they
# take nine tenths of a full run.
SHORT_SIZES = frozenset({1, 2, 3, 4, 5, 6, 11})


class UnknownCases(ValueError):
    """A wanted pattern that matches no case of the suite."""


def number(case: str) -> tuple[int, ...]:
    """Return what case ids are sorted by: `2.10` comes after `2.9`."""
    return tuple(int(part) for part in case.split("."))


def group(case: str) -> str:
    """Return the group of a case: `12` for `12.3.11`."""
    return case.partition(".")[0]


def _is_core(case: str) -> bool:
    return group(case) != LIMITS and group(case) not in COMPRESSION


def _is_limits(case: str) -> bool:
    return group(case) == LIMITS


def _is_short(case: str) -> bool:
    return group(case) not in COMPRESSION or number(case)[-1] in SHORT_SIZES


def _is_any(case: str) -> bool:
    return True


SETS = {"core": _is_core, "limits": _is_limits, "short": _is_short, "all": _is_any}


def _matches(case: str, pattern: str) -> bool:
    if pattern in SETS:
        return SETS[pattern](case)
    return case == pattern or case.startswith(pattern + ".") or fnmatchcase(case, pattern)


def select(known: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Return the cases that any of the patterns names, sorted.

    Args:
        known: every case id of the suite.
        patterns: names in `SETS`, case ids (`12.3.11`), groups (`9`, `12.3`) or shell patterns (`12.*.1`).

    Raises:
        UnknownCases: a pattern names no case at all.
    """
    known = list(known)
    wanted: set[str] = set()
    for pattern in patterns:
        found = {case for case in known if _matches(case, pattern)}
        if not found:
            sets = ", ".join(SETS)
            raise UnknownCases(
                f"no case matches {pattern!r}; use {sets}, an id, a group or a pattern like 12.*.1"
            )
        wanted |= found
    return sorted(wanted, key=number)


def in_running_order(cases: Iterable[str]) -> list[str]:
    """Return the cases in the order that ends soonest on several clients.

    The core comes first: it takes seconds, it says most, and its deadlines (mostly 1 s) are the tightest, so
    no heavy case should run beside it. Then the longest cases come before the shorter ones, so that no client
    is left alone with a long one at the end.
    """
    return sorted(cases, key=lambda case: (not _is_core(case), -_weight(case), number(case)))


def _weight(case: str) -> int:
    if group(case) in COMPRESSION:
        return number(case)[-1]
    return 0
