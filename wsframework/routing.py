"""Which handler gets a request: path template, then subprotocol. Pure: no I/O, no state beyond the table.

A template is literal text and parameters: `/rooms/{room}`, `/users/{id:int}/files/{name:path}`. A parameter
without a converter is `str`: one path segment. `path` takes anything, and nothing: `/files/` fits
`/files/{name:path}`, and `/files` does not. The most specific template wins, whatever the order of
registration: literal text before a parameter, a narrow converter before a wide one, `path` last.

One path may have many routes. Among the WebSocket routes of the winning path the choice is the first
subprotocol *the client offered* that has a handler, then a handler that asks for none (RFC 6455 §4.2.2
leaves the choice to the server; the client's order is its preference, §4.1).
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar
from urllib.parse import unquote

import attrs

from wsframework.calling import Handler, function_of, name_of
from wsframework.errors import RouteError
from wsframework.matching import Matcher, Path
from wsframework.tokens import canonical_path, is_token

__all__ = [
    "Match",
    "NoPath",
    "NoSubprotocol",
    "Route",
    "Router",
    "Template",
    "check_methods",
    "check_subprotocols",
]


@attrs.frozen
class _Converter:
    pattern: str  # possessive: it never gives back, so that no path can make it try again
    convert: Callable[[str], Any]
    rank: int  # narrow converters are tried before wide ones


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("there is no float as large as this")
    return number


_CONVERTERS: Mapping[str, _Converter] = {
    "uuid": _Converter(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", uuid.UUID, 1),
    "int": _Converter(r"-?[0-9]++", int, 2),
    "float": _Converter(r"-?[0-9]++(?:\.[0-9]++)?", _finite, 3),
    "str": _Converter(r"[^/]++", str, 4),
    "path": _Converter(r".*+", str, 5),
}

_BEHIND: Mapping[str, re.Pattern[str]] = {
    "int": re.compile(r"$|[^0-9]"),
    "float": re.compile(r"$|[^0-9.]"),
    "str": re.compile(r"$|/"),
    "path": re.compile(r"$"),
}
"""What the literal text behind a parameter begins with when the parameter's end is beyond doubt: it takes all
it can, and giving some back could not help. A UUID has one length. Other templates need a `Matcher`."""

_PARAMETER = re.compile(r"\{([^{}]*)\}")


@attrs.frozen(eq=False)
class Template:
    """A parsed path template."""

    text: str
    names: tuple[str, ...]
    converters: tuple[str, ...]
    shape: str
    rank: tuple[tuple[int, int, str], ...]
    _matcher: re.Pattern[str] | Matcher
    _slashes: int  # how many "/" a path that fits has, or how many at least when it has a parameter `path`

    @classmethod
    def parse(cls, text: str) -> Template:
        """Read a template such as `/rooms/{room}/{id:int}`.

        Raises:
            RouteError: no leading slash, a brace that does not pair, a parameter without a name or with one
                that is no Python identifier, a name used twice, an unknown converter.
        """

        def fail(why: str) -> RouteError:
            return RouteError(f"path {text!r}: {why}")

        if not text.startswith("/"):
            raise fail("a path starts with '/'")
        if "?" in text or "#" in text:
            raise fail("a path has no query and no fragment; read them from the request")
        names: list[str] = []
        converters: list[str] = []
        shape: list[str] = []
        rank: list[tuple[int, int, str]] = []
        pieces: list[tuple[str, str]] = []
        for i, part in enumerate(_PARAMETER.split(text)):
            if i % 2 == 0:
                if "{" in part or "}" in part:
                    raise fail(
                        "a '{' or '}' has no partner; parameters are written {name} or {name:converter}"
                    )
                literal = canonical_path(part)
                if literal:
                    pieces.append(("", literal))
                    shape.append(literal)
                    # A longer literal is more specific, so it sorts first.
                    rank.append((0, -len(literal), literal))
                continue
            name, _, converter = part.partition(":")
            converter = converter or "str"
            if not name.isidentifier():
                raise fail(f"{{{part}}} needs a name that is a Python identifier")
            if name in names:
                raise fail(f"the parameter {name!r} occurs twice")
            if converter not in _CONVERTERS:
                raise fail(f"unknown converter {converter!r}; there are {', '.join(sorted(_CONVERTERS))}")
            names.append(name)
            converters.append(converter)
            shape.append(f"{{:{converter}}}")
            rank.append((_CONVERTERS[converter].rank, 0, ""))
            pieces.append((converter, ""))
        # `/{name:path}/edit` goes on where `/{name:path}` ends, so the end sorts last.
        rank.append((len(_CONVERTERS) + 1, 0, ""))
        slashes = sum(literal.count("/") for _, literal in pieces)
        matcher = _compile(pieces)
        return cls(text, tuple(names), tuple(converters), "".join(shape), tuple(rank), matcher, slashes)

    def match(self, path: str | Path) -> tuple[Any, ...] | None:
        """Return the parameters' converted values in order, or None when the path does not fit.

        Args:
            path: in its canonical form. A parameter takes as much as leaves the rest what it needs, the first
                parameter first.
        """
        if isinstance(path, str):
            path = Path(path)
        if path.slashes != self._slashes and (path.slashes < self._slashes or "path" not in self.converters):
            return None
        if isinstance(self._matcher, Matcher):
            taken = self._matcher.match(path)
        else:
            found = self._matcher.fullmatch(path.text)
            taken = None if found is None else found.groups()
        if taken is None:
            return None
        try:
            return tuple(
                _CONVERTERS[converter].convert(unquote(text, errors="strict"))
                for converter, text in zip(self.converters, taken, strict=True)
            )
        except ValueError:
            # Escapes that are no UTF-8, or more digits than int() takes or a float has.
            return None


def _compile(pieces: Sequence[tuple[str, str]]) -> re.Pattern[str] | Matcher:
    """Return what matches in linear time: a regular expression that never tries twice where one can do it."""
    pattern: list[str] = []
    for i, (converter, literal) in enumerate(pieces):
        if not converter:
            pattern.append(re.escape(literal))
            continue
        behind = pieces[i + 1] if i + 1 < len(pieces) else ("", "")
        if converter != "uuid" and (behind[0] or not _BEHIND[converter].match(behind[1])):
            return Matcher(pieces)
        pattern.append(f"({_CONVERTERS[converter].pattern})")
    return re.compile("".join(pattern))


R = TypeVar("R")


@attrs.frozen(eq=False)
class Route(Generic[R]):
    """One registration: a template, what it answers to, and whom it calls.

    Attributes:
        template: the parsed path.
        kind: "websocket" or "http".
        keys: the subprotocols (None: asks for none) or the HTTP methods that this route answers.
        handler: the user's function.
        options: whatever the application keeps per route.
        name: the handler's qualified name.
    """

    template: Template
    kind: str
    keys: tuple[str | None, ...]
    handler: Handler
    options: R
    name: str = attrs.field(init=False)

    @name.default
    def _name_of_handler(self) -> str:
        return name_of(self.handler)

    @property
    def place(self) -> str:
        """Where the handler is defined, as `file:line`."""
        code = getattr(function_of(self.handler), "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else "?"


@attrs.frozen(eq=False)
class Match(Generic[R]):
    """The route that gets the request, the subprotocol agreed on, and the path's parameters."""

    route: Route[R]
    key: str | None
    parameters: dict[str, Any]


@attrs.frozen
class NoPath:
    """No template fits the path."""


@attrs.frozen
class NoSubprotocol:
    """The path exists, but not for any subprotocol (or method) that was asked for."""

    known: tuple[str, ...]


class Router(Generic[R]):
    """The table of routes of one kind; add while setting up, resolve while serving."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[str | None, Route[R]]] = {}
        self._static: dict[str, dict[str | None, Route[R]]] = {}
        self._dynamic: list[tuple[Template, dict[str | None, Route[R]]]] = []
        self._routes: list[Route[R]] = []

    @property
    def routes(self) -> Sequence[Route[R]]:
        """All routes, in the order of registration."""
        return tuple(self._routes)

    def add(self, route: Route[R]) -> None:
        """Register a route.

        Raises:
            RouteError: the same path is already registered for one of the route's keys.
        """
        template = route.template
        group = self._groups.get(template.shape)
        for key in route.keys:
            if group is not None and key in group:
                other = group[key]
                what = f"subprotocol {key!r}" if key is not None else "no subprotocol"
                if route.kind == "http":
                    what = str(key)
                raise RouteError(
                    f"path {template.text!r} is already registered for {what}: {other.name} at {other.place}"
                )
        if group is None:
            group = self._groups[template.shape] = {}
            if template.names:
                self._dynamic.append((template, group))
                self._dynamic.sort(key=lambda entry: entry[0].rank)
            else:
                self._static[canonical_path(template.text)] = group
        for key in route.keys:
            group[key] = route
        self._routes.append(route)

    def resolve(self, path: str, wanted: Iterable[str | None]) -> Match[R] | NoPath | NoSubprotocol:
        """Choose the route.

        Args:
            path: in its canonical form, as `Request.path` is.
            wanted: the keys that were asked for, best first.
        """
        group = self._static.get(path)
        values: tuple[Any, ...] | None = ()
        if group is None:
            tried = Path(path)
            for template, candidates in self._dynamic:
                values = template.match(tried)
                if values is not None:
                    group = candidates
                    break
            else:
                return NoPath()
        for key in wanted:
            route = group.get(key)
            if route is not None:
                return Match(route, key, dict(zip(route.template.names, values or (), strict=True)))
        return NoSubprotocol(tuple(key for key in group if key is not None))

    def __contains__(self, path: str) -> bool:
        return not isinstance(self.resolve(path, ()), NoPath)


def check_subprotocols(subprotocols: object) -> tuple[str | None, ...]:
    """Return a route's subprotocols as keys, (None,) when it asks for none.

    Raises:
        RouteError: a single string (a forgotten pair of brackets), a name that is no token, a repetition.
    """
    if isinstance(subprotocols, str):
        raise RouteError(f"subprotocols is a list of names: write [{subprotocols!r}], not {subprotocols!r}")
    if not isinstance(subprotocols, Iterable):
        raise RouteError(f"subprotocols is a list of names, not {subprotocols!r}")
    names = tuple(subprotocols)
    for name in names:
        # "elements that comprise this value MUST be non-empty strings [of] token characters" (RFC 6455 §4.1).
        if not isinstance(name, str) or not is_token(name):
            raise RouteError(
                f"{name!r} cannot be a subprotocol: it must be a token such as 'chat' or 'v2.chat'"
            )
    if len(set(names)) != len(names):
        raise RouteError(f"a subprotocol occurs twice in {list(names)!r}")
    return names or (None,)


def check_methods(methods: object) -> tuple[str, ...]:
    """Return a route's HTTP methods as keys; GET includes HEAD.

    Raises:
        RouteError: there is none, or a name that is no token.
    """
    names = [methods] if isinstance(methods, str) else methods
    if not isinstance(names, Iterable):
        raise RouteError(f"methods is a list of names, not {methods!r}")
    keys: dict[str, None] = {}
    for name in names:
        # "method = token" (RFC 9110 §9.1)
        if not isinstance(name, str) or not is_token(name):
            raise RouteError(f"{name!r} cannot be an HTTP method: it must be a token such as 'POST'")
        keys[name.upper()] = None
    if not keys:
        raise RouteError(
            "methods is empty, so that the handler would never be called: write ['GET'], for example"
        )
    return tuple(keys | {"HEAD": None} if "GET" in keys else keys)
