"""superchat, version 1: its requests, answers and events as values. No I/O.

`parse` turns one Text message into a request, or raises a `Refusal` with the error answer for its sender.
`answer` and `event` encode the server's messages. docs/chat.md describes the protocol.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

import attrs

from wsframework.chat.names import clean_name, clean_room, clean_text

__all__ = [
    "MAX_TEXT_CHARS",
    "SUBPROTOCOL",
    "VERSION",
    "Hello",
    "History",
    "InRoom",
    "Join",
    "Leave",
    "ListPeople",
    "ListRooms",
    "Ping",
    "Refusal",
    "Rename",
    "Request",
    "RequestId",
    "Say",
    "Typing",
    "answer",
    "event",
    "parse",
]

SUBPROTOCOL = "superchat"
VERSION = 1

RequestId: TypeAlias = int | str | None
"""The id of a client's request, and the answer's `re`."""

MAX_REQUEST_CHARS = 64 * 1024
"""A request's length. The longest text is 4,000 characters, each at most 12 as a JSON escape pair."""

_MAX_MARKS = 4096
"""Commas, colons, quotes and opening brackets of a request: each costs time. A text may have 4,000."""

_MAX_DIGITS = 100
_MAX_ID_CHARS = 64
_MAX_KEY_CHARS = 64
_MAX_TOKEN_CHARS = 64
_MAX_CURSOR_CHARS = 64
_MAX_INTEGER = 2**53 - 1
"""What every JSON implementation agrees on (RFC 8259 §6)."""

MAX_TEXT_CHARS = 4000


class Refusal(Exception):
    """A request that is refused; only its sender gets the `error` answer.

    Args:
        code: one of the protocol's error codes.
        message: a sentence for people.
        re: the request's id, None when it has none that could be read.
        details: more members of the answer.
    """

    def __init__(self, code: str, message: str, re: RequestId = None, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.re = re
        self.details = details

    def answer(self) -> str:
        """Return the text of the answer."""
        return answer(self.re, "error", code=self.code, message=self.message, **self.details)


@attrs.frozen
class Hello:
    """The first request: which version is spoken, and who speaks."""

    id: RequestId
    version: int
    name: str
    token: str | None


@attrs.frozen
class Rename:
    """A new name."""

    id: RequestId
    name: str


@attrs.frozen
class Join:
    """Be in a room; `after` and `log` say which of its messages the client has seen."""

    id: RequestId
    room: str
    after: int | None
    log: str | None


@attrs.frozen
class Leave:
    """Be in it no longer."""

    id: RequestId
    room: str


@attrs.frozen
class Say:
    """A message; a repetition with the same `key` is not a second one."""

    id: RequestId
    room: str
    text: str
    key: str | None


@attrs.frozen
class History:
    """Messages of a room right before or, if that is None, behind an id."""

    id: RequestId
    room: str
    before: int | None
    after: int | None


@attrs.frozen
class Typing:
    """The client has begun, or ceased, to type."""

    id: RequestId
    room: str
    on: bool


@attrs.frozen
class ListRooms:
    """Which rooms have people in them; `cursor` is from the page before."""

    id: RequestId
    cursor: str | None


@attrs.frozen
class ListPeople:
    """Who is in a room; `cursor` is from the page before."""

    id: RequestId
    room: str
    cursor: str | None


@attrs.frozen
class Ping:
    """Check the connection; browsers cannot send WebSocket pings."""

    id: RequestId


InRoom: TypeAlias = Leave | Say | History | Typing | ListPeople
"""Requests that a room's members make."""

Request: TypeAlias = Hello | Rename | Join | InRoom | ListRooms | Ping


def parse(message: str | bytes) -> Request:
    """Read one request.

    Raises:
        Refusal: it is no request of this protocol.
    """
    return _read(_Fields(_load(message)))


def _load(message: str | bytes) -> dict[str, Any]:
    if isinstance(message, bytes):
        raise Refusal("malformed", "a request is a Text message, not a Binary one")
    if len(message) > MAX_REQUEST_CHARS:
        raise Refusal("malformed", f"a request has at most {MAX_REQUEST_CHARS} characters")
    if sum(map(message.count, ',:"[{')) > _MAX_MARKS:
        raise Refusal("malformed", f"a request has at most {_MAX_MARKS} commas, colons, quotes and brackets")
    try:
        value = _DECODER.decode(message)
    except (ValueError, RecursionError):
        # RecursionError: thousands of brackets.
        raise Refusal("malformed", "a request is a JSON object") from None
    if not isinstance(value, dict):
        raise Refusal("malformed", "a request is a JSON object")
    return value


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _integer(digits: str) -> int:
    # The conversion takes time quadratic in their number.
    if len(digits) > _MAX_DIGITS:
        raise ValueError("an integer of so many digits is none of ours")
    return int(digits)


# No member is a fraction, so they stay what they are written as, in bytes, which no member is either.
_DECODER = json.JSONDecoder(parse_float=str.encode, parse_int=_integer, parse_constant=_no_constant)


class _Fields:
    """A request's members, checked as they are read."""

    def __init__(self, value: dict[str, Any]) -> None:
        self.value = value
        self.id: RequestId = None
        given = value.get("id")
        if given is None:
            return
        if not (_is_integer(given) or _is_word(given, _MAX_ID_CHARS)):
            raise self.refusal("id", f"an integer, or a text of 1 to {_MAX_ID_CHARS} printable characters")
        self.id = given

    def refusal(self, name: str, what: str) -> Refusal:
        return Refusal("invalid", f"{name!r} must be {what}", self.id, field=name)

    def integer(self, name: str) -> int:
        value: Any = self.value.get(name)
        if not _is_integer(value):
            raise self.refusal(name, "an integer from 0 to 2**53 - 1")
        return int(value)

    def optional_integer(self, name: str) -> int | None:
        return None if self.value.get(name) is None else self.integer(name)

    def flag(self, name: str) -> bool:
        value = self.value.get(name)
        if not isinstance(value, bool):
            raise self.refusal(name, "true or false")
        return value

    def word(self, name: str, max_chars: int) -> str | None:
        """Return an optional text that only machines read."""
        value = self.value.get(name)
        if value is None:
            return None
        if not _is_word(value, max_chars):
            raise self.refusal(name, f"a text of 1 to {max_chars} printable characters")
        return str(value)

    def cleaned(self, name: str, clean: Callable[[str], str]) -> str:
        value = self.value.get(name)
        if not isinstance(value, str):
            raise self.refusal(name, "a text")
        try:
            return clean(value)
        except ValueError as error:
            raise Refusal("invalid", str(error), self.id, field=name) from None


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_INTEGER


def _is_word(value: object, max_chars: int) -> bool:
    # A lone surrogate, which no UTF-8 can carry, is not printable.
    return isinstance(value, str) and 0 < len(value) <= max_chars and value.isprintable()


def _clean_text(text: str) -> str:
    return clean_text(text, MAX_TEXT_CHARS)


def _read(fields: _Fields) -> Request:
    room = clean_room
    match fields.value.get("type"):
        case "hello":
            return Hello(
                fields.id,
                fields.integer("version"),
                fields.cleaned("name", clean_name),
                fields.word("token", _MAX_TOKEN_CHARS),
            )
        case "name":
            return Rename(fields.id, fields.cleaned("name", clean_name))
        case "join":
            return Join(
                fields.id,
                fields.cleaned("room", room),
                fields.optional_integer("after"),
                fields.word("log", _MAX_TOKEN_CHARS),
            )
        case "leave":
            return Leave(fields.id, fields.cleaned("room", room))
        case "say":
            return Say(
                fields.id,
                fields.cleaned("room", room),
                fields.cleaned("text", _clean_text),
                fields.word("key", _MAX_KEY_CHARS),
            )
        case "history":
            place, after = fields.cleaned("room", room), fields.optional_integer("after")
            return History(fields.id, place, fields.integer("before") if after is None else None, after)
        case "typing":
            return Typing(fields.id, fields.cleaned("room", room), fields.flag("on"))
        case "rooms":
            return ListRooms(fields.id, fields.word("cursor", _MAX_CURSOR_CHARS))
        case "people":
            return ListPeople(
                fields.id, fields.cleaned("room", room), fields.word("cursor", _MAX_CURSOR_CHARS)
            )
        case "ping":
            return Ping(fields.id)
        case str():
            raise Refusal("unknown_type", "there is no request of this type", fields.id)
    raise fields.refusal("type", "a text")


def answer(re: RequestId, type: str, **members: Any) -> str:
    """Encode the answer to the request `re`."""
    return _encode({"type": type, "re": re, **members})


def event(type: str, **members: Any) -> str:
    """Encode an event, which is not an answer to a request."""
    return _encode({"type": type, **members})


def _encode(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
