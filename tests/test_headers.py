from __future__ import annotations

import pytest

from wsframework.errors import Accept, Reject
from wsframework.headers import Headers
from wsframework.request import Request, Response

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
