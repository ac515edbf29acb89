"""Long attacks run when they are asked for: `-m attack`, or `make attack`."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "attack" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("attack")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
