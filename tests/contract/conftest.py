from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.hosts import HOSTS, Host

MISTAKES = {"connection.failed", "timer.failed", "hub.failed"}


@pytest.fixture(
    params=[
        pytest.param(
            host,
            id=host.name,
            marks=[
                *([pytest.mark.virtual_time] if host.virtual_time else []),
                *([pytest.mark.in_asyncio] if host.in_asyncio else []),
            ],
        )
        for host in HOSTS
    ]
)
def host(request: pytest.FixtureRequest) -> Host:
    assert isinstance(request.param, Host)
    return request.param


@pytest.fixture(autouse=True)
def no_mistakes(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail a test in which the server logged a mistake of its own, whatever its client has seen."""
    yield
    if "host" in request.fixturenames:
        mistakes = [entry for entry in caplog.records if getattr(entry, "event", "") in MISTAKES]
        assert not mistakes, [entry.getMessage() for entry in mistakes]
