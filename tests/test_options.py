"""What a route may say besides its path."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from wsframework.app import App
from wsframework.config import Deflate, Limits, Timeouts
from wsframework.errors import ConfigurationError, RouteError
from wsframework.options import RouteOptions
from wsframework.request import Request
from wsframework.routing import Template
from wsframework.testing import request

SERVERS = {
    "limits": {
        *("head_bytes", "head_fields", "connections", "connections_per_address", "ipv6_prefix_bits"),
        *("ipv4_prefix_bits", "connection_age", "tls_handshakes", "threads", "posts"),
    },
    "timeouts": {"handshake", "keep_alive", "drain", "lifespan"},
}

TEMPLATE = Template.parse("/rooms/{room}")


async def of_a_room(request: Request, room: str) -> None: ...


def test_without_anything_the_apps_settings_count() -> None:
    options = RouteOptions.read(TEMPLATE, App(), (), None, None)
    assert options.steps == ()
    assert (options.own_compression, options.compression, options.origins) == (False, None, None)
    assert options.guarded


def test_guards_come_before_given_functions_and_may_take_the_paths_parameters() -> None:
    options = RouteOptions.read(TEMPLATE, App(), [of_a_room], {"found": of_a_room}, ())
    assert [(step.takes, step.gives) for step in options.steps] == [(("room",), None), (("room",), "found")]


@pytest.mark.parametrize("own", [None, Deflate()])
def test_a_routes_own_compression_may_be_none(own: Deflate | None) -> None:
    options = RouteOptions.read(TEMPLATE, App(), (), None, None, compression=own)
    assert (options.own_compression, options.compression) == (True, own)


def test_a_route_has_its_own_limits_in_what_is_about_one_connection_or_request() -> None:
    app = App(limits=Limits(connections=5, unread_bytes=2), timeouts=Timeouts(drain=1))
    limits, timeouts = attrs.evolve(app.limits, message_bytes=7), attrs.evolve(app.timeouts, guard=3)
    options = RouteOptions.read(TEMPLATE, app, (), None, None, limits=limits, timeouts=timeouts)
    assert (options.limits, options.timeouts) == (limits, timeouts)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"limits": Limits(connections=7)}, r"limits has connections=7 and the App 20000, .*whole server"),
        (
            {"limits": Limits(head_bytes=7)},
            r"limits has head_bytes=7 .* write limits=attrs.evolve\(app.limits",
        ),
        ({"timeouts": Timeouts(drain=7)}, r"timeouts has drain=7 and the App 10.0"),
        ({"timeouts": Timeouts(keep_alive=7)}, "keep_alive"),
        ({"limits": 7}, "limits is a Limits or None, not 7"),
        ({"timeouts": Limits()}, "timeouts is a Timeouts or None"),
    ],
)
def test_what_is_about_the_whole_server_is_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(RouteError, match=why):
        RouteOptions.read(TEMPLATE, App(), (), None, None, **wrong)


def test_every_setting_is_either_a_routes_or_the_servers() -> None:
    kinds: list[tuple[str, Any]] = [("limits", Limits()), ("timeouts", Timeouts())]
    for what, shared in kinds:
        refused = set[str]()
        for field in attrs.fields(type(shared)):
            other: Any = {what: attrs.evolve(shared, **{field.name: 7})}
            try:
                RouteOptions.read(TEMPLATE, App(), (), None, None, **other)
            except RouteError:
                refused.add(field.name)
        assert refused == SERVERS[what]


def test_what_does_not_fit_is_refused() -> None:
    wrong: Any = True
    with pytest.raises(RouteError, match='compression is a Deflate, None or "app", not True'):
        RouteOptions.read(TEMPLATE, App(), (), None, None, compression=wrong)
    with pytest.raises(ConfigurationError, match="origin"):
        RouteOptions.read(TEMPLATE, App(), (), None, ["nowhere"])


async def test_a_routes_own_limits_count_for_its_requests_bodies() -> None:
    app = App()

    async def length(request: Request) -> str:
        return str(len(await request.body()))

    app.http("/app", methods=["POST"])(length)
    app.http("/small", methods=["POST"], limits=Limits(body_bytes=10))(length)
    for path, size, status in (("/app", 11, 200), ("/small", 10, 200), ("/small", 11, 413)):
        assert (await request(app, "POST", path, body=b"x" * size)).status == status, (path, size)
