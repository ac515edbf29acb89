from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsframework.chat import protocol
from wsframework.chat.protocol import Refusal, parse


def encoded(**members: Any) -> str:
    return json.dumps(members)


REQUESTS: list[tuple[dict[str, Any], protocol.Request]] = [
    (
        {"type": "hello", "id": 1, "version": 1, "name": " Ada "},
        protocol.Hello(1, version=1, name="Ada", token=None),
    ),
    (
        {"type": "hello", "id": "a", "version": 2, "name": "Ada", "token": "t"},
        protocol.Hello("a", version=2, name="Ada", token="t"),
    ),
    ({"type": "name", "id": 2, "name": "Grace"}, protocol.Rename(2, name="Grace")),
    ({"type": "join", "id": 3, "room": "Lobby"}, protocol.Join(3, room="lobby", after=None, log=None)),
    (
        {"type": "join", "id": 3, "room": "a", "after": 0, "log": "x"},
        protocol.Join(3, room="a", after=0, log="x"),
    ),
    ({"type": "leave", "id": 4, "room": "a"}, protocol.Leave(4, room="a")),
    ({"type": "say", "id": 5, "room": "a", "text": "hi "}, protocol.Say(5, room="a", text="hi", key=None)),
    (
        {"type": "say", "room": "a", "text": "<b>", "key": "k"},
        protocol.Say(None, room="a", text="<b>", key="k"),
    ),
    (
        {"type": "history", "id": 6, "room": "a", "before": 9},
        protocol.History(6, room="a", before=9, after=None),
    ),
    ({"type": "typing", "id": 7, "room": "a", "on": True}, protocol.Typing(7, room="a", on=True)),
    ({"type": "rooms", "id": 8}, protocol.ListRooms(8, cursor=None)),
    ({"type": "ping", "id": None}, protocol.Ping(None)),
    ({"type": "ping", "id": 0, "of the": "future"}, protocol.Ping(0)),
]


@pytest.mark.parametrize(("members", "request_"), REQUESTS)
def test_every_request_is_read(members: dict[str, Any], request_: protocol.Request) -> None:
    assert parse(json.dumps(members)) == request_


MALFORMED: list[str | bytes] = [
    "",
    "hello",
    "{",
    '"hello"',
    "null",
    "[]",
    "7",
    "NaN",
    '{"type": "ping", "id": NaN}',
    '{"type": "ping", "id": -Infinity}',
    "[" * 30_000,
    '{"a":' * 10_000,
    '{"type": "ping", "id": ' + "9" * 10_000 + "}",
    " " * (64 * 1024 + 1),
    b'{"type": "ping"}',
]


@pytest.mark.parametrize("message", MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_no_json_object_is_malformed(message: str | bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        parse(message)
    assert (refusal.value.code, refusal.value.re) == ("malformed", None)


INVALID: list[tuple[dict[str, Any], str]] = [
    ({}, "type"),
    ({"type": 7}, "type"),
    ({"type": None}, "type"),
    ({"type": ["say"]}, "type"),
    ({"type": "hello", "name": "Ada"}, "version"),
    ({"type": "hello", "version": "1", "name": "Ada"}, "version"),
    ({"type": "hello", "version": True, "name": "Ada"}, "version"),
    ({"type": "hello", "version": 1.0, "name": "Ada"}, "version"),
    ({"type": "hello", "version": 1}, "name"),
    ({"type": "hello", "version": 1, "name": ""}, "name"),
    ({"type": "hello", "version": 1, "name": ["Ada"]}, "name"),
    ({"type": "hello", "version": 1, "name": "Ada", "token": 7}, "token"),
    ({"type": "hello", "version": 1, "name": "Ada", "token": ""}, "token"),
    ({"type": "name", "name": "\u202e"}, "name"),
    ({"type": "join"}, "room"),
    ({"type": "join", "room": "no spaces"}, "room"),
    ({"type": "join", "room": "a", "after": -1}, "after"),
    ({"type": "join", "room": "a", "after": 2**53}, "after"),
    ({"type": "join", "room": "a", "after": "7"}, "after"),
    ({"type": "join", "room": "a", "after": 7, "log": "x" * 65}, "log"),
    ({"type": "leave", "room": None}, "room"),
    ({"type": "say", "room": "a"}, "text"),
    ({"type": "say", "room": "a", "text": " "}, "text"),
    ({"type": "say", "room": "a", "text": "x" * 4001}, "text"),
    ({"type": "say", "room": "a", "text": "\ud800"}, "text"),
    ({"type": "say", "room": "a", "text": {"html": "<b>"}}, "text"),
    ({"type": "say", "room": "a", "text": "hi", "key": "\ud800"}, "key"),
    ({"type": "say", "room": "a", "text": "hi", "key": 7}, "key"),
    ({"type": "history", "room": "a"}, "before"),
    ({"type": "typing", "room": "a"}, "on"),
    ({"type": "typing", "room": "a", "on": 1}, "on"),
]


@pytest.mark.parametrize(("members", "field"), INVALID)
def test_what_a_member_must_be_is_told_with_the_requests_id(members: dict[str, Any], field: str) -> None:
    with pytest.raises(Refusal) as refusal:
        parse(json.dumps({**members, "id": "r1"}))
    assert (refusal.value.code, refusal.value.re) == ("invalid", "r1")
    answer = json.loads(refusal.value.answer())
    assert answer["field"] == field
    assert answer["type"] == "error"
    assert answer["message"]


@pytest.mark.parametrize("id", [-1, 1.5, True, [], {}, "", "x" * 65, "\ud800", "a\nb", 2**53])
def test_an_id_that_cannot_be_answered_is_refused_without_one(id: Any) -> None:
    with pytest.raises(Refusal) as refusal:
        parse(json.dumps({"type": "ping", "id": id}))
    assert (refusal.value.code, refusal.value.re) == ("invalid", None)
    refusal.value.answer().encode()


def test_an_unknown_type_is_told_with_the_requests_id() -> None:
    with pytest.raises(Refusal) as refusal:
        parse(encoded(type="dance", id=3))
    assert (refusal.value.code, refusal.value.re) == ("unknown_type", 3)


def test_the_longest_text_fits_into_a_request_however_it_is_escaped() -> None:
    text = "\U0001f98a" * protocol.MAX_TEXT_CHARS
    message = encoded(type="say", room="a", text=text)
    assert len(message) > 12 * protocol.MAX_TEXT_CHARS
    request = parse(message)
    assert isinstance(request, protocol.Say)
    assert request.text == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
MEMBERS = [
    "type",
    "id",
    "version",
    "name",
    "token",
    "room",
    "after",
    "log",
    "text",
    "key",
    "before",
    "on",
    "cursor",
]
TYPES = ["hello", "name", "join", "leave", "say", "history", "typing", "rooms", "ping"]


@given(
    st.one_of(
        st.text(),
        st.binary(),
        JSON.map(json.dumps),
        st.dictionaries(st.sampled_from(MEMBERS), JSON | st.sampled_from(TYPES)).map(json.dumps),
    )
)
def test_whatever_comes_is_a_request_or_an_answerable_refusal(message: str | bytes) -> None:
    try:
        request = parse(message)
    except Refusal as refusal:
        answer = json.loads(refusal.answer().encode())
        assert answer["type"] == "error"
        assert answer["code"] in {"malformed", "invalid", "unknown_type"}
    else:
        protocol.answer(request.id, "ok").encode()


def test_answers_name_their_request_and_events_name_none() -> None:
    assert json.loads(protocol.answer(7, "ok", a=1)) == {"type": "ok", "re": 7, "a": 1}
    assert json.loads(protocol.event("left", name="Zoë")) == {"type": "left", "name": "Zoë"}
