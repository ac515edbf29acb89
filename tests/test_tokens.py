from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsframework.tokens import canonical_path, is_token, read_length


def test_tokens_are_told_from_other_text() -> None:
    assert is_token("Sec-WebSocket-Key")
    assert is_token("!#$%&'*+-.^_`|~09azAZ")
    assert not any(map(is_token, ["", " ", "a b", "a:", "a\n", "(a)", "é"]))


def canonical_by_the_library(path: str) -> str:
    parts = re.split("(%2[fF])", path)
    safe = "/-._~!$&'()*+,;=:@"
    return "".join(
        "%2F" if i % 2 else quote(unquote_to_bytes(part), safe=safe) for i, part in enumerate(parts)
    )


@given(path=st.lists(st.sampled_from([*"%24fF1/aé\0\n |€", "%2f", "%41", "%e9", "%C3%a9"])).map("".join))
def test_the_canonical_form_of_a_path_is_that_of_the_standard_library(path: str) -> None:
    assert canonical_path(path) == canonical_by_the_library(path)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("0", 0),
        ("007", 7),
        ("9" * 18, 10**18 - 1),
        *((text, None) for text in ("", "9" * 19, "+1", "-1", "1 ", "1,1", "0x1", "1_0", "\u0661", "1\n")),
    ],
)
def test_a_length_is_up_to_eighteen_digits(text: str, length: int | None) -> None:
    assert read_length(text) == length
