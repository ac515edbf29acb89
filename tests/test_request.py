from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from wsframework.cookies import set_cookie_field
from wsframework.errors import Reject
from wsframework.headers import Headers
from wsframework.request import Address, Request, Response, reason_phrase


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (Address("127.0.0.1", 80), "127.0.0.1:80"),
        (Address("::1", 8000), "[::1]:8000"),
        (Address("example.com", 443), "example.com:443"),
        (Address("/run/chat.sock"), "/run/chat.sock"),
        (Address(""), "unix socket"),
    ],
)
def test_an_address_reads_as_in_a_url(address: Address, text: str) -> None:
    assert str(address) == text


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", {}),
        ("/chat", "/chat", {}),
        ("/chat?room=a%20b&x=1&x=2&empty=", "/chat", {"room": "a b", "x": "2", "empty": ""}),
        ("/a%2Fb?", "/a%2Fb", {}),
        # As the routes compare it, or what looks at paths could be avoided.
        ("/%61dm%69n/caf%c3%a9%2f|?%61=%62", "/admin/caf%C3%A9%2F%7C", {"a": "b"}),
        ("http://example.com/%61dmin", "/admin", {}),
        ("/chat#part", "/chat", {}),
        ("/chat#part?x=1", "/chat", {}),
        ("/chat?x=1#part?y=2", "/chat", {"x": "1"}),
        ("//double/slash", "//double/slash", {}),
        ("http://example.com/chat?x=1", "/chat", {"x": "1"}),
        ("ws://example.com", "/", {}),
        ("*", "*", {}),
    ],
)
def test_a_target_is_a_path_and_a_query(target: str, path: str, query: dict[str, str]) -> None:
    request = Request(target)
    assert request.path == path
    assert request.query == query


def test_a_request_knows_its_origin_and_host_if_they_were_sent() -> None:
    request = Request("/", {"Origin": "https://example.com", "Host": "example.com:8000"})
    assert (request.origin, request.host) == ("https://example.com", "example.com:8000")
    assert (Request("/").origin, Request("/").host) == (None, "")


def test_a_request_has_cookies_from_all_its_cookie_fields() -> None:
    request = Request("/", [("Cookie", 'a=1; b="2"'), ("X", "a=9"), ("cookie", "c=3; a=4")])
    request.headers.pack()
    assert request.cookies == {"a": "1", "b": "2", "c": "3"}
    assert Request("/").cookies == {}


def test_a_request_takes_headers_in_any_shape() -> None:
    headers = Headers([("Host", "h")])
    assert Request("/", headers).headers is headers
    assert Request("/", [("Host", "h")]).host == Request("/", {"Host": "h"}).host == "h"


def test_a_request_is_frozen_hashable_and_reads_well() -> None:
    request = Request("/chat?x=1", remote=Address("10.0.0.1", 5000))
    assert repr(request) == "<Request GET /chat?x=1 from 10.0.0.1:5000>"
    assert {request: 1}[request] == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        request.target = "/other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("response", "body", "content_type"),
    [
        (Response("héllo"), "héllo".encode(), "text/plain; charset=utf-8"),
        (Response(b"\0\1"), b"\0\1", "application/octet-stream"),
        (Response(), b"", None),
        (Response("x", content_type="text/css"), b"x", "text/css"),
        (Response("x", headers={"content-type": "text/csv"}), b"x", "text/csv"),
        # One field, or clients choose between two.
        (
            Response.json(1, headers={"Content-Type": "application/problem+json"}),
            b"1",
            "application/problem+json",
        ),
        (Response.html("<p>"), b"<p>", "text/html; charset=utf-8"),
        (Response.json({"é": [1]}), '{"é": [1]}'.encode(), "application/json"),
        (Response.error(404, "no"), b"404 Not Found: no\n", "text/plain; charset=utf-8"),
    ],
)
def test_a_response_has_bytes_and_says_of_what_type(
    response: Response, body: bytes, content_type: str | None
) -> None:
    assert response.body == body
    assert response.headers.get("content-type") == content_type


def test_the_ways_to_make_a_response_take_a_status_and_headers() -> None:
    for response in (
        Response("x", 418, {"X-A": "1"}),
        Response.json("x", 418, {"X-A": "1"}),
        Response.html("x", 418, {"X-A": "1"}),
        Response.error(418, "x", {"X-A": "1"}),
    ):
        assert (response.status, response.headers["x-a"]) == (418, "1")
        assert repr(response) == f"<Response 418 {len(response.body)} bytes>"


def test_json_goes_out_as_it_would_come_in() -> None:
    value = {"text": "naïve ☃", "list": [1, None, True]}
    assert json.loads(Response.json(value).body) == value


BEHIND = "; Path=/; Secure; HttpOnly; SameSite=Lax"


def test_a_cookie_is_set_in_a_new_response() -> None:
    plain = Response("Welcome.", 201, [("X-A", "1"), ("X-A", "2")], content_type="text/x-greeting")
    one = plain.set_cookie("session", "x")
    two = one.set_cookie("theme", "dark", max_age=60, http_only=False, same_site="strict", secure=False)
    assert "set-cookie" not in plain.headers
    assert one.headers.get_all("set-cookie") == [f"session=x{BEHIND}"]
    assert two.headers.get_all("set-cookie") == [
        f"session=x{BEHIND}",
        "theme=dark; Max-Age=60; Path=/; SameSite=Strict",
    ]
    assert (two.body, two.status, two.headers["content-type"]) == (b"Welcome.", 201, "text/x-greeting")
    assert two.headers.get_all("x-a") == ["1", "2"]


def keywords(function: Callable[..., object]) -> dict[str, object]:
    parameters = inspect.signature(function).parameters
    return {name: each.default for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY}


def test_all_attributes_reach_the_field_and_are_checked() -> None:
    attributes: dict[str, Any] = {
        "max_age": 60,
        "expires": datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
        "path": "/a",
        "domain": "club.example",
        "secure": True,
        "http_only": False,
        "same_site": "none",
        "partitioned": True,
    }
    (value,) = Response().set_cookie("a", "b", **attributes).headers.get_all("set-cookie")
    assert ("Set-Cookie", value) == set_cookie_field("a", "b", **attributes)
    # So that neither signature gets an attribute that the other one has not, nor another default.
    assert keywords(Response.set_cookie) == keywords(set_cookie_field)
    assert set(keywords(set_cookie_field)) == set(attributes)
    with pytest.raises(ValueError, match="cookie 'a': its value cannot hold"):
        Response().set_cookie("a", "b; Domain=club.example")


def test_a_deleted_cookie_has_a_date_in_the_past_and_the_place_where_it_was_set() -> None:
    past = "Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    assert Response("Bye.").delete_cookie("session").headers["set-cookie"] == f"session=; {past}{BEHIND}"
    elsewhere = Response().delete_cookie(
        "session", path="/club", domain="club.example", secure=True, partitioned=True
    )
    assert elsewhere.headers["set-cookie"] == (
        f"session=; {past}; Domain=club.example; Path=/club; Secure; HttpOnly; SameSite=Lax; Partitioned"
    )
    assert "Secure" not in Response().delete_cookie("session", secure=False).headers["set-cookie"]


def test_a_cookie_that_was_set_on_pages_of_other_sites_can_be_deleted_there() -> None:
    # There a browser ignores a field with another SameSite, also if it deletes (RFC 6265bis, storage model).
    setting: Any = {"same_site": "none", "partitioned": True}
    (was_set,) = Response().set_cookie("a", "", max_age=0, **setting).headers.get_all("set-cookie")
    (deleted,) = Response().delete_cookie("a", **setting).headers.get_all("set-cookie")
    assert deleted == was_set
    assert deleted.endswith("; SameSite=None; Partitioned")
    with pytest.raises(ValueError, match='same_site="none" needs secure'):
        Response().delete_cookie("a", same_site="none", secure=False)


@pytest.mark.parametrize("status", [100, 101, 199, 600, 200.0, 404.5, "404", True, None])
def test_a_response_has_a_final_http_status(status: Any) -> None:
    with pytest.raises(ValueError, match=f"from 200 to 599, not {status!r}"):
        Response("x", status)


@pytest.mark.parametrize("body", [404, True, None, ["a"], [1, 2], {"a": 1}])
def test_a_body_is_text_or_bytes(body: Any) -> None:
    with pytest.raises(
        TypeError, match=rf"a body is str or bytes, not {type(body).__name__}: Response\(body,"
    ):
        Response(body)
    for like in (bytearray(b"ab"), memoryview(b"ab")):
        assert Response(like).body == b"ab"  # type: ignore[arg-type]


def test_a_status_without_a_name_has_an_empty_phrase() -> None:
    assert reason_phrase(426) == "Upgrade Required"
    assert reason_phrase(599) == ""


def test_the_host_is_that_of_an_absolute_target_before_the_host_field() -> None:
    fields = {"Host": "field.example"}
    assert Request("/chat", fields).host == "field.example"
    assert Request("http://target.example:81/chat?x=http://y", fields).host == "target.example:81"
    assert Request("http://target.example?x", fields).host == "target.example"
    assert Request("/chat?back=http://target.example/", fields).host == "field.example"
    assert Request("http://[::1/chat", fields).host == "[::1"
    assert (
        Request("http://target.example/chat", fields, forwarded_host="proxied.example").host
        == "proxied.example"
    )


def test_thousands_of_offered_subprotocols_are_kept_as_one_string() -> None:
    offered = tuple(f"p{number}" for number in range(3000))
    request = Request("/", subprotocols=offered)
    assert request.subprotocols == offered
    assert sys.getsizeof(request._subprotocols) < 20_000
    assert Request("/", subprotocols=()).subprotocols == ()
    assert attrs.evolve(request, subprotocols=("a",)).subprotocols == ("a",)


# Bodies


def with_body(body: str | bytes, content_type: str = "application/json") -> Request:
    data = body.encode() if isinstance(body, str) else body
    return Request("/", {"Content-Type": content_type}, method="POST", is_websocket=False, body=data)


async def status_of(reading: Awaitable[object]) -> int:
    with pytest.raises(Reject) as rejected:
        await reading
    assert str(rejected.value.body).endswith("\n")
    return rejected.value.status


async def test_a_request_without_a_body_has_an_empty_one() -> None:
    assert await Request("/").body() == b""
    assert await Request("/").text() == ""


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        ("z\xfcrich".encode(), "text/plain", "z\xfcrich"),
        ("z\xfcrich".encode("latin-1"), "text/plain; charset=ISO-8859-1", "z\xfcrich"),
        ("z\xfcrich".encode("utf-16"), 'text/plain; x=y; Charset="utf-16"', "z\xfcrich"),
        (b"z\xfcrich", "text/plain", 400),
        (b"z\xfcrich", "text/plain; charset=ascii", 400),
        (b"x", "text/plain; charset=base64", 415),
        (b"x", "text/plain; charset=punycode", 415),
        (b"x", "text/plain; charset=", "x"),
    ],
)
async def test_text_is_in_the_charset_that_is_named(body: bytes, content_type: str, text: str | int) -> None:
    reading = with_body(body, content_type).text()
    assert (await status_of(reading) if isinstance(text, int) else await reading) == text


@pytest.mark.parametrize(
    ("body", "content_type", "value"),
    [
        ('{"a": [1, "\xfc", null]}', "application/json", {"a": [1, "\xfc", None]}),
        ("1", "Application/JSON; charset=utf-8", 1),
        ("1", "application/cloudevents+json", 1),
        ("1", "text/plain", 415),
        ("1", "", 415),
        ("1", "application/x-www-form-urlencoded", 415),
        ("1", "text/json+json", 415),
        ("", "application/json", 400),
        ("{", "application/json", 400),
        ("NaN", "application/json", 400),
        ("[-Infinity]", "application/json", 400),
        (b'"\xff"', "application/json", 400),
        ("[" * 200_000, "application/json", 400),
        ("9" * 100_000, "application/json", 400),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_json_is_read_where_it_is_said_to_be_json(
    body: str | bytes, content_type: str, value: object
) -> None:
    reading = with_body(body, content_type).json()
    assert (await status_of(reading) if value in (400, 415) else await reading) == value


async def test_a_form_is_its_fields() -> None:
    kind = "application/x-www-form-urlencoded"
    form = await with_body("a=1&b=%C3%BC+x&a=2&c", kind).form()
    assert (dict(form), form.get_all("a")) == ({"a": "2", "b": "\xfc x", "c": ""}, ["1", "2"])
    assert await with_body("", kind).form() == {}
    assert len(await with_body("&".join(f"f{number}=" for number in range(1000)), kind).form()) == 1000
    assert await status_of(with_body("a&" * 1001, kind).form()) == 413
    assert await status_of(with_body("a=\xfc", kind).form()) == 400
    for wrong in ("multipart/form-data; boundary=x", "text/plain", ""):
        assert await status_of(with_body("a=1", wrong).form()) == 415


def test_a_query_has_all_values_of_a_name() -> None:
    query = Request("/?tag=a&tag=b&x=%C3%BC").query
    assert query.get_all("tag") == ["a", "b"]
    assert (query["tag"], query["x"]) == ("b", "\xfc")


@pytest.mark.parametrize(
    ("location", "sent"),
    [
        ("/next?a=b%20c#d", "/next?a=b%20c#d"),
        ("https://example.com:8443/~ada/(x)", "https://example.com:8443/~ada/(x)"),
        ('/Zo\xeb?q=a b"<>', "/Zo%C3%AB?q=a%20b%22%3C%3E"),
    ],
)
def test_a_redirect_names_a_location_that_can_be_sent(location: str, sent: str) -> None:
    answer = Response.redirect(location, headers={"X": "y"})
    assert (answer.status, answer.headers["location"], answer.headers["x"], answer.body) == (
        *(303, sent, "y", b""),
    )
    assert Response.redirect("/", 308).status == 308


@pytest.mark.parametrize("location", ["/a\r\nX: y", "/a\nb", "/\0", "/a\x7f", "/\u2028"])
def test_a_redirect_is_no_way_to_write_header_fields(location: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        Response.redirect(location)


@pytest.mark.parametrize("status", [200, 300, 304, 404])
def test_a_redirect_redirects(status: int) -> None:
    with pytest.raises(ValueError, match="a redirect has status"):
        Response.redirect("/", status)
