"""What the suite said about each case, what that is worth, and the table. Pure: results in, text out.

The suite gives every case two words. `behavior` is about the messages: OK, NON-STRICT (allowed, but not in
the order or as early as it expects), INFORMATIONAL (the RFC leaves it open), UNIMPLEMENTED, FAILED.
`behaviorClose` is about the end of the connection: OK, INFORMATIONAL, WRONG CODE, UNCLEAN, FAILED BY CLIENT
(the server left TCP open and the client had to drop it), FAILED (the wrong side closed, or there was no
opening handshake).

We accept OK and INFORMATIONAL and nothing else; a word we do not know is not accepted either.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from textwrap import shorten
from typing import Any

import attrs

from tests.conformance.cases import group, number

__all__ = ["ContradictoryReport", "Report", "Result", "clock", "merge", "read_result"]

ACCEPTED = frozenset({"OK", "INFORMATIONAL"})

COLUMNS: tuple[tuple[str, str, frozenset[str]], ...] = (
    # heading, field of Result, the suite's words counted under it
    ("OK", "behavior", frozenset({"OK"})),
    ("NON-STRICT", "behavior", frozenset({"NON-STRICT"})),
    ("INFORMATIONAL", "behavior", frozenset({"INFORMATIONAL"})),
    ("UNIMPLEMENTED", "behavior", frozenset({"UNIMPLEMENTED"})),
    ("FAILED", "behavior", frozenset({"FAILED"})),
    ("unclean", "close", frozenset({"UNCLEAN", "FAILED BY CLIENT", "FAILED"})),
    ("wrong code", "close", frozenset({"WRONG CODE"})),
)

# Characters of received and of expected events to show; the suite's page has all of them.
EVENTS_LENGTH = 120

# Ids of cases that did not run to show; the JSON report has all of them.
MISSING_SHOWN = 20


class ContradictoryReport(ValueError):
    """Results that cannot belong to one run: a case twice, or one that nobody asked for."""


@attrs.frozen
class Result:
    """The suite's verdict on one case.

    Attributes:
        case: its id.
        behavior: the suite's word for the messages.
        close: the suite's word for the end of the connection.
        close_code: the code in the server's Close frame, or None if it sent none.
        seconds: from the opening handshake's end to the connection's, or None without a handshake.
        explanation: the suite's sentence about the messages.
        close_explanation: the suite's sentence about the close.
    """

    case: str
    behavior: str
    close: str
    close_code: int | None = None
    seconds: float | None = None
    explanation: str = ""
    close_explanation: str = ""

    @property
    def accepted(self) -> bool:
        """Whether both words are ones we accept."""
        return self.behavior in ACCEPTED and self.close in ACCEPTED

    @property
    def verdict(self) -> str:
        """One line that says what is not accepted and why, or "OK"."""
        faults = []
        if self.behavior not in ACCEPTED:
            faults.append(f"{self.behavior}: {self.explanation}")
        if self.close not in ACCEPTED:
            faults.append(f"close {self.close} (code {self.close_code}): {self.close_explanation}")
        return "; ".join(faults) or "OK"


def clock(seconds: float) -> str:
    """Write a duration as minutes and seconds: `1:05`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def read_result(line: str | bytes) -> Result:
    """Read one line of the fuzzing client."""
    raw: dict[str, Any] = json.loads(line)
    # Without an opening handshake the suite counts from 1970.
    milliseconds = raw["duration"] if raw["duration"] < 1e11 else None
    return Result(
        case=raw["id"],
        behavior=raw["behavior"],
        close=raw["behaviorClose"],
        close_code=raw["remoteCloseCode"],
        seconds=None if milliseconds is None else milliseconds / 1000,
        explanation=_explanation(raw),
        close_explanation=raw["resultClose"],
    )


def _explanation(raw: Mapping[str, Any]) -> str:
    # "Actual events match at least one expected" tells a reader of NON-STRICT nothing; the events do.
    sentence: str = raw["result"]
    received, strict = raw["received"], raw["expected"].get("OK")
    if raw["behavior"] in ACCEPTED or strict is None or strict == received:
        return sentence
    return f"{sentence} Received {_events(received)}; OK would be {_events(strict)}."


def _events(events: Sequence[Sequence[Any]]) -> str:
    shown = [" ".join(str(part) for part in event if not isinstance(part, bool)) for event in events]
    return shorten(", ".join(shown), EVENTS_LENGTH) or "nothing"


@attrs.frozen
class Report:
    """The outcome of a run.

    Attributes:
        wanted: the cases asked for, sorted.
        results: the cases that ran, by id.
        seconds: the run's wall-clock time.
        notes: what went wrong with the run itself (a client or a server that died).
    """

    wanted: tuple[str, ...]
    results: Mapping[str, Result]
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """The cases that were asked for and did not run."""
        return [case for case in self.wanted if case not in self.results]

    @property
    def not_accepted(self) -> list[Result]:
        """The results we do not accept, sorted."""
        return [
            self.results[case]
            for case in self.wanted
            if case in self.results and not self.results[case].accepted
        ]

    @property
    def exit_status(self) -> int:
        """0: all ran and is accepted; 1: all ran and some is not accepted; 2: some did not run."""
        if self.missing or not self.wanted:
            return 2
        return 1 if self.not_accepted else 0

    def counts(self, cases: Iterable[str] | None = None) -> dict[str, int]:
        """Count the results of some cases (None: of all) by `COLUMNS`' headings."""
        results = [
            self.results[case] for case in (self.wanted if cases is None else cases) if case in self.results
        ]
        return {
            heading: sum(getattr(result, field) in words for result in results)
            for heading, field, words in COLUMNS
        }

    def table(self, group_names: Mapping[str, str]) -> str:
        """Return the table by group, what is not accepted, and a closing line."""
        rows = [["", "cases", *(heading for heading, _, _ in COLUMNS), "missing", "seconds"]]
        for name in sorted(Counter(map(group, self.wanted)), key=int):
            cases = [case for case in self.wanted if group(case) == name]
            title = group_names.get(name, "").replace("WebSocket ", "")
            rows.append(self._row(f"{name} {title}".strip(), cases))
        rows.append(self._row("all", self.wanted))
        lines = _aligned(rows)
        if self.not_accepted:
            lines += ["", "not accepted:"]
            lines += [f"  {result.case:<8} {result.verdict}" for result in self.not_accepted]
        if self.missing:
            more = (
                f" and {len(self.missing) - MISSING_SHOWN} more" if len(self.missing) > MISSING_SHOWN else ""
            )
            lines += ["", "did not run: " + " ".join(self.missing[:MISSING_SHOWN]) + more]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, "", self._conclusion()])

    def _row(self, title: str, cases: Sequence[str]) -> list[str]:
        ran = [self.results[case] for case in cases if case in self.results]
        spent = sum(result.seconds or 0 for result in ran)
        counts = [str(count) if count else "." for count in self.counts(cases).values()]
        return [title, str(len(cases)), *counts, str(len(cases) - len(ran) or "."), f"{spent:.1f}"]

    def _conclusion(self) -> str:
        ran = len(self.wanted) - len(self.missing)
        word = {0: "conformant", 1: "NOT CONFORMANT", 2: "INCOMPLETE"}[self.exit_status]
        counts = f"{ran} of {len(self.wanted)} cases ran in {clock(self.seconds)}"
        return f"{word}: {counts}, {len(self.not_accepted)} not accepted"

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return {
            "wanted": len(self.wanted),
            "seconds": round(self.seconds, 1),
            "exit_status": self.exit_status,
            "counts": self.counts(),
            "missing": self.missing,
            "not_accepted": {result.case: result.verdict for result in self.not_accepted},
            "notes": list(self.notes),
            "cases": {case: attrs.asdict(self.results[case]) for case in sorted(self.results, key=number)},
        }


def merge(
    wanted: Sequence[str], parts: Iterable[Iterable[Result]], *, seconds: float, notes: Iterable[str] = ()
) -> Report:
    """Put the results of several clients together.

    Raises:
        ContradictoryReport: a case was reported twice or was never asked for.
    """
    results: dict[str, Result] = {}
    for part in parts:
        for result in part:
            if result.case in results:
                raise ContradictoryReport(f"case {result.case} was reported twice")
            results[result.case] = result
    if strangers := results.keys() - set(wanted):
        raise ContradictoryReport(f"results nobody asked for: {' '.join(sorted(strangers, key=number))}")
    return Report(tuple(sorted(wanted, key=number)), results, seconds, tuple(notes))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
