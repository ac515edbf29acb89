"""What a route may say besides its path."""

from __future__ import annotations

from typing import Any

import pytest

from wsframework.config import Deflate
from wsframework.errors import ConfigurationError, RouteError
from wsframework.options import RouteOptions
from wsframework.request import Request
from wsframework.routing import Template

TEMPLATE = Template.parse("/rooms/{room}")


async def of_a_room(request: Request, room: str) -> None: ...


def test_without_anything_the_apps_settings_count() -> None:
    options = RouteOptions.read(TEMPLATE, (), None, None)
    assert options.steps == ()
    assert (options.own_compression, options.compression, options.origins) == (False, None, None)
    assert options.guarded


def test_guards_come_before_given_functions_and_may_take_the_paths_parameters() -> None:
    options = RouteOptions.read(TEMPLATE, [of_a_room], {"found": of_a_room}, ())
    assert [(step.takes, step.gives) for step in options.steps] == [(("room",), None), (("room",), "found")]


@pytest.mark.parametrize("own", [None, Deflate()])
def test_a_routes_own_compression_may_be_none(own: Deflate | None) -> None:
    options = RouteOptions.read(TEMPLATE, (), None, None, compression=own)
    assert (options.own_compression, options.compression) == (True, own)


def test_what_does_not_fit_is_refused() -> None:
    wrong: Any = True
    with pytest.raises(RouteError, match='compression is a Deflate, None or "app", not True'):
        RouteOptions.read(TEMPLATE, (), None, None, compression=wrong)
    with pytest.raises(ConfigurationError, match="origin"):
        RouteOptions.read(TEMPLATE, (), None, ["nowhere"])
