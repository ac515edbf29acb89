"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wsframework.server import blocking


@pytest.fixture(autouse=True, scope="session")
def _busy_machine() -> Iterator[None]:
    """Let an event loop stand still for seconds without a record: other programs use the processors too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocking, "_BLOCKED_SECONDS", 3.0)
        yield
