from __future__ import annotations

import inspect
import string
from datetime import UTC, date, datetime, timedelta, timezone
from http.cookies import SimpleCookie
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wsframework.cookies import parse_cookies, set_cookie_field
from wsframework.request import Response

# What a client sent


@pytest.mark.parametrize(
    ("field", "cookies"),
    [
        ("", {}),
        ("session=x", {"session": "x"}),
        ("session=x; theme=dark", {"session": "x", "theme": "dark"}),
        ("session=x;theme=dark;", {"session": "x", "theme": "dark"}),
        (" session = x \t;\t theme=dark ", {"session": "x", "theme": "dark"}),
        ("a=b=c==", {"a": "b=c=="}),
        ("empty=; a=1", {"empty": "", "a": "1"}),
        ("Case=1; case=2", {"Case": "1", "case": "2"}),
        # A browser sends the more specific path first (RFC 6265 §5.4).
        ("session=of-this-path; session=of-the-root", {"session": "of-this-path"}),
        ('session="x"', {"session": "x"}),
        ('session=""; a=1', {"session": "", "a": "1"}),
        ('session="', {"session": '"'}),
        ('session="x', {"session": '"x'}),
        ('session="x"y"', {"session": '"x"y"'}),
        # Nothing is decoded: who has encoded a value knows how.
        ("a=x%20y+z; b=\\073", {"a": "x%20y+z", "b": "\\073"}),
        # What is no cookie costs nothing but itself; http.cookies loses the session in each of these.
        ("a[b]=c; session=x", {"a[b]": "c", "session": "x"}),
        ("session; =x; ; session=x", {"session": "x"}),
        ('{"json":1}; session=x', {"session": "x"}),
        ("session=x; a b=c; theme=dark", {"session": "x", "a b": "c", "theme": "dark"}),
        ("session=x, y", {"session": "x, y"}),
        # What a page's script sets arrives as UTF-8; fields are read as Latin-1.
        ("name=José".encode().decode("latin-1"), {"name": "José"}),
        ("name=Jos\xe9; session=x", {"name": "Jos\xe9", "session": "x"}),
        ("name=☃", {"name": "☃"}),
    ],
)
def test_a_cookie_field_is_read_as_names_and_values(field: str, cookies: dict[str, str]) -> None:
    assert parse_cookies([field]) == cookies


def test_several_cookie_fields_are_read_in_their_order() -> None:
    assert parse_cookies(["a=1; b=2", "a=3", "c=4"]) == {"a": "1", "b": "2", "c": "4"}
    assert parse_cookies([]) == {}


@given(st.lists(st.text()))
def test_any_text_is_read_without_an_exception(fields: list[str]) -> None:
    for name in parse_cookies(fields):
        assert name


@pytest.mark.parametrize("piece", [";", "=", '"', ' "', "a=;", "a", ' ="', '\t;"', "é=", "\xff"])
def test_the_time_to_read_grows_with_the_length_alone(piece: str) -> None:
    # Where it grew with the square, this would take minutes.
    parse_cookies([f'a="{piece * 200_000}'])


# What a server sets


def field(name: str = "session", value: str = "x", **attributes: Any) -> str:
    header, text = set_cookie_field(name, value, **attributes)
    assert header == "Set-Cookie"
    return text


SOON = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("attributes", "behind"),
    [
        ({}, "; Path=/; Secure; HttpOnly; SameSite=Lax"),
        ({"max_age": 3600}, "; Max-Age=3600; Path=/; Secure; HttpOnly; SameSite=Lax"),
        (
            {"expires": SOON},
            "; Expires=Wed, 02 Jan 2030 03:04:05 GMT; Path=/; Secure; HttpOnly; SameSite=Lax",
        ),
        (
            {"expires": SOON.astimezone(timezone(timedelta(hours=2))), "max_age": 7},
            "; Expires=Wed, 02 Jan 2030 03:04:05 GMT; Max-Age=7; Path=/; Secure; HttpOnly; SameSite=Lax",
        ),
        ({"path": "/club, of/ada"}, "; Path=/club, of/ada; Secure; HttpOnly; SameSite=Lax"),
        ({"domain": "club.example"}, "; Domain=club.example; Path=/; Secure; HttpOnly; SameSite=Lax"),
        ({"secure": False}, "; Path=/; HttpOnly; SameSite=Lax"),
        ({"http_only": False}, "; Path=/; Secure; SameSite=Lax"),
        ({"same_site": "strict"}, "; Path=/; Secure; HttpOnly; SameSite=Strict"),
        ({"same_site": "none"}, "; Path=/; Secure; HttpOnly; SameSite=None"),
        ({"same_site": None}, "; Path=/; Secure; HttpOnly"),
        ({"secure": False, "http_only": False, "same_site": None}, "; Path=/"),
        ({"partitioned": True}, "; Path=/; Secure; HttpOnly; SameSite=Lax; Partitioned"),
    ],
)
def test_a_cookie_is_secure_hidden_from_scripts_and_lax_unless_told_otherwise(
    attributes: dict[str, Any], behind: str
) -> None:
    assert field(**attributes) == f"session=x{behind}"


@pytest.mark.parametrize("attributes", [{}, {"expires": SOON}])
def test_a_maximum_age_of_0_deletes_the_cookie_by_a_date_in_the_past(attributes: dict[str, Any]) -> None:
    # RFC 6265 §4.1.1 has no Max-Age=0 for servers.
    expected = "session=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/; Secure; HttpOnly; SameSite=Lax"
    assert field(value="", max_age=0, **attributes) == expected


@pytest.mark.parametrize("hours", [-5, 0, 5])
def test_the_last_moment_that_there_is_can_be_the_end(hours: int) -> None:
    last = datetime.max.replace(tzinfo=timezone(timedelta(hours=hours)))
    assert "Expires=Fri, 31 Dec 9999 " in field(expires=last)


octets = st.sampled_from(sorted(set(map(chr, range(0x21, 0x7F))) - set('",;\\')))
names = st.text(st.sampled_from(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"), min_size=1)


@given(name=names, value=st.text(octets))
@example(name="a", value="=")
def test_what_is_set_is_what_the_client_sends_back(name: str, value: str) -> None:
    pair = field(name, value).partition(";")[0]
    assert parse_cookies([f"=; {pair}; more=2"])[name] == value


@given(name=names.filter(lambda name: "$" not in name[:1]), value=st.text(octets))
def test_the_standard_library_reads_the_same(name: str, value: str) -> None:
    if name.lower() in ("path", "domain", "secure", "httponly", "samesite", "expires", "comment", "version"):
        return  # it does not take those for names
    morsel = SimpleCookie(field(name, value, expires=SOON, domain="club.example", path="/a"))[name]
    assert (morsel.value, morsel["path"], morsel["domain"]) == (value, "/a", "club.example")
    assert (morsel["secure"], morsel["httponly"], morsel["samesite"]) == (True, True, "Lax")
    assert morsel["expires"] == "Wed, 02 Jan 2030 03:04:05 GMT"


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a;b", "a=b", "a,b", "é", "a\r\nSet-Cookie: b", "a\0", '"a"']
)
def test_a_name_is_a_token(name: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be a cookie's name: it is a token such as 'session'$"):
        field(name)


@pytest.mark.parametrize("wrong", [" ", ";", ",", '"', "\\", "\r", "\n", "\0", "\x7f", "é", "☃", "\t"])
def test_a_value_that_cannot_be_sent_is_refused_and_not_repeated(wrong: str) -> None:
    with pytest.raises(ValueError) as caught:
        field("session", f"secret{wrong}secret")
    assert str(caught.value) == (
        f"cookie 'session': its value cannot hold {wrong!r}, at character 7: encode it, for example with "
        "urllib.parse.quote"
    )


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"value": "x" * 4090}, "browsers ignore a name and value of more than 4096 bytes"),
        ({"max_age": -1}, "max_age is a number of seconds, or 0 to delete it, not -1"),
        ({"expires": datetime(2030, 1, 1)}, "expires needs a time zone, such as datetime.now(UTC)"),
        (
            {"expires": datetime.min.replace(tzinfo=UTC)},
            "an expires before 1601; use max_age=0",
        ),
        ({"path": ""}, "'' is no path: it begins with"),
        ({"path": "club"}, "'club' is no path: it begins with"),
        ({"path": "/a; Domain=evil.example"}, "is no path: it begins with"),
        ({"path": "/é"}, "is no path: it begins with"),
        ({"path": "/club "}, "is no path: it begins with"),
        ({"path": "/a\r\nX: y"}, "is no path: it begins with"),
        ({"domain": ""}, "'' is no domain: ASCII, with no scheme, port or dot at its start"),
        ({"domain": ".club.example"}, "is no domain: ASCII"),
        ({"domain": "club.example:443"}, "is no domain: ASCII"),
        ({"domain": "https://club.example"}, "is no domain: ASCII"),
        ({"domain": "a; Path=/b"}, "is no domain: ASCII"),
        ({"domain": "bücher.example"}, "is no domain: ASCII"),
        ({"same_site": "Lax"}, 'same_site is "lax", "strict", "none" or None, not \'Lax\''),
        ({"same_site": "none", "secure": False}, 'same_site="none" needs secure=True'),
        ({"partitioned": True, "secure": False}, "partitioned needs secure=True"),
        ({"path": "/" * 1025}, "browsers ignore a path of more than 1024 bytes"),
        ({"domain": "a" * 1025}, "browsers ignore a domain of more than 1024 bytes"),
        ({"name": "__Http-session", "secure": False}, "its prefix needs secure=True"),
        ({"name": "__http-session", "http_only": False}, "its prefix needs http_only=True"),
        ({"name": "__Host-Http-session", "http_only": False}, "its prefix needs http_only=True"),
        ({"name": "__Host-Http-session", "path": "/club"}, 'its prefix needs path="/" and no domain'),
        ({"name": "__Secure-session", "secure": False}, "its prefix needs secure=True"),
        ({"name": "__Host-session", "secure": False}, "its prefix needs secure=True"),
        ({"name": "__Host-session", "path": "/club"}, 'its prefix needs path="/" and no domain'),
        ({"name": "__host-session", "domain": "club.example"}, 'its prefix needs path="/" and no domain'),
    ],
)
def test_what_browsers_would_ignore_or_misread_is_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        field(**attributes)
    assert str(caught.value).startswith(f"cookie {attributes.get('name', 'session')!r}: ")
    assert message in str(caught.value)


def test_the_largest_cookie_and_those_with_prefixes_are_set() -> None:
    assert field("a", "x" * 4095)
    assert field(path="/" * 1024)
    assert field("__Http-session", path="/club")
    assert field("__Host-session", http_only=False)
    assert field("__Host-session").startswith("__Host-session=x; Path=/; Secure")
    assert "Domain=a-1.example" in field("__Secure-session", domain="a-1.example", path="/club")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"value": 7}, "a cookie's name and value are str, not str and int"),
        ({"value": b"x"}, "a cookie's name and value are str, not str and bytes"),
        ({"name": None}, "a cookie's name and value are str, not NoneType and str"),
        ({"max_age": 1.5}, "cookie 'session': max_age is an int, in seconds, not float"),
        ({"max_age": timedelta(days=1)}, "cookie 'session': max_age is an int, in seconds, not timedelta"),
        ({"max_age": False}, "cookie 'session': max_age is an int, in seconds, not bool"),
        ({"max_age": "60"}, "cookie 'session': max_age is an int, in seconds, not str"),
        ({"expires": 3600}, "cookie 'session': expires is a datetime, not int"),
        ({"expires": timedelta(days=1)}, "cookie 'session': expires is a datetime, not timedelta"),
        ({"expires": date(2030, 1, 1)}, "cookie 'session': expires is a datetime, not date"),
        ({"path": None}, "cookie 'session': path is a str, not NoneType"),
        ({"path": b"/"}, "cookie 'session': path is a str, not bytes"),
        ({"domain": b"club.example"}, "cookie 'session': domain is a str, not bytes"),
    ],
)
def test_wrong_types_are_named(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}$"):
        field(**attributes)


def test_both_ways_to_set_a_cookie_take_the_same_arguments_with_the_same_defaults() -> None:
    method, function = inspect.signature(Response.set_cookie), inspect.signature(set_cookie_field)
    assert list(method.parameters.values())[1:] == list(function.parameters.values())
