"""`wsframework run --reload`: watch the files of a program while it is developed."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

import trio
import watchfiles

from wsframework.errors import ConfigurationError

__all__ = ["folder_of", "watch_files", "watcher"]

_STEP_MILLISECONDS = 50
"""After the last change, before changes are reported: editors write a file in several steps."""

_LONGEST_MILLISECONDS = 400


def watcher(target: str, more: Sequence[Path]) -> Callable[[Callable[[], None]], Awaitable[None]]:
    """Return what watches the files of a program; see `watch_files`.

    Args:
        target: `module:app`.
        more: folders to watch beside the App's.

    Raises:
        ConfigurationError: one of them is no folder.
    """
    for folder in more:
        if not folder.is_dir():
            raise ConfigurationError(f"--reload-dir {folder}: there is no such folder")
    return functools.partial(watch_files, [folder_of(target, Path.cwd()), *more])


def folder_of(target: str, directory: Path) -> Path:
    """Return the folder that has the module's files, without importing it.

    Args:
        target: `module:app`.
        directory: where modules are looked for; what is installed is not watched.
    """
    name = target.partition(":")[0].partition(".")[0]
    found = PathFinder.find_spec(name, [str(directory)]) if name.isidentifier() else None
    folders = found.submodule_search_locations if found is not None else None
    return Path(next(iter(folders))) if folders else directory


async def watch_files(folders: Iterable[Path], changed: Callable[[], None]) -> None:
    """Call `changed` when Python files below the folders have changed, until cancelled.

    Cancellation: a thread goes on for some milliseconds.
    """
    # It logs every change; ours says what is done about it.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    stop = threading.Event()
    changes = watchfiles.watch(
        *folders,
        watch_filter=watchfiles.PythonFilter(),
        debounce=_LONGEST_MILLISECONDS,
        step=_STEP_MILLISECONDS,
        stop_event=stop,
        raise_interrupt=False,
    )
    try:
        while await trio.to_thread.run_sync(next, changes, None, abandon_on_cancel=True):
            changed()
    finally:
        stop.set()
