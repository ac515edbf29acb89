#!/usr/bin/env python3
"""Make the chat's table of confusable characters from Unicode's confusables.txt.

    curl -O https://www.unicode.org/Public/security/latest/confusables.txt
    .ci/confusables.py confusables.txt wsframework/chat/confusables.bin

The table is a line of text with the version, the date and the copyright, and behind it, compressed with zlib:
the sources, each as the character whose code is its distance from the source before it, an empty line, and
the prototypes in the same order, one a line. What compatibility decomposition (NFKD) changes is left out: it
comes first. `wsframework/chat/skeletons.py` reads the table.
"""

from __future__ import annotations

import re
import sys
import unicodedata
import zlib
from pathlib import Path


def table(confusables: str) -> bytes:
    """Return the table for the content of confusables.txt."""
    version, date = (_header(confusables, name) for name in ("Version", "Date"))
    prototypes = {}
    for line in confusables.splitlines():
        source, *rest = (part.strip() for part in line.partition("#")[0].split(";"))
        if rest and unicodedata.normalize("NFKD", chr(int(source, 16))) == chr(int(source, 16)):
            prototypes[int(source, 16)] = "".join(chr(int(code, 16)) for code in rest[0].split())
    sources = sorted(prototypes)
    distances = [code - before for before, code in zip([0, *sources], sources, strict=False)]
    lines = ["".join(map(chr, distances)), "", *(prototypes[code] for code in sources)]
    head = (
        f"confusables.txt {version} of {date} (UTS #39), packed by .ci/confusables.py. "
        f"© {date[:4]} Unicode, Inc. https://www.unicode.org/terms_of_use.html\n"
    )
    return head.encode() + zlib.compress("\n".join(lines).encode(), 9)


def _header(confusables: str, name: str) -> str:
    found = re.search(rf"^# {name}: ([\w.-]+)", confusables, re.M)
    if found is None:
        raise SystemExit(f"this is not Unicode's confusables.txt: it has no line '# {name}: …'")
    return found[1]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(f"usage: {sys.argv[0]} confusables.txt TABLE")
    Path(sys.argv[2]).write_bytes(table(Path(sys.argv[1]).read_text(encoding="utf-8-sig")))
