from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from wsframework.server.patience import Patience
from wsframework.timers import Timers

pytestmark = pytest.mark.virtual_time


class Peer:
    def __init__(self, timers: Timers) -> None:
        self.bytes = 0
        self.over: list[float] = []
        self.patience = Patience(
            10.0, timers, lambda: self.bytes, lambda: self.over.append(trio.current_time())
        )

    async def wait(self, seconds: float, size: int = 0) -> None:
        with self.patience.waiting():
            await trio.sleep(seconds)
            self.bytes += size


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    timers = Timers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        yield Peer(timers)
        nursery.cancel_scope.cancel()


async def test_a_peer_that_makes_no_progress_is_given_up(peer: Peer) -> None:
    began = trio.current_time()
    await peer.wait(11)
    assert [round(at - began) for at in peer.over] == [10]


async def test_a_few_bytes_in_many_short_waits_are_no_progress(peer: Peer) -> None:
    for _ in range(20):
        await peer.wait(1, 100)
    assert peer.over[0] == 10


async def test_progress_starts_the_time_anew(peer: Peer) -> None:
    for _ in range(50):
        await peer.wait(5, 2400)
    assert not peer.over


async def test_time_in_which_nobody_waits_does_not_count(peer: Peer) -> None:
    for _ in range(9):
        await peer.wait(1)
        await trio.sleep(100)
    assert not peer.over
    await peer.wait(2)
    assert len(peer.over) == 1


async def test_a_slow_and_steady_peer_is_not_given_up_however_long_a_wait_was(peer: Peer) -> None:
    for _ in range(10):
        with peer.patience.waiting():
            for _ in range(14):
                await trio.sleep(1)
                peer.bytes += 300
    assert not peer.over


async def test_waits_at_the_same_time_count_once(peer: Peer) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.wait, 6)
        await trio.sleep(4)
        nursery.start_soon(peer.wait, 3)
    assert not peer.over
    began = trio.current_time()
    await peer.wait(5)
    assert [round(at - began) for at in peer.over] == [3]
