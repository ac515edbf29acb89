from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
import trio.testing

from tests.contract.hosts import HOSTS, Host

MISTAKES = {"connection.failed", "timer.failed", "hub.failed"}


@pytest.fixture(params=HOSTS, ids=lambda host: str(host.name))
def host(request: pytest.FixtureRequest) -> Host:
    assert isinstance(request.param, Host)
    return request.param


@pytest.fixture(autouse=True)
def clock(request: pytest.FixtureRequest) -> trio.abc.Clock | None:
    """Let pytest-trio use a virtual clock where that can be."""
    if "host" in request.fixturenames and request.getfixturevalue("host").virtual_time:
        return trio.testing.MockClock(autojump_threshold=0)
    return None


@pytest.fixture(autouse=True)
def no_mistakes(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which the server logged a mistake of its own, whatever its client has seen."""
    yield
    if "host" in request.fixturenames:
        mistakes = [entry for entry in caplog.records if getattr(entry, "event", "") in MISTAKES]
        assert not mistakes, [entry.getMessage() for entry in mistakes]
