"""What holds for every test. Those that take minutes run on request only: `make attack`, `make chaos`."""

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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [marker for marker in ("attack", "chaos") if marker not in config.option.markexpr]
    long = [item for item in items if any(map(item.get_closest_marker, left_out))]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
