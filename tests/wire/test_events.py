from __future__ import annotations

import pytest

from wsframework.closes import CloseCode, CloseFrame
from wsframework.wire import CloseReceived, Failure, Ping, Pong, ProtocolViolation


def test_events_are_values() -> None:
    assert Ping(b"x") == Ping(b"x")
    assert len({Ping(b"x"), Pong(b"x"), Ping(b"y")}) == 3
    assert CloseReceived(CloseFrame(1000)) == CloseReceived(CloseFrame(1000))
    assert len({Failure(CloseCode.PROTOCOL_ERROR, "why"), Failure(CloseCode.PROTOCOL_ERROR, "why")}) == 1


def test_events_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Ping(b"x").payload = b"y"  # type: ignore[misc]


def test_a_violation_says_its_reason() -> None:
    assert str(ProtocolViolation(CloseCode.PROTOCOL_ERROR, "a rule is broken")) == "a rule is broken"
