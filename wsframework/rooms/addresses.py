"""What engines call a room: its name, or the id of a user, in two spaces that do not meet.

A path may hand any text to `rooms[name]`, so no prefix alone keeps users apart: names that begin as users'
addresses do are escaped.
"""

from __future__ import annotations

__all__ = ["address_of_room", "address_of_user", "name_of_room"]

_MARK = "\0"


def address_of_room(name: str) -> str:
    """Return the address of a room: its name, nearly always."""
    return _MARK + name if name.startswith(_MARK) else name


def address_of_user(user: str | int) -> str:
    """Return the address of a user's room.

    Raises:
        TypeError: the id is neither `str` nor `int`. None, say, would be one user for all who have none.
    """
    if isinstance(user, bool) or not isinstance(user, str | int):
        raise TypeError(f"the id of a user is str or int, not {type(user).__name__}")
    return f"{_MARK}user/{user}"


def name_of_room(address: str) -> str | None:
    """Return the name of the room with an address; None if it is a user's room."""
    if not address.startswith(_MARK):
        return address
    name = address.removeprefix(_MARK)
    return name if name.startswith(_MARK) else None
