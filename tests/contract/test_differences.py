"""The list of differences is neither longer nor shorter than what the suite checks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.contract.differences import Difference
from tests.contract.hosts import HOSTS, Host


@pytest.mark.parametrize("difference", Difference)
def test_every_difference_is_checked_by_a_test(difference: Difference) -> None:
    sources = [path.read_text() for path in Path(__file__).parent.glob("test_*.py") if str(path) != __file__]
    assert any(f"differs(Difference.{difference.name})" in source for source in sources)


def test_only_a_plain_trio_websocket_server_differs() -> None:
    [plain] = [host for host in HOSTS if host.name == "trio-websocket-plain"]
    assert all(not other.differences for other in HOSTS if other is not plain)
    assert plain.differences == set(Difference)


async def test_the_host_in_asyncio_is_there(host: Host) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        assert not host.in_asyncio
    else:
        assert host.in_asyncio
