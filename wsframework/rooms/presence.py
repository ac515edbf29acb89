"""Data about members and of sessions must be JSON, so that every engine and store can carry them."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["copy_of_json"]

_LEVELS = 32
"""Deeper data are refused: a list may contain itself."""


def copy_of_json(data: Any, owner: str = "a member") -> Any:
    """Return a copy of JSON data, so that later changes of the original have no effect.

    Args:
        data: the data.
        owner: whose they are, for messages.

    Raises:
        TypeError: it is not JSON; the message names the part that is not.
    """
    # The common types, without a call for each level.
    if data is None or type(data) is str or type(data) is int or type(data) is bool:
        return data
    return _copy(data, "data", 0, owner)


def _copy(data: Any, where: str, level: int, owner: str) -> Any:
    if data is None or isinstance(data, str | int):
        return data
    if level > _LEVELS:
        raise TypeError(f"data of {owner} are JSON, at most {_LEVELS} levels deep; {where[:100]}… is deeper")
    if isinstance(data, float) and math.isfinite(data):
        return data
    if isinstance(data, list):
        return [_copy(entry, f"{where}[{index}]", level + 1, owner) for index, entry in enumerate(data)]
    if isinstance(data, dict):
        for key in data:
            if not isinstance(key, str):
                raise TypeError(
                    f"data of {owner} are JSON: a key of {where} is not str but {type(key).__name__}"
                )
        return {key: _copy(entry, f"{where}[{key!r}]", level + 1, owner) for key, entry in data.items()}
    hint = ", write a list" if isinstance(data, tuple | set | frozenset) else ""
    what = repr(data) if isinstance(data, float) else type(data).__name__
    raise TypeError(
        f"data of {owner} are JSON (None, bool, int, float, str, list, dict): {where} is {what}{hint}"
    )
