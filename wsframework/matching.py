"""Where a path's parameters begin and end, in time that is linear in the path, whatever the template.

Theory of operation
-------------------
A template is a row of pieces: literal text and parameters. A parameter takes as much as it can and leaves the
pieces behind it what they need, as a regular expression's greedy groups do. But a regular expression finds
the split by trying: `/{a}-{b}-{c}` against a path of n dashes that does not fit costs n³ steps.

So `Matcher` first computes, from the last piece to the first, at which positions of the path the rest of the
template fits; then it walks from the first piece to the last and takes the farthest end from which the rest
fits. A set of positions is one int, a bit for each position, and all positions take a step at once: a literal
is a shift, and a parameter fills runs of its characters, for which an addition's carry does the walking (as
in Myers, "A fast bit-vector algorithm for approximate string matching", 1999). For a path of 16 KiB a step
takes a few microseconds.

Bits count from the path's end: bit b is the position `len(path) - b`, so the sets grow towards the left.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

__all__ = ["KINDS", "Matcher", "Path"]

_HEX = "0123456789abcdefABCDEF"
_DIGITS = "0123456789"

KINDS = ("str", "int", "float", "uuid", "path")
"""What a parameter may match: `[^/]+`, `-?[0-9]+`, `-?[0-9]+(\\.[0-9]+)?`, a UUID with hyphens, `.*`."""

_INT = re.compile(r"-?[0-9]++")
_FLOAT = re.compile(r"-?([0-9]++)(?:\.([0-9]++))?")


class Path:
    """A path that templates are tried on; what one of them computes about its characters, the others use."""

    __slots__ = ("_masks", "slashes", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.slashes = text.count("/")
        self._masks: dict[str, int] = {}

    def positions_of(self, characters: str) -> int:
        """Return where the path has one of `characters`."""
        mask = self._masks.get(characters)
        if mask is None:
            mask = self._masks[characters] = _bits(self.text, characters)
        return mask

    def positions_outside(self, characters: str) -> int:
        """Return where the path has none of `characters`; its end is no such position."""
        return self.positions_of(characters) ^ ((1 << (len(self.text) + 1)) - 2)


@functools.lru_cache(maxsize=256)
def _table(characters: str) -> dict[int, str]:
    return {code: "1" if chr(code) in characters else "0" for code in range(128)}


def _bits(text: str, characters: str) -> int:
    # int() reads bases that are powers of two in linear time, and without its limit of digits.
    return int(text.translate(_table(characters)) + "0", 2)


class Matcher:
    """The pieces of one template.

    Args:
        pieces: literal text as ("", text), a parameter as (kind, ""), from left to right.
    """

    __slots__ = ("_pieces",)

    def __init__(self, pieces: Sequence[tuple[str, str]]) -> None:
        self._pieces = tuple(pieces)

    def match(self, path: Path) -> tuple[str, ...] | None:
        """Return what each parameter takes of a path that is all ASCII, or None when it does not fit."""
        if not path.text.startswith(self._pieces[0][1]):
            return None
        rests = self._rests(path)
        text, size = path.text, len(path.text)
        if not rests[0] >> size & 1:
            return None
        taken: list[str] = []
        start = 0
        for (kind, literal), rest in zip(self._pieces, rests[1:], strict=True):
            if not kind:
                start += len(literal)
                continue
            for first, last in _ends(kind, text, start):
                # The farthest end in [first, last] from which the rest fits is the lowest bit.
                fitting = rest >> (size - last) & ((1 << (last - first + 1)) - 1)
                if fitting:
                    end = last - ((fitting & -fitting).bit_length() - 1)
                    break
            else:
                raise AssertionError("the rest fits from none of the ends, but it was found to fit")
            taken.append(text[start:end])
            start = end
        return tuple(taken)

    def _rests(self, path: Path) -> list[int]:
        """Return for each piece from which positions it and all behind it fit; the path's end is last."""
        rest = 1
        rests = [rest]
        for kind, literal in reversed(self._pieces):
            rest = _before_literal(path, literal, rest) if not kind else _before_parameter(path, kind, rest)
            rests.append(rest)
            if not rest:
                # Nothing in front of a piece that fits nowhere can fit.
                rests += [0] * (len(self._pieces) + 1 - len(rests))
                break
        rests.reverse()
        return rests


def _before_literal(path: Path, literal: str, rest: int) -> int:
    for character in reversed(literal):
        rest = (rest << 1) & path.positions_of(character)
        if not rest:
            break
    return rest


def _before_parameter(path: Path, kind: str, rest: int) -> int:
    match kind:
        case "str":
            return _fill(path.positions_outside("/"), rest << 1)
        case "path":
            return rest | _fill(path.positions_outside(""), rest << 1)
        case "int":
            digits = _fill(path.positions_of(_DIGITS), rest << 1)
        case "float":
            numerals = path.positions_of(_DIGITS)
            fraction = (_fill(numerals, rest << 1) << 1) & path.positions_of(".")
            digits = _fill(numerals, (rest | fraction) << 1)
        case _:
            return _before_uuid(path, rest)
    return digits | (digits << 1 & path.positions_of("-"))


def _before_uuid(path: Path, rest: int) -> int:
    for group in (12, 4, 4, 4, 8):
        for _ in range(group):
            rest = (rest << 1) & path.positions_of(_HEX)
        if group != 8:
            rest = (rest << 1) & path.positions_of("-")
        if not rest:
            break
    return rest


def _fill(runs: int, starts: int) -> int:
    """Return the bits of `runs` that a bit of `starts` in the same run reaches, going up."""
    starts &= runs
    # The carry runs through the ones above the lowest start: what it changed was reached, as are the starts.
    return (((starts + runs) ^ runs) | starts) & runs


def _ends(kind: str, text: str, start: int) -> tuple[tuple[int, int], ...]:
    """Return where a parameter that begins at `start` may end: ranges (first, last), the farthest first."""
    match kind:
        case "path":
            return ((start, len(text)),)
        case "str":
            slash = text.find("/", start)
            return ((start + 1, len(text) if slash < 0 else slash),)
        case "uuid":
            return ((start + 36, start + 36),)
        case "int":
            found = _INT.match(text, start)
            assert found is not None
            return ((start + (2 if text[start] == "-" else 1), found.end()),)
    found = _FLOAT.match(text, start)
    assert found is not None
    whole = (found.start(1) + 1, found.end(1))
    return (whole,) if found[2] is None else ((found.start(2) + 1, found.end(2)), whole)
