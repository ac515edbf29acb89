"""Which implementation does the work that costs a connection most: masking, decoding and encoding.

For each of them there is one in pure Python, and there may be faster ones in compiled modules, which need not
be installed. The module of the work names them all, the fastest first, and takes what `choose` returns:

    masking     `masking.apply_mask`: `websockets`' compiled function (extra `speed`), or pure
    decoding    `decoder.decoder_class`: pure
    encoding    `frames.encode_message`: pure

The choice is made once, at import, and the chosen function is then called directly. With `WSFRAMEWORK_PURE=1`
in the environment, pure Python does everything: this shows whether an error comes from a compiled module.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

__all__ = ["PURE", "Work", "choose", "in_use", "installed"]

PURE = "pure"
"""The name of the implementation that is always there."""

Work = Literal["masking", "decoding", "encoding"]
T = TypeVar("T")

_VARIABLE = "WSFRAMEWORK_PURE"
_installed: dict[Work, dict[str, Any]] = {}
_in_use: dict[Work, str] = {}


def choose(work: Work, candidates: Mapping[str, T | None]) -> T:
    """Return the first implementation that is installed, or the pure one if the environment says so.

    Args:
        work: what the implementations do.
        candidates: implementations by name, the fastest first; None is one that is not installed.

    Raises:
        ValueError: there is no pure one.
    """
    found = {name: candidate for name, candidate in candidates.items() if candidate is not None}
    if PURE not in found:
        raise ValueError(f"{work} has no implementation in pure Python")
    name = PURE if os.environ.get(_VARIABLE, "0") not in ("", "0") else next(iter(found))
    _installed[work], _in_use[work] = dict(found), name
    return found[name]


def installed(work: Work) -> Mapping[str, Any]:
    """Return all implementations that are installed, by name, the fastest first."""
    return dict(_installed[work])


def in_use() -> dict[Work, str]:
    """Return the name of the implementation that does each kind of work in this process."""
    return dict(_in_use)
