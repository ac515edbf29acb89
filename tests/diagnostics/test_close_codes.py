"""What is said of close codes."""

from __future__ import annotations

import pytest

from wsframework.diagnostics.close_codes import advice, describe_close, meaning


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1000, "normal closure: done"),
        (1011, "internal error"),
        (3001, "registered for a library or framework"),
        (4999, "the application's own"),
        (999, "not a code of RFC 6455"),
    ],
)
def test_close_codes_have_a_meaning(code: int, words: str) -> None:
    assert meaning(code) == words


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1000, None),
        (1001, "a client should reconnect at once, after a short random pause"),
        (1008, "a client should not reconnect by itself: the same would happen again"),
        (1013, "a client should reconnect later, with growing pauses"),
        (4000, None),
        (4401, "a client should get a fresh token, and then reconnect"),
    ],
)
def test_close_codes_say_whether_to_reconnect(code: int, words: str | None) -> None:
    assert advice(code) == words


@pytest.mark.parametrize(
    ("by", "code", "reason", "line"),
    [
        ("client", 1000, "", "closed by us, 1000 (normal closure: done)"),
        ("server", 1005, "", "closed by the server, without a code"),
        ("server", 1006, "", "the server ended the connection without a Close frame (1006)"),
        ("server", 4000, "a\x1b[1A", r"closed by the server, 4000 (the application's own): a\u001b[1A"),
    ],
)
def test_a_close_is_one_line(by: str, code: int, reason: str, line: str) -> None:
    assert describe_close(by, code, reason) == line
