"""Close frames, what may stand in them, and what a client should do about each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wsframework.closes import SENT_CODES, CloseCode, Closed, CloseFrame, check_close, is_valid_close_code
from wsframework.errors import Close

ROOT = Path(__file__).parent.parent

OURS = CloseFrame(1001, "going away")
THEIRS = CloseFrame(4000, "bye")

NEVER_ON_THE_WIRE = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535, -1]
ON_THE_WIRE = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]


def test_a_close_frame_reads_as_its_code_and_reason() -> None:
    assert str(CloseFrame(1000)) == "1000"
    assert str(THEIRS) == "4000 (bye)"


@pytest.mark.parametrize(
    ("closed", "code", "reason", "clean", "text"),
    [
        (
            Closed(OURS, CloseFrame(1001), True),
            1001,
            "",
            True,
            "we sent Close 1001 (going away), the peer answered 1001",
        ),
        (
            Closed(OURS, None, True, "the timeout was over"),
            1006,
            "",
            False,
            "we sent Close 1001 (going away), the peer sent none; the timeout was over",
        ),
        (
            Closed(CloseFrame(4000), THEIRS, False),
            4000,
            "bye",
            True,
            "the peer sent Close 4000 (bye), we answered 4000",
        ),
        (
            Closed(None, THEIRS, False),
            4000,
            "bye",
            False,
            "the peer sent Close 4000 (bye), we could not answer",
        ),
        (
            Closed(None, None, None, "connection reset"),
            1006,
            "",
            False,
            "no Close frame was sent or received; connection reset",
        ),
        (Closed(None, None, None), 1006, "", False, "no Close frame was sent or received"),
    ],
)
def test_closed_says_who_was_first_and_what_the_peer_said(
    closed: Closed, code: int, reason: str, clean: bool, text: str
) -> None:
    assert (closed.code, closed.reason, closed.clean, str(closed)) == (code, reason, clean, text)


@pytest.mark.parametrize("code", ON_THE_WIRE)
def test_codes_of_the_registry_and_the_private_ranges_may_be_sent(code: int) -> None:
    assert is_valid_close_code(code)
    check_close(code, "")
    assert Close(code).code == code


@pytest.mark.parametrize("code", NEVER_ON_THE_WIRE)
def test_reserved_and_unassigned_codes_may_not_be_sent(code: int) -> None:
    assert not is_valid_close_code(code)
    with pytest.raises(ValueError, match=rf"close code {code} may not be sent: use 1000 to 1003, "):
        Close(code)


@pytest.mark.parametrize("code", ["4000", 4000.5, None, True])
def test_a_close_code_is_a_whole_number(code: object) -> None:
    with pytest.raises(ValueError, match=rf"close code {code!r} may not be sent"):
        check_close(code, "")  # type: ignore[arg-type]


def test_a_close_reason_is_measured_in_bytes_of_utf_8() -> None:
    assert Close(1000, "x" * 123).reason == "x" * 123
    check_close(1000, "é" * 61)
    with pytest.raises(ValueError, match="at most 123 bytes of UTF-8; this one has 124"):
        Close(1000, "é" * 62)


def test_close_codes_are_those_of_the_iana_registry() -> None:
    assert sorted(CloseCode) == [1000, 1001, 1002, 1003, *range(1005, 1016)]


def test_only_three_close_codes_never_stand_on_the_wire() -> None:
    assert [code for code in CloseCode if not is_valid_close_code(code)] == [1005, 1006, 1015]


def codes_in_the_sources() -> set[int]:
    """Return every code that stands in a Close frame of the server's own, the chat's and the tools' aside."""
    found = {int(member) for member in CloseCode if member.name in NAMES_USED}
    for path in (ROOT / "wsframework").rglob("*.py"):
        if path.relative_to(ROOT).parts[1] not in ("chat", "cli", "testing", "diagnostics"):
            text = path.read_text(encoding="utf-8")
            found |= {int(code) for code in re.findall(r"CloseFrame\(([1-4][0-9]{3})", text)}
    return found


NAMES_USED = set(
    re.findall(
        r"(?:ProtocolViolation|Failure|give_up|protocol_error)\(\s*CloseCode\.([A-Z_]+)",
        "".join(path.read_text(encoding="utf-8") for path in (ROOT / "wsframework").rglob("*.py")),
    )
)


def test_the_table_has_every_code_that_the_server_sends_and_no_other() -> None:
    by_convention = {4401}
    assert codes_in_the_sources() == {row.code for row in SENT_CODES} - by_convention
    assert all(is_valid_close_code(row.code) for row in SENT_CODES)
    assert [row.code for row in SENT_CODES] == sorted({row.code for row in SENT_CODES})


def test_the_page_on_close_codes_has_the_same_table() -> None:
    page = (ROOT / "docs" / "close-codes.md").read_text(encoding="utf-8")
    for row in SENT_CODES:
        assert f"| {row.code} | {row.when} | {row.reconnect} |" in page
    assert sum(page.count(f"| {what} |") for what in {row.reconnect for row in SENT_CODES}) == len(SENT_CODES)


def test_the_error_names_what_may_be_sent() -> None:
    with pytest.raises(ValueError, match="1000 to 1003, 1007 to 1014, or 3000 to 4999") as caught:
        check_close(1005, "")
    ranges = re.findall(r"(\d{4}) to (\d{4})", str(caught.value))
    allowed = {code for first, last in ranges for code in range(int(first), int(last) + 1)}
    assert allowed == {code for code in range(6000) if is_valid_close_code(code)}
