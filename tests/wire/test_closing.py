from __future__ import annotations

import pytest

from wsframework.closes import Closed, CloseFrame
from wsframework.wire import CloseState, ClosingHandshake, encode_close

OURS = CloseFrame(1001, "going away")
THEIRS = CloseFrame(4000, "bye")


def state(closing: ClosingHandshake) -> CloseState:
    return closing.state  # read anew: the type checker takes an attribute it saw once for a constant


def test_we_close_and_the_peer_answers() -> None:
    closing = ClosingHandshake()
    assert closing.send(OURS) == encode_close(1001, "going away")
    assert state(closing) is CloseState.CLOSE_SENT
    assert closing.receive(CloseFrame(1001)) is None
    assert state(closing) is CloseState.CLOSED
    assert closing.outcome() == Closed(OURS, CloseFrame(1001), True)


def test_the_peer_closes_and_gets_its_code_back() -> None:
    closing = ClosingHandshake()
    assert closing.receive(THEIRS) == encode_close(4000)
    assert state(closing) is CloseState.CLOSED
    assert closing.outcome("done") == Closed(CloseFrame(4000), THEIRS, False, "done")


def test_an_empty_close_frame_is_answered_with_an_empty_one() -> None:
    closing = ClosingHandshake()
    assert closing.receive(CloseFrame(1005)) == b"\x88\x00"
    assert closing.outcome() == Closed(CloseFrame(1005), CloseFrame(1005), False)


def test_both_may_close_at_once() -> None:
    closing = ClosingHandshake()
    closing.send(OURS)
    assert closing.receive(THEIRS) is None  # ours went out before; it stands for the answer
    assert closing.outcome() == Closed(OURS, THEIRS, True)
    assert closing.outcome().clean


def test_a_second_close_frame_changes_nothing_in_either_direction() -> None:
    closing = ClosingHandshake()
    closing.send(OURS)
    assert closing.send(CloseFrame(1011)) is None
    closing.receive(THEIRS)
    assert closing.receive(CloseFrame(1002)) is None
    assert closing.send(CloseFrame(1011)) is None
    assert closing.outcome() == Closed(OURS, THEIRS, True)


def test_a_transport_lost_before_any_close_frame_is_1006() -> None:
    closing = ClosingHandshake()
    closing.lost()
    assert state(closing) is CloseState.LOST
    assert closing.send(OURS) is None
    assert closing.receive(THEIRS) is None
    assert closing.outcome("reset").code == 1006
    assert closing.outcome("reset") == Closed(None, None, None, "reset")


def test_a_transport_lost_after_our_close_frame_leaves_it_unanswered() -> None:
    closing = ClosingHandshake()
    closing.send(OURS)
    closing.lost()
    assert state(closing) is CloseState.LOST
    assert closing.outcome() == Closed(OURS, None, True)
    assert not closing.outcome().clean


def test_the_peers_close_was_the_first_from_the_moment_it_is_heard() -> None:
    closing = ClosingHandshake()
    closing.hear(THEIRS)
    assert state(closing) is CloseState.OPEN, "it is not answered yet"
    assert closing.outcome() == Closed(None, THEIRS, sent_first=False)
    assert closing.receive(THEIRS) == encode_close(4000)
    assert closing.outcome() == Closed(CloseFrame(4000), THEIRS, sent_first=False)


def test_a_close_that_was_heard_and_not_answered_when_the_transport_is_lost_was_received() -> None:
    closing = ClosingHandshake()
    closing.hear(THEIRS)
    closing.lost()
    assert closing.outcome("reset") == Closed(None, THEIRS, False, "reset")


@pytest.mark.parametrize("ours_first", [True, False])
def test_what_is_heard_after_a_close_frame_changes_nothing(ours_first: bool) -> None:
    closing = ClosingHandshake()
    if ours_first:
        closing.send(OURS)
    else:
        closing.receive(THEIRS)
    before = closing.outcome()
    closing.hear(CloseFrame(1011, "too late"))
    assert closing.outcome() == before


def test_losing_the_transport_after_the_handshake_is_its_normal_end() -> None:
    closing = ClosingHandshake()
    closing.receive(THEIRS)
    closing.lost()
    assert state(closing) is CloseState.CLOSED
    assert closing.outcome().clean


@pytest.mark.parametrize("frame", [CloseFrame(1006), CloseFrame(1000, "x" * 124)])
def test_a_close_frame_that_may_not_be_sent_leaves_the_handshake_open(frame: CloseFrame) -> None:
    closing = ClosingHandshake()
    with pytest.raises(ValueError):
        closing.send(frame)
    assert state(closing) is CloseState.OPEN
    assert closing.send(OURS) is not None
