"""Records at a rate."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from wsframework.server.rated import RatedRecord
from wsframework.timers import Timers


async def test_one_record_at_once_and_then_one_every_ten_seconds_with_a_count(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    timers = Timers()
    rated = RatedRecord(timers, logging.ERROR, "it.happened")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        for number in range(35):
            rated.write(number=number)
            await trio.sleep(1 if number else 0.5)
        await trio.sleep(100)
        rated.write(number="later")
        nursery.cancel_scope.cancel()
    assert [entry.getMessage() for entry in caplog.records] == [
        "it.happened number=0",
        "it.happened number=10 count=10 seconds=10.0",
        "it.happened number=20 count=10 seconds=10.0",
        "it.happened number=30 count=10 seconds=10.0",
        "it.happened number=34 count=4 seconds=10.0",
        "it.happened number=later",
    ]
