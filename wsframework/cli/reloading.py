"""`wsframework run --reload`: watch the files of a program while it is developed."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

import trio
import watchfiles

from wsframework.cli.importing import working_directory
from wsframework.errors import ConfigurationError

__all__ = ["folder_of", "watch_files", "watcher"]

_STEP_MILLISECONDS = 50
"""After the last change, before changes are reported: editors write a file in several steps."""

_LONGEST_MILLISECONDS = 400

_LOOK_MILLISECONDS = 100
"""How often to look whether the folders are still the same ones."""

_GONE_SECONDS = 0.2
"""How soon to look again for a folder that is gone."""


def watcher(target: str, more: Sequence[Path]) -> Callable[..., Awaitable[None]]:
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
    return functools.partial(watch_files, [folder_of(target, Path(working_directory())), *more])


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


async def watch_files(
    folders: Iterable[Path],
    changed: Callable[[], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call `changed` when Python files below the folders have changed, until cancelled.

    A folder may be deleted and made again, as when another branch is checked out. `task_status` is told once
    changes are noticed.

    Raises:
        ConfigurationError: the folders cannot be watched.

    Cancellation: a thread goes on for some milliseconds.
    """
    # It logs every change; ours says what is done about it.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    every = list(folders)
    await _watch_these(every, changed, task_status.started)
    while True:
        # One of them is another folder now, which nobody has watched.
        await _watch_these(every, changed, changed)


async def _watch_these(
    folders: Sequence[Path], changed: Callable[[], None], begun: Callable[[], None]
) -> None:
    """Watch until a folder is gone, or is another one of the same name."""
    while None in (watched := _identities(folders)):  # noqa: ASYNC110
        await trio.sleep(_GONE_SECONDS)
    stop = threading.Event()
    changes = watchfiles.watch(
        *folders,
        watch_filter=watchfiles.PythonFilter(),
        debounce=_LONGEST_MILLISECONDS,
        step=_STEP_MILLISECONDS,
        stop_event=stop,
        rust_timeout=_LOOK_MILLISECONDS,
        yield_on_timeout=True,
        raise_interrupt=False,
        ignore_permission_denied=True,
    )
    try:
        while _identities(folders) == watched:
            found = await trio.to_thread.run_sync(next, changes, None, abandon_on_cancel=True)
            begun()
            begun = _nothing
            if found:
                changed()
    except FileNotFoundError:
        return  # just now
    except (OSError, RuntimeError) as error:
        where = ", ".join(map(str, folders))
        raise ConfigurationError(f"--reload cannot watch {where}: {error}") from None
    finally:
        stop.set()


def _identities(folders: Iterable[Path]) -> list[tuple[int, int] | None]:
    return [(found.st_dev, found.st_ino) if (found := _stat(folder)) else None for folder in folders]


def _stat(folder: Path) -> os.stat_result | None:
    try:
        return folder.stat()
    except OSError:
        return None


def _nothing() -> None:
    """Do nothing."""
