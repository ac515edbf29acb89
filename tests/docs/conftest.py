from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.following import Folder

Follow = Callable[[str], Folder]


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Follow]:
    """Return a function that saves a page's files in a folder of their own, on the import path."""
    folders: list[Folder] = []

    def save(page: str) -> Folder:
        folders.append(Folder(tmp_path, page))
        return folders[-1]

    monkeypatch.syspath_prepend(tmp_path)
    yield save
    for folder in folders:
        folder.forget()
