from __future__ import annotations

import socket

import pytest

from wsframework.workers.channel import Channel


@pytest.fixture
def ends() -> tuple[Channel, Channel]:
    first, second = socket.socketpair()
    return Channel(first), Channel(second)


async def test_messages_arrive_in_order_until_the_other_end_is_closed(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send("ready", {"ends_within": 2.5})
    ours.send("leaving")
    # Longer than what is read at once.
    ours.send("failed", {"line": "x" * 100_000})
    ours.close()
    found = [message async for message in theirs]
    assert found[:2] == [("ready", {"ends_within": 2.5}), ("leaving", None)]
    assert [(kind, len(str(value))) for kind, value in found[2:]] == [("failed", 100_012)]
    # To a process that is gone.
    theirs.send("stop", "now")
    theirs.close()


async def test_what_is_received_without_trio_leaves_the_rest_for_later(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send("start", {"slot": 1})
    ours.send("stop", "now")
    assert theirs.receive_blocking() == ("start", {"slot": 1})
    assert await anext(theirs) == ("stop", "now")
    ours.close()
    with pytest.raises(EOFError):
        theirs.receive_blocking()
    theirs.close()
