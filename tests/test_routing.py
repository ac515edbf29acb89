from __future__ import annotations

import functools
import inspect
import itertools
import uuid
from collections.abc import Iterable
from typing import Any

import pytest

from tests.test_calling import Handlers, decorated, with_default
from wsframework.errors import RouteError
from wsframework.routing import (
    Match,
    NoPath,
    NoSubprotocol,
    Route,
    Router,
    Template,
    check_methods,
    check_subprotocols,
)
from wsframework.tokens import canonical_path

UUID = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"


async def anything(ws: object, **parameters: object) -> None:
    """Stand for a handler."""


def make(*templates: str, keys: tuple[str | None, ...] = (None,), kind: str = "websocket") -> Router[str]:
    router: Router[str] = Router()
    for text in templates:
        router.add(Route(Template.parse(text), kind, keys, anything, text))
    return router


def found(
    router: Router[str], path: str, wanted: Iterable[str | None] = (None,)
) -> tuple[str, dict[str, Any]]:
    match = router.resolve(canonical_path(path), wanted)
    assert isinstance(match, Match)
    return match.route.options, match.parameters


# Templates


@pytest.mark.parametrize(
    ("template", "path", "parameters"),
    [
        ("/", "/", {}),
        ("/rooms", "/rooms", {}),
        ("/rooms/{room}", "/rooms/lobby", {"room": "lobby"}),
        ("/rooms/{room:str}", "/rooms/a%20b", {"room": "a b"}),
        ("/rooms/{room}", "/rooms/a%2Fb", {"room": "a/b"}),
        ("/rooms/{room}", "/rooms/a%2fb", {"room": "a/b"}),
        ("/rooms/{room}", "/rooms/caf%C3%A9", {"room": "café"}),
        ("/rooms/{room}", "/rooms/café", {"room": "café"}),
        ("/rooms/{room}", "/rooms/100%", {"room": "100%"}),
        ("/rooms/{room}", "/rooms/a%0Ab", {"room": "a\nb"}),
        ("/users/{id:int}", "/users/42", {"id": 42}),
        ("/users/{id:int}", "/users/-1", {"id": -1}),
        ("/users/{id:int}", "/users/%34%32", {"id": 42}),
        ("/at/{x:float}", "/at/1.5", {"x": 1.5}),
        ("/at/{x:float}", "/at/-2", {"x": -2.0}),
        ("/jobs/{job:uuid}", f"/jobs/{UUID}", {"job": uuid.UUID(UUID)}),
        ("/jobs/{job:uuid}", f"/jobs/{UUID.upper()}", {"job": uuid.UUID(UUID)}),
        ("/files/{name:path}", "/files/a/b/c.txt", {"name": "a/b/c.txt"}),
        ("/files/{name:path}", "/files/", {"name": ""}),
        ("/{name:path}", "/", {"name": ""}),
        ("/{name:path}/edit", "//edit", {"name": ""}),
        ("/{a:path}{b:int}", "/7", {"a": "", "b": 7}),
        ("/{a}/{b:int}/end", "/x/7/end", {"a": "x", "b": 7}),
        ("/{year:int}-{month:int}", "/2024-05", {"year": 2024, "month": 5}),
        ("/v{version:float}/chat", "/v1.2/chat", {"version": 1.2}),
        ("/a.b/{x}", "/a.b/1", {"x": "1"}),
    ],
)
def test_a_path_that_fits_gives_converted_parameters(
    template: str, path: str, parameters: dict[str, Any]
) -> None:
    assert found(make(template), path) == (template, parameters)


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("/rooms", "/rooms/"),
        ("/rooms", "/Rooms"),
        ("/rooms", "/room"),
        ("/rooms/{room}", "/rooms"),
        ("/rooms/{room}", "/rooms/"),
        ("/rooms/{room}", "/rooms/a/b"),
        ("/users/{id:int}", "/users/x"),
        ("/users/{id:int}", "/users/4.2"),
        ("/users/{id:int}", "/users/٤٢"),
        ("/users/{id:int}", "/users/" + "9" * 5000),  # more digits than int() takes
        ("/at/{x:float}", "/at/1e5"),
        ("/at/{x:float}", "/at/nan"),
        ("/at/{x:float}", "/at/-" + "9" * 400),  # minus infinity for float()
        ("/at/{x:float}", "/at/.5"),
        ("/jobs/{job:uuid}", "/jobs/" + UUID.replace("-", "")),
        ("/files/{name:path}", "/files"),
        ("/rooms/{room}", "/rooms/%FF"),  # no UTF-8
        ("/a.b/{x}", "/a-b/1"),
        ("/rooms", "*"),
        ("/rooms", ""),
    ],
)
def test_a_path_that_does_not_fit_is_not_found(template: str, path: str) -> None:
    assert make(template).resolve(path, (None,)) == NoPath()
    assert canonical_path(path) not in make(template)


@pytest.mark.parametrize(
    ("template", "paths"),
    [
        ("/café", ["/café", "/caf%C3%A9", "/caf%c3%a9"]),
        ("/caf%C3%A9", ["/café", "/caf%C3%A9"]),
        ("/a b", ["/a%20b", "/a b"]),
        ("/a|b", ["/a%7Cb", "/a|b"]),  # browsers leave "|" as it is
        ("/a[1]^", ["/a%5B1%5D%5E", "/a[1]^"]),
        ("/~me", ["/~me", "/%7Eme", "/%7eme"]),
        ("/a%2Fb", ["/a%2Fb", "/a%2fb"]),
        ("/a@b:c,d;e=1", ["/a@b:c,d;e=1", "/a%40b%3Ac%2Cd%3Be%3D1"]),
        ("/100%", ["/100%", "/100%25"]),
    ],
)
def test_paths_are_equal_however_they_are_escaped(template: str, paths: list[str]) -> None:
    for path in paths:
        assert found(make(template), path) == (template, {})
        assert found(make(template + "/{x}"), path + "/1") == (template + "/{x}", {"x": "1"})


@pytest.mark.parametrize(
    ("template", "path", "parameters"),
    [
        ("/{a}-{b}", "/x-y-z", {"a": "x-y", "b": "z"}),
        ("/{a}{b}", "/xyz", {"a": "xy", "b": "z"}),
        ("/{a:int}{b:int}", "/123", {"a": 12, "b": 3}),
        ("/{a:int}{b:int}", "/1-23", {"a": 1, "b": -23}),
        ("/{a:float}{b:int}", "/1.25", {"a": 1.2, "b": 5}),
        ("/{a:float}.{b}", "/1.5.x", {"a": 1.5, "b": "x"}),
        ("/{a:path}/x/{b:path}", "/1/x/2/x/3", {"a": "1/x/2", "b": "3"}),
        ("/{a:path}/{b}", "/1/2/3", {"a": "1/2", "b": "3"}),
        ("/{a:uuid}{b}", f"/{UUID}!", {"a": uuid.UUID(UUID), "b": "!"}),
        ("/{a}%2F{b}", "/x%2Fy%2Fz", {"a": "x/y", "b": "z"}),
    ],
)
def test_where_several_splits_fit_the_first_parameter_takes_as_much_as_it_can(
    template: str, path: str, parameters: dict[str, Any]
) -> None:
    assert found(make(template), path) == (template, parameters)


def test_an_escaped_slash_is_no_separator() -> None:
    assert "/a/b" not in make("/a%2Fb")
    assert "/a%2Fb" not in make("/a/b")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rooms", "a path starts with '/'"),
        ("", "a path starts with '/'"),
        ("/rooms?x=1", "no query and no fragment"),
        ("/rooms#top", "no query and no fragment"),
        ("/rooms/{room", "has no partner"),
        ("/rooms/room}", "has no partner"),
        ("/rooms/{{room}}", "has no partner"),
        ("/rooms/{}", "{} needs a name"),
        ("/rooms/{:int}", "{:int} needs a name"),
        ("/rooms/{a-b}", "{a-b} needs a name that is a Python identifier"),
        ("/rooms/{1}", "{1} needs a name"),
        ("/{a}/{a}", "the parameter 'a' occurs twice"),
        ("/{a:number}", "unknown converter 'number'; there are float, int, path, str, uuid"),
    ],
)
def test_a_template_that_makes_no_sense_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(RouteError) as caught:
        Template.parse(text)
    assert str(caught.value).startswith(f"path {text!r}: ")
    assert why in str(caught.value)


# Which path wins


@pytest.mark.parametrize(
    ("templates", "winners"),
    [
        (["/rooms/{room}", "/rooms/lobby"], {"/rooms/lobby": 1, "/rooms/x": 0}),
        (["/{a}/x", "/x/{b}"], {"/x/x": 1, "/y/x": 0}),
        (
            ["/{x}", "/{x:int}", "/{x:float}", "/{x:uuid}", "/{x:path}"],
            {"/a": 0, "/1": 1, "/1.5": 2, f"/{UUID}": 3, "/a/b": 4},
        ),
        (["/files/{p:path}", "/files/{p:path}/edit"], {"/files/a/b/edit": 1, "/files/a/b": 0}),
        (["/files/{p:path}", "/files/{name}"], {"/files/a": 1, "/files/a/b": 0}),
        (["/files/{p:path}", "/files/{name}/edit"], {"/files/a/edit": 1, "/files/a/b": 0}),
        (["/{a}", "/{a}-{b}"], {"/x-y": 1, "/x": 0}),
        (["/{a}", "/{a}.json"], {"/x.json": 1, "/x": 0}),
        (["/a{x}", "/ab{x}"], {"/abc": 1, "/ac": 0}),
        (["/{x}/b", "/{x}/b{y}"], {"/1/b": 0, "/1/bc": 1}),
        (["/{p:path}/{id:int}", "/{p:path}/new"], {"/a/b/new": 1, "/a/b/3": 0}),
        (["/{p:path}", "/static/{p:path}"], {"/static/x": 1, "/other": 0, "/static/": 1, "/static": 0}),
        (["/files/{p:path}", "/files/"], {"/files/": 1, "/files/a": 0}),
    ],
)
def test_the_most_specific_template_wins_in_any_order_of_registration(
    templates: list[str], winners: dict[str, int]
) -> None:
    for order in itertools.permutations(templates):
        router = make(*order)
        for path, winner in winners.items():
            assert found(router, path)[0] == templates[winner], order


def test_each_route_of_a_path_names_its_parameters_itself() -> None:
    router: Router[str] = Router()
    router.add(Route(Template.parse("/rooms/{room}"), "websocket", ("chat",), anything, "chat"))
    router.add(Route(Template.parse("/rooms/{name}"), "websocket", ("draw",), anything, "draw"))
    assert found(router, "/rooms/a", ("chat",)) == ("chat", {"room": "a"})
    assert found(router, "/rooms/a", ("draw",)) == ("draw", {"name": "a"})


# Which route of the path wins


def several() -> Router[str]:
    router: Router[str] = Router()
    for keys in [("chat", "superchat"), ("draw",), (None,)]:
        router.add(Route(Template.parse("/ws"), "websocket", keys, anything, str(keys[0])))
    return router


@pytest.mark.parametrize(
    ("wanted", "key", "route"),
    [
        (("chat", None), "chat", "chat"),
        (("superchat", "chat", None), "superchat", "chat"),
        (("draw", "chat", None), "draw", "draw"),
        (("soap", "draw", None), "draw", "draw"),
        (("soap", None), None, "None"),
        ((None,), None, "None"),
    ],
)
def test_the_clients_first_offer_with_a_handler_wins_then_the_one_that_asks_for_none(
    wanted: tuple[str | None, ...], key: str | None, route: str
) -> None:
    match = several().resolve("/ws", wanted)
    assert isinstance(match, Match)
    assert (match.key, match.route.options) == (key, route)


def test_a_path_without_the_wanted_subprotocol_says_which_it_has() -> None:
    assert make("/ws", keys=("chat", "draw")).resolve("/ws", ("soap", None)) == NoSubprotocol(
        ("chat", "draw")
    )
    assert several().resolve("/ws", ("soap",)) == NoSubprotocol(("chat", "superchat", "draw"))


def test_a_path_is_contained_whatever_it_speaks() -> None:
    router = make("/ws", "/rooms/{room}", keys=("chat",))
    assert "/ws" in router
    assert "/rooms/a" in router
    assert "/other" not in router


def test_routes_are_listed_in_the_order_of_registration() -> None:
    router = make("/b", "/{x}", "/a")
    assert [route.options for route in router.routes] == ["/b", "/{x}", "/a"]


@pytest.mark.parametrize(
    ("kind", "first", "second", "what"),
    [
        ("websocket", (None,), (None,), "no subprotocol"),
        ("websocket", ("chat", "draw"), ("soap", "draw"), "subprotocol 'draw'"),
        ("http", ("GET", "HEAD"), ("HEAD",), "HEAD"),
    ],
)
@pytest.mark.parametrize(("template", "again"), [("/ws", "/ws"), ("/{x}/a b", "/{y}/a%20b")])
def test_the_same_path_and_key_twice_is_refused_and_names_the_first(
    kind: str,
    first: tuple[str | None, ...],
    second: tuple[str | None, ...],
    what: str,
    template: str,
    again: str,
) -> None:
    router = make(template, keys=first, kind=kind)
    with pytest.raises(RouteError) as caught:
        router.add(Route(Template.parse(again), kind, second, anything, "again"))
    line = inspect.getsourcelines(anything)[1]
    assert str(caught.value) == (
        f"path {again!r} is already registered for {what}: anything at {__file__}:{line}"
    )
    assert len(router.routes) == 1
    if second[0] == "soap":
        # A refused route leaves nothing of itself behind.
        assert isinstance(router.resolve(again.replace("{y}", "1"), ("soap",)), NoSubprotocol)


# Handlers


@pytest.mark.parametrize(
    ("handler", "name", "source"),
    [
        (anything, "anything", anything),
        (Handlers().method, "Handlers.method", Handlers.method),
        (Handlers(), "Handlers.__call__", Handlers.__call__),
        (decorated, "decorated", inspect.unwrap(decorated)),
        (functools.partial(with_default, limit=1), "with_default", with_default),
    ],
)
def test_a_route_knows_its_handlers_name_and_place(handler: Any, name: str, source: Any) -> None:
    route = Route(Template.parse("/{room}"), "websocket", (None,), handler, "")
    assert route.name == name
    code = source.__code__
    assert route.place == f"{code.co_filename}:{code.co_firstlineno}"


def test_a_handler_without_python_code_has_no_place() -> None:
    compiled: Any = print
    route = Route(Template.parse("/{room}"), "websocket", (None,), compiled, "")
    assert (route.name, route.place) == ("print", "?")


# Subprotocols


def test_subprotocols_are_keys_and_none_of_them_means_asking_for_none() -> None:
    assert check_subprotocols(["chat", "v2.chat"]) == ("chat", "v2.chat")
    assert check_subprotocols(name for name in ("a", "b")) == ("a", "b")
    assert check_subprotocols(()) == (None,)


@pytest.mark.parametrize(
    ("subprotocols", "why"),
    [
        ("chat", "write ['chat'], not 'chat'"),
        (None, "subprotocols is a list of names, not None"),
        (["two words"], "'two words' cannot be a subprotocol: it must be a token"),
        ([""], "'' cannot be a subprotocol"),
        (["a,b"], "'a,b' cannot be a subprotocol"),
        (["chat\n"], "cannot be a subprotocol"),
        ([None], "None cannot be a subprotocol"),
        (["a", "b", "a"], "a subprotocol occurs twice in ['a', 'b', 'a']"),
    ],
)
def test_what_cannot_be_a_subprotocol_is_refused_with_the_reason(subprotocols: object, why: str) -> None:
    with pytest.raises(RouteError) as caught:
        check_subprotocols(subprotocols)
    assert why in str(caught.value)


def test_methods_are_keys_in_upper_case_and_get_includes_head() -> None:
    assert check_methods(["GET"]) == check_methods("get") == check_methods(["get", "GET"]) == ("GET", "HEAD")
    assert check_methods(name for name in ("POST", "propfind")) == ("POST", "PROPFIND")
    assert check_methods(["HEAD"]) == ("HEAD",)


@pytest.mark.parametrize(
    ("methods", "why"),
    [
        (None, "methods is a list of names, not None"),
        ([], "methods is empty"),
        ("", "'' cannot be an HTTP method: it must be a token such as 'POST'"),
        (["PO ST"], "'PO ST' cannot be an HTTP method"),
        # It would stand in Allow.
        (["GET\r\nX: y"], "cannot be an HTTP method"),
        (["GÉT"], "'GÉT' cannot be an HTTP method"),
        (["GET", None], "None cannot be an HTTP method"),
        (b"GET", "71 cannot be an HTTP method"),
    ],
)
def test_what_cannot_be_a_method_is_refused_with_the_reason(methods: object, why: str) -> None:
    with pytest.raises(RouteError) as caught:
        check_methods(methods)
    assert why in str(caught.value)
