"""Header fields as a value: those that a request came with, and those that an answer gets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from wsframework.tokens import is_token

__all__ = ["HeaderFields", "Headers", "check_field"]

HeaderFields = Mapping[str, str] | Iterable[tuple[str, str]]
"""How header fields are given: a mapping, or (name, value) pairs, which may repeat a name."""


class Headers(Mapping[str, str]):
    """Header fields in the order they came, looked up without regard to case (RFC 9110 §5.1).

    A name that occurs several times reads as one comma-separated value (RFC 9110 §5.3); `get_all` gives
    the lines one by one.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: HeaderFields = ()) -> None:
        if isinstance(fields, Headers):
            fields = fields.pairs()  # a field may occur several times
        pairs = fields.items() if isinstance(fields, Mapping) else fields
        # One string with "name:value" in each line when packed, else pairs.
        self._fields: str | tuple[tuple[str, str], ...] = tuple(pairs)

    def pack(self) -> None:
        """Keep the fields in a third of the memory; each look at them then takes some microseconds.

        For fields as HTTP/1.1 has them: no colon in a name, no line break in a value.
        """
        self._fields = "\n".join(map(":".join, self.pairs()))

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def get_all(self, name: str) -> list[str]:
        """Return every value of `name`, in order; an empty list when there is none."""
        wanted = name.lower()
        return [value for key, value in self.pairs() if key.lower() == wanted]

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Return all fields as (name, value) pairs, repeated names included."""
        fields = self._fields
        if not isinstance(fields, str):
            return fields
        parts = [line.partition(":") for line in fields.split("\n")] if fields else []
        return tuple([(name, value) for name, _, value in parts])

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.lower() for name, _ in self.pairs()))

    def __len__(self) -> int:
        return len({name.lower() for name, _ in self.pairs()})

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def __repr__(self) -> str:
        return f"Headers({list(self.pairs())!r})"


_VALUE = re.compile(r"[\t -~\x80-\xff]*")


def check_field(field: object) -> None:
    """Check a (name, value) pair that is to be sent. The value is not repeated: it may be a secret.

    Raises:
        ValueError: the name is not a token, or the value is not Latin-1 or has a control character.
        TypeError: it is not a pair of `str`.

    Source: RFC 9110 §5.1, §5.5.
    """
    match field:
        case (str() as name, str() as value):
            pass
        case _:
            raise TypeError(
                f"headers are (name, value) pairs of str, or a mapping; {type(field).__name__} is none"
            )
    # A name such as "Content-Length\t" is read as Content-Length by some clients.
    if not is_token(name):
        raise ValueError(f"{name!r} is not a header field name (RFC 9110 §5.1)")
    if not _VALUE.fullmatch(value):
        # With a line break in a value, its author could write header fields, or a second answer.
        raise ValueError(
            f"{name}: a header field value is Latin-1 without control characters (RFC 9110 §5.5)"
        )
