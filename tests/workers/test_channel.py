from __future__ import annotations

import os
import socket

import pytest
import trio

from wsframework.workers.channel import Channel


@pytest.fixture
def ends() -> tuple[Channel, Channel]:
    first, second = socket.socketpair()
    return Channel(first), Channel(second)


async def test_messages_arrive_in_order_until_the_other_end_is_closed(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send("running", {"ends_within": 2.5})
    ours.send("leaving")
    # Longer than what is read at once.
    ours.send("failed", {"line": "x" * 100_000})
    ours.close()
    found = [message async for message in theirs]
    assert found[:2] == [("running", {"ends_within": 2.5}), ("leaving", None)]
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


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"garbage", id="text"),
        pytest.param(b"", id="empty"),
        pytest.param(b"[1, 2]", id="list"),
        pytest.param(b"{}", id="no key"),
        pytest.param(b'{"ready": null, "running": null}', id="two keys"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b"{" * 3_000_000, id="long"),
    ],
)
async def test_a_line_that_is_no_message_is_left_out(ends: tuple[Channel, Channel], line: bytes) -> None:
    ours, theirs = ends
    writer = ours.fileno()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_all, writer, line + b"\n")
        with trio.fail_after(30):
            # What comes with the end of a line is a line of its own.
            assert await anext(theirs) == ("leaving", None)
    ours.close()
    theirs.close()


async def write_all(fd: int, data: bytes) -> None:
    for message in (data, b'{"leaving": null}\n'):
        left = memoryview(message)
        while left:
            await trio.lowlevel.wait_writable(fd)
            left = left[os.write(fd, left) :]
