"""Names and values as URLs and HTML forms have them: those of a query, or of a form's body."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import parse_qsl

__all__ = ["Parameters"]


class Parameters(Mapping[str, str]):
    """Decoded parameters; of a name that occurs several times the last value counts.

    `get_all` returns all values of a name, `pairs` all parameters in their order.
    """

    __slots__ = ("_last", "_pairs")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._pairs = tuple(pairs)
        self._last = dict(self._pairs)

    @classmethod
    def parse(cls, text: str, *, most: int | None = None) -> Parameters:
        """Read `name=value&other=value`, percent-encoded; a name without "=" has an empty value.

        Args:
            text: what stands behind the "?" of a URL, or a form's body.
            most: how many parameters there may be, or None.

        Raises:
            ValueError: there are more.

        Source: application/x-www-form-urlencoded, as browsers send it (WHATWG URL, section 5.1).
        """
        return cls(parse_qsl(text, keep_blank_values=True, max_num_fields=most))

    def __getitem__(self, name: str) -> str:
        return self._last[name]

    def get_all(self, name: str) -> list[str]:
        """Return every value of `name`, in order; an empty list if there is none."""
        return [value for key, value in self._pairs if key == name]

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Return all parameters as (name, value) pairs, repeated names included."""
        return self._pairs

    def __iter__(self) -> Iterator[str]:
        return iter(self._last)

    def __len__(self) -> int:
        return len(self._last)

    def __repr__(self) -> str:
        return f"Parameters({list(self._pairs)!r})"
