from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from tests.server.framed import Make, Transport
from wsframework.config import Limits, Timeouts
from wsframework.timers import Timers


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Make transports whose timers run."""
    timers = Timers()

    def make(
        *, limits: Limits | None = None, timeouts: Timeouts | None = None, deflate: bool = False
    ) -> Transport:
        return Transport(timers, limits or Limits(), timeouts or Timeouts(), deflate)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        yield make
        nursery.cancel_scope.cancel()
