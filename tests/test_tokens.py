from __future__ import annotations

from wsframework.tokens import is_token


def test_tokens_are_told_from_other_text() -> None:
    assert is_token("Sec-WebSocket-Key")
    assert is_token("!#$%&'*+-.^_`|~09azAZ")
    assert not any(map(is_token, ["", " ", "a b", "a:", "a\n", "(a)", "é"]))
