"""What a route may say besides its path, read from what its decorator was called with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import attrs

from wsframework.calling import Given, Guard, Step, check_steps
from wsframework.config import Deflate
from wsframework.errors import RouteError
from wsframework.origins import Origins
from wsframework.routing import Template

__all__ = ["RouteOptions"]


@attrs.frozen(eq=False)
class RouteOptions:
    """What a route may say besides its path.

    Attributes:
        steps: the route's guards and then its given functions, called after the App's own guards, in order.
        compression: the route's own permessage-deflate, when `own_compression`; else the App's counts.
        own_compression: whether the route has its own setting for compression.
        origins: the route's own allow-list, or None for the App's.
        guarded: whether the App's own guards are asked.
        in_thread: whether the handler is called in a thread.
        told: events of the handler that are logged once and have been logged, for all its routes together.
    """

    steps: tuple[Step, ...] = ()
    compression: Deflate | None = None
    own_compression: bool = False
    origins: Origins | None = None
    guarded: bool = True
    in_thread: bool = False
    told: set[str] = attrs.field(factory=set)

    @classmethod
    def read(
        cls,
        template: Template,
        guards: Iterable[Guard],
        given: Mapping[str, Given] | None,
        origins: str | Iterable[str] | None,
        *,
        compression: Deflate | Literal["app"] | None = "app",
        guarded: bool = True,
    ) -> RouteOptions:
        """Read what a decorator was called with.

        Raises:
            RouteError: `compression` or the parameters of a function do not fit.
            ConfigurationError: an entry of `origins` is not an origin.
        """
        own = compression != "app"
        if own and not (compression is None or isinstance(compression, Deflate)):
            raise RouteError(f'compression is a Deflate, None or "app", not {compression!r}')
        return cls(
            steps=check_steps(guards, given, template.text, template.names),
            compression=compression if isinstance(compression, Deflate) else None,
            own_compression=own,
            origins=None if origins is None else Origins.parse(origins),
            guarded=guarded,
        )
