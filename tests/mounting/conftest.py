"""The transports on which every bridge is tried, and TLS for two of them."""

from __future__ import annotations

import pytest

from tests.server.conftest import contexts

__all__ = ["contexts", "kind"]


@pytest.fixture(params=["hub", "hub-tls", "stream", "stream-tls"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)
