"""What a route may say besides its path, read from what its decorator was called with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, Protocol, TypeVar

import attrs

from wsframework.calling import Given, Guard, Step, check_steps
from wsframework.config import Deflate, Limits, Timeouts
from wsframework.errors import RouteError
from wsframework.origins import Origins
from wsframework.routing import Template

__all__ = ["RouteOptions", "SharedNumbers"]

_OF_A_ROUTE = frozenset(
    {
        "body_bytes",
        "message_bytes",
        "unread_bytes",
        "outbox_bytes",
        "message_fragments",
        "unpaid_frames",
        "memberships",
        "guard",
        "http",
        "body",
        "close",
        "disconnect_grace",
        "last_words",
    }
)
"""What may differ from route to route: it is about one request or one connection. The rest applies before the
route is known, or to the whole server."""

NumbersT = TypeVar("NumbersT", Limits, Timeouts)


class SharedNumbers(Protocol):
    """The limits and timeouts of an App."""

    limits: Limits
    timeouts: Timeouts


@attrs.frozen(eq=False)
class RouteOptions:
    """What a route may say besides its path.

    Attributes:
        steps: the route's guards and then its given functions, called after the App's own guards, in order.
        compression: the route's own permessage-deflate, when `own_compression`; else the App's counts.
        own_compression: whether the route has its own setting for compression.
        origins: the route's own allow-list, or None for the App's.
        guarded: whether the App's own guards are asked.
        limits: the route's own limits, or None for the App's.
        timeouts: the route's own timeouts, or None for the App's.
        in_thread: whether the handler is called in a thread.
        told: events of the handler that are logged once and have been logged, for all its routes together.
    """

    steps: tuple[Step, ...] = ()
    compression: Deflate | None = None
    own_compression: bool = False
    origins: Origins | None = None
    guarded: bool = True
    limits: Limits | None = None
    timeouts: Timeouts | None = None
    in_thread: bool = False
    told: set[str] = attrs.field(factory=set)

    @property
    def given(self) -> tuple[str, ...]:
        """The names of the handler's arguments that given functions return."""
        return tuple(step.gives for step in self.steps if step.gives is not None)

    @classmethod
    def read(
        cls,
        template: Template,
        shared: SharedNumbers,
        guards: Iterable[Guard],
        given: Mapping[str, Given] | None,
        origins: str | Iterable[str] | None,
        *,
        compression: Deflate | Literal["app"] | None = "app",
        guarded: bool = True,
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
    ) -> RouteOptions:
        """Read what a decorator was called with.

        Raises:
            RouteError: `compression` or the parameters of a function do not fit, or `limits` or `timeouts`
                differ from the shared ones in what no route can have for itself.
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
            limits=_of_a_route(template, "limits", limits, shared.limits),
            timeouts=_of_a_route(template, "timeouts", timeouts, shared.timeouts),
        )


def _of_a_route(template: Template, what: str, own: NumbersT | None, shared: NumbersT) -> NumbersT | None:
    if own is None:
        return None
    kind = type(shared)
    if not isinstance(own, kind):
        raise RouteError(f"path {template.text!r}: {what} is a {kind.__name__} or None, not {own!r}")
    for field in attrs.fields(kind):
        mine, theirs = getattr(own, field.name), getattr(shared, field.name)
        if mine != theirs and field.name not in _OF_A_ROUTE:
            raise RouteError(
                f"path {template.text!r}: {what} has {field.name}={mine!r} and the App {theirs!r}, but "
                "this is about the whole server, and no route can have its own. For all other settings of "
                f"the App, write {what}=attrs.evolve(app.{what}, …)"
            )
    return own
