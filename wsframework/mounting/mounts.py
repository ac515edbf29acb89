"""The applications that are mounted in an App, by path."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import attrs

from wsframework.errors import MountError, RouteError
from wsframework.mounting.worlds import ASGIApp
from wsframework.origins import Origins
from wsframework.tokens import canonical_path

__all__ = ["Mount", "Mounts", "check_app", "check_mount_path"]


@attrs.define(eq=False)
class Mount:
    """An ASGI application at a path.

    Attributes:
        path: the path, without a slash at its end, except `/` itself.
        app: the application.
        guarded: whether the App's guards are asked.
        origins: the allowed origins of its pages, or None for the App's.
        body_bytes: the largest body of a request, or None.
        state: what its lifespan has left for requests; None where it has no lifespan.
        running: how often its lifespan was entered and not left.
    """

    path: str
    app: ASGIApp
    guarded: bool = True
    origins: Origins | None = None
    body_bytes: int | None = None
    state: dict[str, Any] | None = None
    running: int = 0

    @property
    def name(self) -> str:
        """What it is called in records."""
        return f"mount {self.path}"

    @property
    def root_path(self) -> str:
        """The path as ASGI has it: decoded, and empty for `/`."""
        return unquote(self.path.rstrip("/"))

    def not_running(self) -> MountError:
        """Return what is wrong if there is a request and `running` is 0."""
        return MountError(
            f"{self.name} was not started: serve the App with app.run or app.serve, or with another server "
            "inside `async with app.running():`"
        )

    def takes(self, path: str) -> bool:
        """Whether a path, in the form of `Request.path`, is below it."""
        return path == self.path or path.startswith(self.path.rstrip("/") + "/")


class Mounts:
    """The mounts of an App."""

    def __init__(self) -> None:
        self._mounts: list[Mount] = []

    def __iter__(self) -> Iterator[Mount]:
        return iter(self._mounts)

    def add(self, mount: Mount) -> None:
        """Add a mount.

        Raises:
            RouteError: there is one at its path.
        """
        if any(other.path == mount.path for other in self._mounts):
            raise RouteError(f"there is an application at {mount.path} already")
        self._mounts.append(mount)
        self._mounts.sort(key=lambda mount: -len(mount.path))

    def find(self, path: str) -> Mount | None:
        """Return the mount at the longest prefix of a path."""
        return next((mount for mount in self._mounts if mount.takes(path)), None)


def check_mount_path(path: object) -> str:
    """Return a mount's path in the form of `Request.path`.

    Raises:
        RouteError: it is no path, or one with parameters.
    """
    if not isinstance(path, str) or not path.startswith("/"):
        raise RouteError(f'a mount has a path such as "/api", or "/" for everything, not {path!r}')
    if not {"{", "}", "?", "#"}.isdisjoint(path) or "//" in path:
        raise RouteError(f"mount {path!r}: the path of a mount has no parameters, query or empty parts")
    return canonical_path(path if path == "/" else path.rstrip("/"))


def check_app(app: object, path: str) -> ASGIApp:
    """Return an application when it can be one.

    Raises:
        RouteError: it cannot be called, or is a class, as applications of ASGI 2 and forgotten calls are.
    """
    if inspect.isclass(app) or not callable(app):
        hint = f"; write {app.__name__}()" if inspect.isclass(app) else ""
        raise RouteError(f"mount {path!r}: {app!r} is no ASGI application{hint}")
    return app
