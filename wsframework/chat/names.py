"""Which names clients and rooms may have, and which client has which name.

Two names are the same when they look the same but for case and for the width or shape of letters: they are
compared after NFKC and case folding (Unicode's own notion of a loose match). Letters of different scripts
that merely look alike are different letters here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Generic, TypeVar

__all__ = [
    "NAME_CHARS",
    "ROOM_CHARS",
    "NameTaken",
    "Names",
    "clean_name",
    "clean_room",
    "clean_text",
    "name_key",
]

HolderT = TypeVar("HolderT")

NAME_CHARS = 32
ROOM_CHARS = 32

# Cc control, Cf format (direction overrides, zero width), Cs surrogates, Co private use, Cn unassigned,
# Zl and Zp line breaks: what would let a name look like another one, or break out of its line.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

_ROOM = re.compile(r"\w[\w-]*")
_SPACES = re.compile(r"\s+")


def clean_name(name: str) -> str:
    """Return a person's name as it is shown: composed (NFC), single spaces, no ends.

    Raises:
        ValueError: it is empty, too long, has nothing visible, or something that must not be in a name.
    """
    if any(0xD800 <= ord(char) <= 0xDFFF for char in name):
        raise ValueError("a name has no lone surrogates")
    cleaned = _SPACES.sub(" ", unicodedata.normalize("NFC", name)).strip()
    if not cleaned or len(cleaned) > NAME_CHARS:
        raise ValueError(f"a name has 1 to {NAME_CHARS} characters")
    categories = [unicodedata.category(char) for char in cleaned]
    if not _INVISIBLE.isdisjoint(categories):
        raise ValueError("a name has no control, format or unassigned characters")
    if not any(category[0] in "LNS" for category in categories):
        raise ValueError("a name has at least one letter, digit or symbol")
    return cleaned


def clean_room(room: str) -> str:
    """Return a room's name as the server knows it: in lower case, NFKC.

    Raises:
        ValueError: it is empty, too long, or has more than letters, digits, `-` and `_`.
    """
    cleaned = unicodedata.normalize("NFKC", room).casefold()
    if len(cleaned) > ROOM_CHARS or not _ROOM.fullmatch(cleaned):
        raise ValueError(f"a room's name has 1 to {ROOM_CHARS} letters, digits, '-' or '_'")
    return cleaned


def clean_text(text: str, max_chars: int) -> str:
    """Return a message's text without white space at its end.

    Raises:
        ValueError: it is empty or too long, or has control characters other than tabs and line breaks.
    """
    cleaned = text.replace("\r\n", "\n").rstrip()
    if not cleaned.strip() or len(cleaned) > max_chars:
        raise ValueError(f"a text has 1 to {max_chars} characters")
    for char in cleaned:
        # C0, DEL and C1 controls; and half a surrogate pair, which no UTF-8 can carry.
        code = ord(char)
        if (code < 0x20 and char not in "\t\n") or 0x7F <= code <= 0x9F or 0xD800 <= code <= 0xDFFF:
            raise ValueError(f"a text has no control characters and no lone surrogates: U+{code:04X}")
    return cleaned


def name_key(name: str) -> str:
    """Return what two names have in common when they count as the same."""
    # Folding may undo the composition, so compose again (Unicode 3.13, D146).
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


class NameTaken(Exception):
    """Another client has the name.

    Attributes:
        suggestion: a similar name that is free.
    """

    def __init__(self, name: str, suggestion: str) -> None:
        super().__init__(f"the name {name!r} is taken")
        self.suggestion = suggestion


class Names(Generic[HolderT]):
    """Which client has which name; a name has at most one holder.

    Args:
        reserved: names that no client can have.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._reserved = frozenset(name_key(name) for name in reserved)
        self._holders: dict[str, HolderT] = {}

    def __len__(self) -> int:
        return len(self._holders)

    def holder(self, name: str) -> HolderT | None:
        """Return who holds the name, or None."""
        return self._holders.get(name_key(name))

    def claim(self, name: str, holder: HolderT, *, instead_of: str | None = None) -> None:
        """Give the name to the holder, who gives up another one if it has one.

        Raises:
            NameTaken: another client has it; nothing has changed.
        """
        key = name_key(name)
        if key in self._reserved or self._holders.get(key, holder) is not holder:
            raise NameTaken(name, self._suggest(name))
        if instead_of is not None:
            self.release(instead_of, holder)
        self._holders[key] = holder

    def release(self, name: str, holder: HolderT) -> None:
        """Free the name if the holder still has it."""
        key = name_key(name)
        if self._holders.get(key) is holder:
            del self._holders[key]

    def _suggest(self, name: str) -> str:
        number = 2
        while True:
            ending = f" {number}"
            suggestion = name[: NAME_CHARS - len(ending)].rstrip() + ending
            key = name_key(suggestion)
            if key not in self._holders and key not in self._reserved:
                return suggestion
            number += 1
