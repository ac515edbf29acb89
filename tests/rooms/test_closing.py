"""Messages that close the members of a room."""

from __future__ import annotations

import pytest

from wsframework import CloseFrame, RoomMessage
from wsframework.rooms.closing import close_frame_in, message_that_closes


@pytest.mark.parametrize("frame", [CloseFrame(1000), CloseFrame(4403, "ü" * 61), CloseFrame(1013, "later")])
def test_a_frame_comes_back(frame: CloseFrame) -> None:
    assert close_frame_in(message_that_closes(frame.code, frame.reason)) == frame


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (999, ""), (1006, "x"), (4000, "x" * 124)])
def test_what_may_not_be_sent_is_refused(code: int, reason: str) -> None:
    with pytest.raises(ValueError, match="clos"):
        message_that_closes(code, reason)


@pytest.mark.parametrize(
    "message",
    [
        RoomMessage(8, b""),
        RoomMessage(8, b"\x03"),
        RoomMessage(8, b"\x03\xed"),  # 1005
        RoomMessage(8, b"\xff\xff"),
        RoomMessage(8, b"\x03\xe8\xff"),
        RoomMessage(8, b"\x03\xe8" + b"x" * 124),
        RoomMessage(9, b"\x03\xe8"),
        RoomMessage(1, b"\x03\xe8"),
    ],
)
def test_what_comes_from_elsewhere_is_checked(message: RoomMessage) -> None:
    with pytest.raises(ValueError, match=r"clos|no message|utf-8"):
        close_frame_in(message)
