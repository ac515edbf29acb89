"""Which names clients and rooms may have, and which client has which name.

A name is shown as it was typed, and compared by its *keys*: two names that share one are the same. A key is
the skeleton (UTS #39) of what the Nickname profile of PRECIS (RFC 8266) makes of the name without its
invisible characters. There are two, because letters look alike in the case in which they are shown: one with
case folding, by which "ADA" is "Ada", and one without, by which "lda" is "Ida".
"""

from __future__ import annotations

import functools
import re
import secrets
import unicodedata
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from precis_i18n import get_profile

from wsframework.chat.skeletons import skeleton

__all__ = [
    "NAME_CHARS",
    "ROOM_CHARS",
    "NameTaken",
    "Names",
    "clean_name",
    "clean_room",
    "clean_text",
    "name_keys",
    "suggestions",
]

HolderT = TypeVar("HolderT", bound=Hashable)

NAME_CHARS = 32
ROOM_CHARS = 32

_TYPED_CHARS = 4 * NAME_CHARS
"""More are refused unseen: normalization takes time quadratic in the length of a run of combining marks."""

_UNFOLDED_CHARS = 2 * NAME_CHARS
"""A character can stand for 18 (U+FDFA), each of which is looked up."""

# Cc control, Cf format (direction overrides, zero width), Cs surrogates, Co private use, Cn unassigned,
# Zl and Zp line breaks: what would break out of its line, or turn its neighbours round.
_FORBIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

_JOINERS = frozenset("\u200c\u200d").union(map(chr, range(0xE0020, 0xE0080)))
"""Format characters of emoji (UTS #51: joiners, tags of flags) and of words in some scripts."""

_BLANKS = dict.fromkeys((0x2800, 0x1D159, 0x16FE4, 0x13441, 0x13442), " ")
"""What looks like a space and is none to Unicode: a Braille pattern without dots, a note without a head, …"""

_FOLDED = get_profile("NicknameCaseMapped:CaseFold")
_SHOWN = get_profile("NicknameCasePreserved")
_is_ignorable = _SHOWN.base.ucd.default_ignorable

_ROOM = re.compile(r"\w[\w-]*")
_SPACES = re.compile(r"\s+")


def clean_name(name: str) -> str:
    """Return a person's name as it is shown: composed (NFC), single spaces, no ends.

    Raises:
        ValueError: it is empty, too long, has nothing visible, or something that must not be in a name.
    """
    if any(0xD800 <= ord(char) <= 0xDFFF for char in name[:_TYPED_CHARS]):
        raise ValueError("a name has no lone surrogates")
    cleaned = ""
    if len(name) <= _TYPED_CHARS:
        cleaned = _SPACES.sub(" ", unicodedata.normalize("NFC", name)).strip()
    if not cleaned or len(cleaned) > NAME_CHARS:
        raise ValueError(f"a name has 1 to {NAME_CHARS} characters")
    if any(unicodedata.category(char) in _FORBIDDEN and char not in _JOINERS for char in cleaned):
        raise ValueError("a name has no control, format or unassigned characters")
    if not any(unicodedata.category(char)[0] in "LNS" for char in _visible(cleaned)):
        raise ValueError("a name has at least one letter, digit or symbol that can be seen")
    name_keys(cleaned)
    return cleaned


@functools.lru_cache(maxsize=256)  # a name is looked at several times when it is claimed
def name_keys(name: str) -> tuple[str, ...]:
    """Return what names have in common with others that count as the same: any one of these.

    Raises:
        ValueError: it is not a name, because nothing of it can be seen, or PRECIS does not allow it.
    """
    visible = _visible(name)
    if len(unicodedata.normalize("NFKC", visible)) > _UNFOLDED_CHARS:
        raise ValueError(f"a name has at most {_UNFOLDED_CHARS} characters when ligatures are taken apart")
    try:
        return tuple({skeleton(profile.enforce(visible)): None for profile in (_FOLDED, _SHOWN)})
    except UnicodeEncodeError as error:
        wrong = " ".join(f"U+{ord(char):04X}" for char in error.object[error.start : error.end])
        raise ValueError(f"a name has no {wrong} in such a place ({error.reason}, RFC 8266)") from None


def _visible(name: str) -> str:
    return "".join(char for char in name if not _is_ignorable(ord(char))).translate(_BLANKS)


def clean_room(room: str) -> str:
    """Return a room's name as the server knows it: in lower case, NFKC.

    Raises:
        ValueError: it is empty, too long, or has more than letters, digits, `-` and `_`.
    """
    cleaned = unicodedata.normalize("NFKC", room).casefold() if len(room) <= ROOM_CHARS else ""
    if len(cleaned) > ROOM_CHARS or not _ROOM.fullmatch(cleaned) or _visible(cleaned) != cleaned:
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


class NameTaken(Exception):
    """Another client has the name.

    Attributes:
        suggestion: a similar name that is free.
    """

    def __init__(self, name: str, suggestion: str) -> None:
        super().__init__(f"the name {name!r} is taken")
        self.suggestion = suggestion


class Names(Generic[HolderT]):
    """Which client has which name; a name has at most one holder, and a holder one name.

    Args:
        reserved: names that no client can have.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self._reserved = frozenset(key for name in reserved for key in name_keys(name))
        self._holders: dict[str, HolderT] = {}
        self._keys: dict[HolderT, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def holder(self, name: str) -> HolderT | None:
        """Return who holds the name, or None."""
        return next((self._holders[key] for key in name_keys(name) if key in self._holders), None)

    def claim(self, name: str, holder: HolderT) -> None:
        """Give the name to the holder, who gives up another one if it has one.

        Raises:
            NameTaken: another client has it; nothing has changed.
        """
        keys = name_keys(name)
        if not self._free(keys, holder):
            raise NameTaken(name, self._suggest(name))
        self.release(holder)
        self._keys[holder] = keys
        self._holders.update(dict.fromkeys(keys, holder))

    def release(self, holder: HolderT) -> None:
        """Free the name of the holder, if it has one."""
        for key in self._keys.pop(holder, ()):
            del self._holders[key]

    def _free(self, keys: tuple[str, ...], holder: HolderT | None = None) -> bool:
        return not any(key in self._reserved or self._holders.get(key, holder) is not holder for key in keys)

    def _suggest(self, name: str) -> str:
        return next(suggestion for suggestion in suggestions(name) if self._free(name_keys(suggestion)))


def suggestions(name: str) -> Iterator[str]:
    """Yield names that are like this one and may be free; a few tries, however many are held."""
    # One number of 1, 2, 4, 8 … digits.
    digits = 1
    while True:
        number = 2 if digits == 1 else 10 ** (digits - 1) + secrets.randbelow(9 * 10 ** (digits - 1))
        ending = f" {number}"
        suggestion = name[: NAME_CHARS - len(ending)].rstrip() + ending
        try:
            name_keys(suggestion)
        except ValueError:
            # PRECIS allows some characters only beside others, which were cut off.
            name = "Guest"
            continue
        yield suggestion
        digits *= 2
