from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.decoding import repeatable
from wsframework.errors import HandshakeError
from wsframework.wire import loggable_subprotocols, parse_extensions, parse_subprotocols, parse_token_list
from wsframework.wire.fields import Extension


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        ("Upgrade", ["Upgrade"]),
        ("keep-alive, Upgrade", ["keep-alive", "Upgrade"]),
        (" \ta ,,\tb, ", ["a", "b"]),
        ("!#$%&'*+-.^_`|~09azAZ", ["!#$%&'*+-.^_`|~09azAZ"]),
        ("", []),
        (" , ,", []),
    ],
)
def test_a_list_of_tokens_is_read(value: str, tokens: list[str]) -> None:
    assert parse_token_list(value) == tokens


@pytest.mark.parametrize("value", ["a b", "a;b", 'a, "b"', "a/b", "é", "a\x00", "a\r\nb"])
def test_what_is_no_token_is_refused(value: str) -> None:
    with pytest.raises(HandshakeError, match=r"Connection: .* is not a token") as caught:
        parse_token_list(value, "Connection")
    assert caught.value.status == 400


def test_subprotocols_keep_the_clients_order() -> None:
    assert parse_subprotocols("chat.v2, chat, Chat") == ["chat.v2", "chat", "Chat"]


@pytest.mark.parametrize(
    ("value", "message"),
    [("", "no subprotocol"), (" , ", "no subprotocol"), ("a, b, a", "'a' stands twice"), ("a b", "'a b'")],
)
def test_malformed_subprotocols_are_refused(value: str, message: str) -> None:
    with pytest.raises(HandshakeError, match=message):
        parse_subprotocols(value)


# The examples of RFC 6455 §9.1 and RFC 7692 §5.1, and the corners of the grammar.
EXTENSIONS: list[tuple[str, list[Extension]]] = [
    ("foo", [("foo", [])]),
    ("foo, bar; baz=2", [("foo", []), ("bar", [("baz", "2")])]),
    (
        "deflate-stream, mux; max-channels=4; flow-control, deflate-stream",
        [
            ("deflate-stream", []),
            ("mux", [("max-channels", "4"), ("flow-control", None)]),
            ("deflate-stream", []),
        ],
    ),
    (
        "permessage-deflate; client_max_window_bits; server_max_window_bits=10, permessage-deflate",
        [
            ("permessage-deflate", [("client_max_window_bits", None), ("server_max_window_bits", "10")]),
            ("permessage-deflate", []),
        ],
    ),
    ('foo; a="b"', [("foo", [("a", "b")])]),
    (r'foo; a="\b\c"', [("foo", [("a", "bc")])]),
    (" foo ; a = b ;\tc , , bar ", [("foo", [("a", "b"), ("c", None)]), ("bar", [])]),
    ('foo ; a = "b" , bar', [("foo", [("a", "b")]), ("bar", [])]),
    ("foo; a; a", [("foo", [("a", None), ("a", None)])]),
]


@pytest.mark.parametrize(("value", "extensions"), EXTENSIONS)
def test_extensions_are_read_with_their_parameters(value: str, extensions: list[Extension]) -> None:
    assert parse_extensions(value) == extensions


@pytest.mark.parametrize(
    "value",
    [
        "", " ", ",", ";", "foo;", "foo; ;a", "foo bar", "foo; a b", "foo; =b", "foo; a=", "foo; a=,bar",
        '"foo"', 'foo; a="', 'foo; a="b', 'foo; a="b c"', 'foo; a=""', 'foo; a="b"c', "foo; a=b=c", "föö",
        'foo; a="\\', "foo\r\n", 'foo; a="b\n"',
    ],
)  # fmt: skip
def test_malformed_extensions_are_refused(value: str) -> None:
    with pytest.raises(HandshakeError, match="Sec-WebSocket-Extensions") as caught:
        parse_extensions(value)
    assert caught.value.status == 400


def test_a_log_gets_short_names_of_subprotocols_and_of_longer_ones_the_length() -> None:
    assert (
        loggable_subprotocols("chat, superchat,bearer.s3cret.t0ken")
        == "chat, <9 characters>, <19 characters>"
    )
    assert loggable_subprotocols("") == ""


names = st.text(st.sampled_from("abcXYZ019-_.!"), min_size=1, max_size=8)


@repeatable(100)
@given(
    st.lists(
        st.tuples(names, st.lists(st.tuples(names, st.none() | names), max_size=3)), min_size=1, max_size=3
    )
)
def test_extensions_come_back_as_they_were_written(extensions: list[Extension]) -> None:
    written = ", ".join(
        "; ".join([name, *(key if value is None else f'{key}="{value}"' for key, value in parameters)])
        for name, parameters in extensions
    )
    assert parse_extensions(written) == extensions


@repeatable(300)
@given(st.text(st.sampled_from('ab=;," \t\\\r\n\x00é'), max_size=20))
def test_any_text_is_read_or_refused(value: str) -> None:
    for parse in (parse_token_list, parse_subprotocols, parse_extensions):
        with contextlib.suppress(HandshakeError):
            parse(value)
