"""What an App does with applications of other frameworks: it mounts them."""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any

from wsframework.config import Timeouts
from wsframework.deciding import Decider
from wsframework.errors import ConfigurationError, RouteError
from wsframework.mounting import ASGIApp, Mount, check_app, check_mount_path, mounted
from wsframework.origins import Origins

__all__ = ["Lifespan", "Mountable"]

Lifespan = Callable[..., AbstractAsyncContextManager[Any]] | Callable[..., AsyncIterator[Any]]
"""A function that returns an async context manager, or an async generator function with one `yield`."""


class Mountable:
    """The base of `App` that mounts applications."""

    timeouts: Timeouts
    _decider: Decider
    _lifespans: list[Lifespan]

    def mount(
        self,
        path: str,
        asgi_app: ASGIApp,
        *,
        guarded: bool = True,
        origins: str | Iterable[str] | None = None,
        body_bytes: int | None = None,
    ) -> None:
        """Mount an ASGI application, such as one of Starlette, FastAPI or Litestar, below a path.

        It gets the plain requests and WebSockets whose path no route of the App has; of several mounts, the
        one at the longest prefix counts. Each request of a connection is routed anew. Allowed hosts, guards,
        origins and limits come first, as for routes. The application's lifespan is one of the App's: it
        starts before the server accepts connections, and ends after the drain.

        Args:
            path: where it is, such as `/api`; `/` for everything. It is the application's `root_path`.
            asgi_app: the application. It runs on Trio.
            guarded: False exempts it from the App's own guards.
            origins: the allowed origins of its pages, instead of the App's.
            body_bytes: the largest size of a request's body; more is a 413. The default is None, because the
                application reads it in pieces; `Timeouts.body` bounds how long it may make no progress.

        Raises:
            RouteError: the path does not fit or is taken, or the application cannot be one.
            ConfigurationError: an entry of `origins` is not an origin.
        """
        place = check_mount_path(path)
        if body_bytes is not None and not body_bytes > 0:
            raise RouteError(f"mount {path!r}: body_bytes must be greater than 0, not {body_bytes!r}")
        mount = Mount(
            place,
            check_app(asgi_app, path),
            guarded=guarded,
            origins=None if origins is None else Origins.parse(origins),
            body_bytes=body_bytes,
        )
        self._decider.mounts.add(mount)
        self._lifespans.append(functools.partial(mounted, mount, self.timeouts.lifespan))

    def files(
        self, path: str, folder: str | os.PathLike[str], *, html: bool = False, guarded: bool = True
    ) -> None:
        """Serve the files of a folder, with Starlette's `StaticFiles`: ranges, ETag and Last-Modified.

        It needs the extra `http`. What is outside of the folder is not served, nor what symbolic links in it
        lead to outside.

        Args:
            path: where, such as `/static`.
            folder: the folder.
            html: whether `index.html` is the page of its folder, and `404.html` that of what is not there.
            guarded: False exempts the files from the App's own guards.

        Raises:
            ConfigurationError: Starlette is not installed, or there is no such folder.
            RouteError: the path does not fit, or is taken.
        """
        try:
            from wsframework.mounting.starlette import static_files
        except ImportError:
            raise ConfigurationError("app.files needs Starlette: pip install 'wsframework[http]'") from None
        self.mount(path, static_files(folder, html=html), guarded=guarded)

    @property
    def mounts(self) -> tuple[str, ...]:
        """The paths of the mounted applications."""
        return tuple(sorted(mount.path for mount in self._decider.mounts))
