from __future__ import annotations

from typing import Any

import pytest

from wsframework.errors import ConfigurationError
from wsframework.origins import Origins
from wsframework.request import Request


def request(
    origin: str | None, host: str | None = "example.com", *, secure: bool = False, target: str = "/"
) -> Request:
    headers = {"Origin": origin, "Host": host}
    fields = {name: value for name, value in headers.items() if value is not None}
    return Request(target, fields, secure=secure)


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
        # What no browser writes (RFC 6454 §6.2).
        ("https://user@example.com", "example.com"),
        ("https://user@example.com", "user@example.com"),
        ("https://example.com/", "example.com"),
        ("https://example.com/chat", "example.com"),
        ("https://example.com?x", "example.com"),
        ("https://example.com#x", "example.com"),
        ("https://example.com:", "example.com"),
        ("https://example.com https://example.com", "example.com"),
        ("https://example.com, https://example.com", "example.com"),
        (" https://example.com", "example.com"),
        ("https:example.com", "example.com"),
        ("https:/example.com", "example.com"),
        ("//example.com", "example.com"),
        ("://example.com", "example.com"),
        ("https://a/b", "a/b"),
        ("https://a b", "a b"),
        # Other schemes are never the server's own.
        ("javascript://example.com", "example.com"),
        ("file://example.com", "example.com"),
        ("ftp://example.com", "example.com"),
        ("ws://example.com", "example.com"),
        ("chrome-extension://example.com", "example.com"),
        ("moz-extension://example.com:80", "example.com:80"),
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
        (["file://"], "file://"),
        (["https://bücher.example"], "https://xn--bcher-kva.example"),
        (["https://[0:0::1]:8443"], "https://[::1]:8443"),
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


@pytest.mark.parametrize("origins", [True, 5, object()])
def test_what_is_no_list_is_refused_with_what_to_write(origins: Any) -> None:
    with pytest.raises(ConfigurationError, match="origins is a list of texts"):
        Origins.parse(origins)


def test_where_tls_ends_here_an_http_page_is_a_foreign_one() -> None:
    assert Origins().allow(request("https://example.com", secure=True))
    assert Origins().allow(request("https://example.com:8443", "example.com:8443", secure=True))
    assert not Origins().allow(request("http://example.com", secure=True))
    assert not Origins().allow(request("http://example.com:8443", "example.com:8443", secure=True))
    assert not Origins().allow(request("http://example.com:443", "example.com", secure=True))
    assert Origins.parse("http://example.com").allow(request("http://example.com", secure=True))


def test_the_host_of_a_target_in_absolute_form_is_the_servers_own() -> None:
    absolute = "http://example.com/chat"
    assert Origins().allow(request("http://example.com", "other.example", target=absolute))
    assert not Origins().allow(request("http://other.example", "other.example", target=absolute))


# Plain HTTP

FRIEND = "https://friend.example"


def change(fields: dict[str, str | list[str]], *, method: str = "POST", secure: bool = False) -> Request:
    lines = [("Host", "example.com")]
    for name, values in fields.items():
        lines += [(name, value) for value in ([values] if isinstance(values, str) else values)]
    return Request("/", lines, method=method, is_websocket=False, secure=secure)


@pytest.mark.parametrize(
    "fields",
    [
        {},  # curl, webhooks
        {"Origin": "https://example.com"},
        {"Origin": "http://example.com"},  # a proxy may have ended TLS, or there is none
        {"Origin": FRIEND},
        {"Origin": "https://example.com", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},  # the user has typed the address
        {"Origin": FRIEND, "Sec-Fetch-Site": "cross-site"},
        {"Origin": FRIEND, "Sec-Fetch-Site": "same-site"},
        # A form on a page of ours with `Referrer-Policy: no-referrer`.
        {"Origin": "null", "Sec-Fetch-Site": "same-origin"},
        # "servers SHOULD ignore this header if it contains an invalid value"
        {"Sec-Fetch-Site": "same-planet"},
        {"Sec-Fetch-Site": ""},
    ],
)
def test_a_change_may_come_from_the_servers_own_pages_from_friends_and_from_no_page(
    fields: dict[str, str | list[str]],
) -> None:
    assert Origins.parse([FRIEND]).allow_http(change(fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "https://sub.example.com"},
        {"Origin": "https://example.com:8443"},
        {"Origin": "null"},  # a sandboxed frame, a file, a redirect through another site
        {"Origin": ""},
        {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "null", "Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-planet"},
        # Something on the way, or the user's own settings, has taken the Origin away.
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        # Ours by its host, but the browser knows the scheme that a proxy has hidden from us.
        {"Origin": "http://example.com", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://example.com", "Sec-Fetch-Site": "same-site"},
        {"Origin": ["https://example.com", "https://example.com"]},
        {"Origin": ["https://evil.example", FRIEND]},
        {"Origin": f"https://evil.example, {FRIEND}"},
        {"Origin": FRIEND + "/"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "post", "MADE-UP"])
def test_a_change_may_not_come_from_a_foreign_page(fields: dict[str, str | list[str]], method: str) -> None:
    assert not Origins.parse([FRIEND]).allow_http(change(fields, method=method))
    assert Origins.parse("*").allow_http(change(fields, method=method))


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_any_page_may_read_and_ask_what_it_may(method: str) -> None:
    for fields in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert Origins().allow_http(change({**fields}, method=method))


def test_where_the_outer_scheme_is_known_a_change_must_come_from_a_page_of_that_scheme() -> None:
    assert Origins().allow_http(change({"Origin": "https://example.com"}, secure=True))
    assert not Origins().allow_http(change({"Origin": "http://example.com"}, secure=True))


def test_an_opaque_origin_may_be_allowed() -> None:
    opaque = Origins.parse(["null"])
    assert opaque.allow_http(change({"Origin": "null"}))
    assert opaque.allow_http(change({"Origin": "null", "Sec-Fetch-Site": "cross-site"}))
    assert not opaque.allow_http(change({"Origin": "https://evil.example"}))
