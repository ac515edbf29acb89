"""`wsframework run --reload`: watch the files of a program while it is developed."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
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
    begun: Callable[[], None] = task_status.started
    while True:
        if await _watch_these(every, changed, begun):
            # One of them is another folder now, which nobody has watched.
            begun = changed


async def _watch_these(
    folders: Sequence[Path], changed: Callable[[], None], begun: Callable[[], None]
) -> bool:
    """Watch until a folder is gone, or is another one of the same name; return whether that has begun."""
    while None in (watched := _identities(folders)):  # noqa: ASYNC110
        await trio.sleep(_GONE_SECONDS)
    stop = _Stop(lambda: _identities(folders) != watched, begun)
    changes = watchfiles.watch(
        *folders,
        watch_filter=watchfiles.PythonFilter(),
        debounce=_LONGEST_MILLISECONDS,
        step=_STEP_MILLISECONDS,
        stop_event=stop,
        # With a timeout, it forgets what changes in the moment in which the time is over.
        rust_timeout=0,
        raise_interrupt=False,
        ignore_permission_denied=True,
    )
    try:
        while await trio.to_thread.run_sync(next, changes, None, abandon_on_cancel=True):
            changed()
    except FileNotFoundError:
        return False  # gone just now
    except (OSError, RuntimeError) as error:
        where = ", ".join(map(str, folders))
        raise ConfigurationError(f"--reload cannot watch {where}: {error}") from None
    finally:
        stop.set()
    return True


class _Stop:
    """Tells watchfiles whether to stop: it asks after each step, and so not before it watches.

    Args:
        outdated: whether what it watches is not what should be watched.
        begun: called in Trio's thread once it watches.
    """

    def __init__(self, outdated: Callable[[], bool], begun: Callable[[], None]) -> None:
        self._outdated = outdated
        self._begun: Callable[[], None] | None = begun
        self._token = trio.lowlevel.current_trio_token()
        self._stopped = False

    def set(self) -> None:
        """Say yes from now on."""
        self._stopped = True

    def is_set(self) -> bool:
        """Whether to stop. Runs in the thread of watchfiles."""
        if self._stopped:
            return True
        if self._begun is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._begin, self._begun)
            self._begun = None
        return self._outdated()

    def _begin(self, begun: Callable[[], None]) -> None:
        if not self._stopped:
            begun()


def _identities(folders: Iterable[Path]) -> list[tuple[int, int] | None]:
    return [(found.st_dev, found.st_ino) if (found := _stat(folder)) else None for folder in folders]


def _stat(folder: Path) -> os.stat_result | None:
    try:
        return folder.stat()
    except OSError:
        return None
