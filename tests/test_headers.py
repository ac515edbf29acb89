from __future__ import annotations

import re
from enum import Enum
from typing import Any

import pytest

from wsframework.cookies import set_cookie_field
from wsframework.errors import Accept, Reject
from wsframework.headers import Headers
from wsframework.request import Request, Response
from wsframework.server.http import encode_response
from wsframework.wire import encode_101

FIELDS = [("Host", "example.com"), ("X-Tag", "a"), ("x-tag", "b")]


def test_header_names_are_looked_up_without_regard_to_case() -> None:
    headers = Headers(FIELDS)
    assert headers["HOST"] == headers["host"] == "example.com"
    assert "hOsT" in headers
    assert "origin" not in headers
    number: object = 7
    assert number not in headers
    assert headers.get("origin") is None
    with pytest.raises(KeyError, match="origin"):
        headers["origin"]


def test_a_repeated_header_reads_as_one_list_and_line_by_line() -> None:
    headers = Headers(FIELDS)
    assert headers["x-tag"] == "a, b"
    assert headers.get_all("X-Tag") == ["a", "b"]
    assert headers.get_all("origin") == []
    assert headers.pairs() == tuple(FIELDS)


def test_headers_are_a_mapping_of_lower_case_names_in_order() -> None:
    headers = Headers(FIELDS)
    assert list(headers) == ["host", "x-tag"]
    assert len(headers) == 2
    assert dict(headers) == {"host": "example.com", "x-tag": "a, b"}
    assert headers == Headers({"host": "example.com", "x-tag": "a, b"})
    assert repr(headers) == f"Headers({FIELDS!r})"
    assert not Headers()


def test_packed_headers_read_as_before() -> None:
    fields = [("host", "x"), ("a", "1:2"), ("a", ""), ("b", "café")]
    headers = Headers(fields)
    headers.pack()
    assert headers.pairs() == tuple(fields)
    assert (headers["A"], headers.get_all("a"), len(headers), list(headers)) == (
        "1:2, ",
        ["1:2", ""],
        3,
        ["host", "a", "b"],
    )
    assert repr(headers) == repr(Headers(fields))
    empty = Headers()
    empty.pack()
    assert (empty.pairs(), "host" in empty) == ((), False)


def test_fields_from_other_headers_stay_apart_wherever_they_are_given() -> None:
    # As a mapping, two cookies would be one, joined by a comma, which no browser takes apart.
    headers = Headers(FIELDS)
    for copied in (
        Headers(headers).pairs(),
        Request("/", headers).headers.pairs(),
        Response(headers=headers).headers.pairs(),
        Reject(401, headers=headers).headers,
        Accept(headers=headers).headers,
    ):
        assert copied == tuple(FIELDS)


# Fields of answers

ANSWERS = pytest.mark.parametrize(
    "answer", [Accept, Response, lambda headers: Response("x", headers=headers)], ids=["Accept", "", "body"]
)
"""What has fields, called with these."""


@ANSWERS
@pytest.mark.parametrize(
    "name", ["", "X Y", "X:", "X: y", "X\r\nY", "Ä", "Content-Length\t", "X\x0bY", "X\0"]
)
def test_a_name_that_is_no_token_is_refused(answer: Any, name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{name!r} is not a header field name")):
        answer(headers=[("X-Fine", "1"), (name, "1")])


VALUES = ["a\r\nX: y", "a\nb", "a\rb", "a\0", "\x0b", "\x1b[0m", "\x7f", "€", "\u2028", "\ud800"]


@ANSWERS
@pytest.mark.parametrize("value", VALUES)
def test_a_value_that_cannot_be_sent_is_refused_and_not_repeated(answer: Any, value: str) -> None:
    with pytest.raises(ValueError, match="Set-Cookie: a header field value is Latin-1") as caught:
        answer(headers={"Set-Cookie": value})
    assert value not in str(caught.value)


@pytest.mark.parametrize("value", VALUES)
def test_a_content_type_is_a_value_like_others(value: str) -> None:
    # It may be what somebody has uploaded a file with.
    with pytest.raises(ValueError, match="Content-Type: a header field value is Latin-1"):
        Response("x", content_type=value)


@ANSWERS
@pytest.mark.parametrize(
    "headers", [["Set-Cookie: a=1"], ["ab"], [("a", 1)], [(b"a", b"b")], [("a", "b", "c")], "ab"]
)
def test_what_is_no_pair_of_texts_is_refused_with_what_to_write(answer: Any, headers: Any) -> None:
    with pytest.raises(TypeError, match=r"headers are \(name, value\) pairs of str, or a mapping"):
        answer(headers=headers)


@ANSWERS
def test_other_fields_are_kept_as_they_are(answer: Any) -> None:
    fields = (("X-Fine", "a:\tb, é\xff"), ("x-fine", ""))
    found = answer(headers=iter(fields)).headers
    assert (found if isinstance(found, tuple) else found.pairs())[:2] == fields


# Enums, which Python formats with the name of their class


class Word(str, Enum):  # noqa: UP042 - a StrEnum is formatted as its value
    NAME = "X-Fine"
    VALUE = "text/html"
    COOKIE = "__Host-session"
    DOMAIN = "club.example"
    PATH = "/club"


class Number(int, Enum):
    GONE = 410
    AGE = 60


def test_an_answer_made_of_enums_is_sent_with_their_values() -> None:
    answer = Response("x", Number.GONE, [(Word.NAME, Word.VALUE)], content_type=Word.VALUE)
    sent = encode_response(answer)
    assert sent.startswith(b"HTTP/1.1 410 Gone\r\n")
    assert b"\r\nX-Fine: text/html\r\n" in sent
    assert b"\r\nContent-Type: text/html\r\n" in sent
    assert repr(answer) == "<Response 410 1 bytes>"
    assert repr(Reject(Number.GONE).status) == "410"
    assert Response.error(Number.GONE, "left").body == b"410 Gone: left\n"


def test_fields_made_of_enums_stand_in_the_101_with_their_values() -> None:
    sent = encode_101(
        "dGhlIHNhbXBsZSBub25jZQ==", extra_headers=Accept(headers=[(Word.NAME, Word.VALUE)]).headers
    )
    assert b"\r\nX-Fine: text/html\r\n" in sent


def test_a_cookie_made_of_enums_is_set_with_their_values() -> None:
    _, text = set_cookie_field(Word.COOKIE, Word.VALUE, max_age=Number.AGE)
    assert text == "__Host-session=text/html; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Lax"
    _, text = set_cookie_field("a", "b", domain=Word.DOMAIN, path=Word.PATH)
    assert text == "a=b; Domain=club.example; Path=/club; Secure; HttpOnly; SameSite=Lax"
