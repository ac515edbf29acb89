"""Messages that say which they are, so that what is lost, torn, doubled or out of order shows.

`SENDER NUMBER SIZE xxxx…`, with SIZE letters behind it; every third message is Binary.
"""

from __future__ import annotations

import attrs

__all__ = ["Label", "Torn", "label", "parse"]


class Torn(Exception):
    """A message that nobody has sent in this form."""


@attrs.frozen
class Label:
    sender: str
    number: int


def label(sender: str, number: int, size: int) -> str | bytes:
    text = f"{sender} {number} {size} " + "x" * size
    return text if number % 3 else text.encode()


def parse(message: str | bytes) -> Label:
    """Return a message's label.

    Raises:
        Torn: it is not whole, or something else.
    """
    text = message if isinstance(message, str) else message.decode("latin-1")
    sender, _, rest = text.partition(" ")
    number, _, rest = rest.partition(" ")
    size, _, letters = rest.partition(" ")
    if not (number.isdigit() and size.isdigit() and letters == "x" * int(size)):
        raise Torn(f"{text[:60]!r} of {len(text)}")
    if isinstance(message, str) == (int(number) % 3 == 0):
        raise Torn(f"{text[:60]!r} changed its kind")
    return Label(sender, int(number))
