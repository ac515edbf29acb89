from __future__ import annotations

from typing import Any

import pytest

from wsframework.errors import ConfigurationError
from wsframework.origins import Origins
from wsframework.request import Request


def request(origin: str | None, host: str | None = "example.com") -> Request:
    headers = {"Origin": origin, "Host": host}
    return Request("/", {name: value for name, value in headers.items() if value is not None})


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "example.com"),  # no browser
        (None, None),
        ("https://example.com", "example.com"),
        ("http://example.com", "example.com"),
        ("https://EXAMPLE.com", "Example.COM"),
        ("https://example.com:443", "example.com"),
        ("https://example.com", "example.com:443"),
        ("http://example.com", "example.com:80"),
        ("http://localhost:8000", "localhost:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://127.0.0.1:80", "127.0.0.1"),
    ],
)
def test_the_servers_own_pages_and_clients_without_an_origin_may_connect(
    origin: str | None, host: str | None
) -> None:
    assert Origins().allow(request(origin, host))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "example.com"),
        ("https://example.com.evil.example", "example.com"),
        ("https://sub.example.com", "example.com"),
        ("http://example.com:8000", "example.com"),
        ("http://example.com", "example.com:8000"),
        ("https://example.com", "example.com:80"),
        ("null", "example.com"),  # a sandboxed frame, a file
        ("null", "null"),
        ("", "example.com"),
        ("", ""),
        ("https://", ""),
        ("file://", ""),
        ("https://example.com", None),
        ("https://example.com:99999", "example.com"),
        ("https://[::1", "example.com"),
        ("example.com", "example.com"),
    ],
)
def test_foreign_pages_may_not_connect(origin: str, host: str | None) -> None:
    assert not Origins().allow(request(origin, host))


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        ("https://app.example", "https://app.example"),
        (["https://app.example", "http://localhost:3000"], "http://localhost:3000"),
        (["HTTPS://App.Example:443"], "https://app.example"),
        (["https://app.example"], "https://app.example:443"),
        (["null"], "null"),
        (["chrome-extension://abcdef"], "chrome-extension://abcdef"),
        ("*", "https://anything.example"),
        (["https://app.example", "*"], "null"),
        (iter(["https://app.example"]), "https://app.example"),
    ],
)
def test_the_allow_list_lets_other_origins_in(allowed: Any, origin: str) -> None:
    assert Origins.parse(allowed).allow(request(origin))


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        (["https://app.example"], "http://app.example"),
        (["https://app.example"], "https://app.example:8443"),
        (["https://app.example"], "https://evil.example"),
        (["https://app.example"], "null"),
        ([], "https://app.example"),
    ],
)
def test_the_allow_list_lets_nobody_else_in(allowed: list[str], origin: str) -> None:
    assert not Origins.parse(allowed).allow(request(origin))


def test_the_servers_own_origin_needs_no_place_on_the_list() -> None:
    assert Origins.parse(["https://app.example"]).allow(request("https://example.com"))


@pytest.mark.parametrize(
    "entry",
    [
        "example.com",
        "https://",
        "//example.com",
        "https://example.com/",
        "https://example.com/chat",
        "https://example.com?x=1",
        "https://example.com#top",
        "https://user@example.com",
        "https://example.com:99999",
        "https://example.com:http",
        "https://[::1",
        "https://*.example.com",
        "",
        None,
        b"https://example.com",
    ],
)
def test_what_is_no_origin_is_refused_with_what_to_write(entry: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Origins.parse([entry])
    assert str(caught.value).startswith(f"{entry!r} is no origin: write scheme://host")
