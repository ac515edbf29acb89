"""The in-memory connection loses what TCP loses, and nothing else."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from wsframework.testing import MemoryStream, memory_pair


async def test_it_keeps_trios_rules_for_streams() -> None:
    async def make() -> tuple[MemoryStream, MemoryStream]:
        return memory_pair()

    async def make_full() -> tuple[MemoryStream, MemoryStream]:
        one, other = memory_pair(buffer_bytes=1)
        for stream in (one, other):
            await stream.send_all(b"x")
        return one, other

    await trio.testing.check_half_closeable_stream(make, make_full)


async def test_a_sender_waits_while_nobody_reads(autojump_clock: trio.abc.Clock) -> None:
    one, other = memory_pair(buffer_bytes=10)
    with trio.move_on_after(1) as limit:
        await one.send_all(b"x" * 11)
    assert limit.cancelled_caught
    assert await other.receive_some() == b"x" * 10


async def test_closing_with_something_left_to_read_is_a_reset_and_loses_what_was_sent() -> None:
    one, other = memory_pair()
    await one.send_all(b"unread")
    await other.send_all(b"in flight")
    await other.aclose()
    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await one.receive_some()


async def test_closing_with_nothing_left_to_read_is_a_fin() -> None:
    one, other = memory_pair()
    await other.send_all(b"in flight")
    await other.aclose()
    assert await one.receive_some() == b"in flight"
    assert await one.receive_some() == b""


async def test_bytes_for_an_end_that_is_closed_cost_the_sender_what_it_has_not_read() -> None:
    one, other = memory_pair()
    await other.send_all(b"in flight")
    await other.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await one.send_all(b"too late")
    with pytest.raises(trio.BrokenResourceError):
        await one.receive_some()


async def test_half_closed_it_still_carries_the_other_direction() -> None:
    one, other = memory_pair()
    await one.send_eof()
    await other.send_all(b"answer")
    assert await one.receive_some() == b"answer"
    assert await other.receive_some() == b""


async def test_a_reset_breaks_both_ends() -> None:
    one, other = memory_pair()
    await one.send_all(b"lost")
    one.reset()
    assert one.closed
    with pytest.raises(trio.BrokenResourceError):
        await other.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await other.send_all(b"x")


@pytest.mark.parametrize("size", [0, -1])
def test_a_buffer_has_at_least_one_byte(size: int) -> None:
    with pytest.raises(ValueError, match="buffer_bytes"):
        memory_pair(buffer_bytes=size)
