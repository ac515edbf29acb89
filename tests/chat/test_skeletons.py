from __future__ import annotations

import re
import runpy
import unicodedata
import zlib
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsframework.chat.skeletons import skeleton

SCRIPT = Path(__file__).parents[2] / ".ci" / "confusables.py"

SAMPLE = """\
# confusables.txt
# Date: 2026-01-02, 01:05:35 GMT
# © 2026 Unicode®, Inc.
# Version: 99.1.0
0430 ;\t0061 ;\tMA\t# CYRILLIC SMALL LETTER A → LATIN SMALL LETTER A\t#
FF41 ;\t0061 ;\tMA\t# fullwidth: NFKD has made it an a before
006D ;\t0072 006E ;\tMA\t# ( m → rn )
1D7D9 ;\t006C ;\tMA\t# mathematical: NFKD again

#\ttotal: 4
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ada", "Ada"),
        ("\u0410\u0501\u0430", "Ada"),
        ("m", "rn"),
        ("1|I", "lll"),
        ("0", "O"),
        ("\u00e9", "e\u0301"),
    ],
)
def test_a_skeleton_has_the_prototypes_of_its_characters(text: str, expected: str) -> None:
    assert skeleton(text) == expected


@given(st.text(max_size=20))
def test_a_skeleton_looks_like_itself(text: str) -> None:
    once = skeleton(unicodedata.normalize("NFKC", text))
    assert skeleton(once) == once


def test_the_table_says_of_which_version_of_unicode_it_is() -> None:
    head = files("wsframework.chat").joinpath("confusables.bin").read_bytes().partition(b"\n")[0].decode()
    assert re.match(r"confusables\.txt \d+\.\d+\.\d+ of \d{4}-\d\d-\d\d \(UTS #39\)", head), head
    assert "© " in head
    assert "terms_of_use" in head


def test_the_script_packs_what_normalization_leaves() -> None:
    head, _, packed = runpy.run_path(str(SCRIPT))["table"](SAMPLE).partition(b"\n")
    assert head.startswith(b"confusables.txt 99.1.0 of 2026-01-02 ")
    assert zlib.decompress(packed).decode() == f"{chr(0x6D)}{chr(0x430 - 0x6D)}\n\nrn\na"


def test_the_script_says_what_is_wrong_with_another_file() -> None:
    with pytest.raises(SystemExit, match=re.escape("this is not Unicode's confusables.txt")):
        runpy.run_path(str(SCRIPT))["table"]("a, b\n")
