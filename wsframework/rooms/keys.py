"""Ids of members, and the keys in them that say who they are."""

from __future__ import annotations

__all__ = ["key_of", "member_id"]

_LONGEST_KEY = 64
"""In characters: engines store the keys of all members."""


def member_id(node: str, number: int, key: str | int | None) -> str:
    """Return the id of a member: its key is a part of it, so every engine carries keys.

    Args:
        node: the engine's name of this process.
        number: unique in this process.
        key: says who the member is; None for nobody in particular.

    Raises:
        TypeError: the key is neither `str` nor `int`.
        ValueError: it is empty, too long, or has a lone surrogate.
    """
    if key is None:
        return f"{node}/{number}"
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise TypeError(f"the key of a member is str or int, not {type(key).__name__}")
    text = str(key)
    if not 1 <= len(text) <= _LONGEST_KEY:
        raise ValueError(f"the key of a member has 1 to {_LONGEST_KEY} characters; this one has {len(text)}")
    text.encode()  # a lone surrogate is a ValueError
    return f"{node}/{number}/{text}"


def key_of(member: str) -> str:
    """Return the key of a member, given its id; the id itself if it has none."""
    parts = member.split("/", 2)
    return parts[2] if len(parts) == 3 else member
