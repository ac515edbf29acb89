from __future__ import annotations

import pytest

from tests.cli.conftest import Command
from wsframework import ConfigurationError
from wsframework.diagnostics.target import parse_headers, parse_target


@pytest.mark.parametrize(
    ("url", "secure", "host", "port", "resource", "header"),
    [
        ("ws://a", False, "a", 80, "/", "a"),
        ("wss://a/b?c=d", True, "a", 443, "/b?c=d", "a"),
        ("ws://a:80/", False, "a", 80, "/", "a"),
        ("ws://a:443/", False, "a", 443, "/", "a:443"),
        ("WS://A:8000/B", False, "a", 8000, "/B", "a:8000"),
        ("ws://[::1]:9/x", False, "::1", 9, "/x", "[::1]:9"),
        ("ws://a/grüß dich?ja=%20ü", False, "a", 80, "/gr%C3%BC%C3%9F%20dich?ja=%20%C3%BC", "a"),
        ("ws://münchen.example/", False, "xn--mnchen-3ya.example", 80, "/", "xn--mnchen-3ya.example"),
    ],
)
def test_a_url_is_taken_apart(
    url: str, secure: bool, host: str, port: int, resource: str, header: str
) -> None:
    target = parse_target(url)
    assert (target.secure, target.host, target.port, target.resource) == (secure, host, port, resource)
    assert target.host_header == header


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_an_address_is_known_as_one(host: str) -> None:
    assert parse_target(f"ws://{host}/").is_address
    assert not parse_target("ws://localhost/").is_address


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://a/b", "write ws://a/b"),
        ("https://a/b", "write wss://a/b"),
        ("localhost:8000", "such as ws://127.0.0.1:8000/chat"),
        ("ws:///b", "names no host"),
        ("ws://user:secret@a/", "--header 'Authorization"),
        ("ws://a/#top", "no fragment"),
        ("ws://a:99999/", "is not a URL"),
        ("ws://[::1/", "is not a URL"),
        ("ws://a:0/", "no server listens on port 0"),
        ("ws://a/\udcff", "is not UTF-8"),
        ("ws://a/?\udcff", "is not UTF-8"),
    ],
)
def test_what_is_no_websocket_url_gets_one_line_and_exit_code_2(
    url: str, words: str, command: Command
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_target(url)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    for name in ("trace", "connect"):
        code, out, err = command(name, url)
        assert (code, out) == (2, "")
        assert words in err
        assert err.count("\n") == 1


def test_a_subprotocol_that_stands_twice_is_refused(command: Command) -> None:
    code, _, err = command("trace", "ws://127.0.0.1:1/", "--subprotocol", "a", "--subprotocol", "a")
    assert (code, err) == (2, "error: --subprotocol 'a' stands twice\n")


def test_origin_stands_before_other_fields() -> None:
    assert parse_headers(["A: b"], "http://x") == (("Origin", "http://x"), ("A", "b"))


def test_header_fields_are_split_at_the_first_colon() -> None:
    assert parse_headers(["A: b", "C:d:e", "F:"]) == (("A", "b"), ("C", "d:e"), ("F", ""))


@pytest.mark.parametrize("line", ["no colon", ": no name"])
def test_a_header_field_of_another_form_is_refused(line: str, command: Command) -> None:
    code, _, err = command("trace", "ws://127.0.0.1/", "--header", line)
    assert (code, err) == (2, f"error: --header {line!r} is not of the form 'Name: value'\n")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--header", "Bad Name: x"),
        ("--header", "X: a\r\nY: b"),
        ("--header", "X: €"),
        ("--origin", "a\nb"),
        ("--subprotocol", "two words"),
        ("--subprotocol", ""),
    ],
)
def test_what_may_not_be_sent_is_refused_before_anything_is(
    option: str, value: str, command: Command
) -> None:
    for name in ("trace", "connect"):
        code, out, err = command(name, "ws://127.0.0.1:1/", option, value)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1


def test_a_message_that_is_not_utf8_is_refused_before_anything_is(command: Command) -> None:
    code, out, err = command("trace", "ws://127.0.0.1/", "--send", "\udcff")
    assert (code, out) == (2, "")
    assert err == "error: --send '\\udcff' is not UTF-8, as a text message must be\n"
