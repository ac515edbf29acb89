"""What a text looks like: the skeletons of UTS #39, Unicode Security Mechanisms.

Two texts with one skeleton are hard to tell apart, such as "Adam" and "Adarn", or Latin and Cyrillic letters.
The table is made of Unicode's confusables.txt by `.ci/confusables.py`; its first line has the version.
"""

from __future__ import annotations

import itertools
import unicodedata
import zlib
from importlib.resources import files

__all__ = ["skeleton"]


def _prototypes() -> dict[int, str]:
    _, _, packed = files("wsframework.chat").joinpath("confusables.bin").read_bytes().partition(b"\n")
    distances, _, prototypes = zlib.decompress(packed).decode().partition("\n\n")
    sources = itertools.accumulate(map(ord, distances))
    return dict(zip(sources, prototypes.split("\n"), strict=True))


_PROTOTYPES = _prototypes()


def skeleton(text: str) -> str:
    """Return the skeleton of a text in Normalization Form KC without default-ignorable code points.

    It is for comparison only: it is no text to show. (UTS #39 §4, internalSkeleton.)
    """
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).translate(_PROTOTYPES))
