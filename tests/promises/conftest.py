"""The stage for every test in this folder, once for each transport."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest

from tests.promises.stage import Journal, Stage, staging
from wsframework.server.native import TransportChoice


@pytest.fixture(params=["auto", "stream"])
def transport(request: pytest.FixtureRequest) -> TransportChoice:
    """What moves the bytes: what `App.serve` chooses by itself, which is the hub, and Trio's streams."""
    choice: TransportChoice = request.param
    return choice


@pytest.fixture
async def stage(transport: TransportChoice) -> AsyncIterator[Stage]:
    async with staging(transport) as stage:
        yield stage


@pytest.fixture
def journal(caplog: pytest.LogCaptureFixture) -> Journal:
    caplog.set_level(logging.DEBUG)
    return Journal(caplog)
