from __future__ import annotations

import pytest

from tests.contract.hosts import HOSTS, Host


@pytest.fixture(params=HOSTS, ids=lambda host: str(host.name))
def host(request: pytest.FixtureRequest) -> Host:
    assert isinstance(request.param, Host)
    return request.param
