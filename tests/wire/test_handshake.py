from __future__ import annotations

import base64

import h11
import pytest

from wsframework.errors import HandshakeError
from wsframework.wire import (
    Upgrade,
    accept_key,
    build_request,
    encode_101,
    is_upgrade,
    judge_response,
    read_upgrade,
    response_headers,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

Headers = list[tuple[str, str]]

GOOD: Headers = [
    ("Host", "server.example.com"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
]


def without(name: str) -> Headers:
    return [field for field in GOOD if field[0] != name]


def replaced(name: str, *values: str) -> Headers:
    return [*without(name), *((name, value) for value in values)]


def refused(headers: Headers, method: str = "GET", version: str = "1.1") -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        read_upgrade(method, version, headers)
    return caught.value


def test_the_accept_key_is_that_of_the_rfc() -> None:
    assert accept_key(KEY) == ACCEPT


def test_a_handshake_asks_for_what_it_says() -> None:
    assert read_upgrade("GET", "1.1", GOOD) == Upgrade(KEY)
    headers = [
        *GOOD,
        ("Sec-WebSocket-Protocol", "chat, superchat"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
    ]
    assert read_upgrade("GET", "1.1", headers) == Upgrade(
        KEY, ("chat", "superchat"), (("permessage-deflate", [("client_max_window_bits", None)]),)
    )


def test_lists_may_stand_on_several_lines() -> None:
    headers = [
        *GOOD,
        ("Sec-WebSocket-Protocol", "a"),
        ("sec-websocket-protocol", " b,c "),
        ("Sec-WebSocket-Extensions", "x; y=1"),
        ("Sec-WebSocket-Extensions", "z"),
    ]
    upgrade = read_upgrade("GET", "1.1", headers)
    assert upgrade.subprotocols == ("a", "b", "c")
    assert upgrade.extensions == (("x", [("y", "1")]), ("z", []))


@pytest.mark.parametrize(
    "headers",
    [
        replaced("Upgrade", "WebSocket"),
        replaced("Upgrade", "h2c, websocket"),
        replaced("Upgrade", "h2c", "websocket"),
        replaced("Connection", "upgrade"),
        replaced("Connection", "keep-alive, Upgrade"),
        replaced("Connection", "keep-alive", "UPGRADE"),
        replaced("Connection", "strange (value), upgrade"),
        [(name.upper(), f" {value}\t") for name, value in GOOD],
    ],
)
def test_case_lists_and_white_space_do_not_matter(headers: Headers) -> None:
    assert read_upgrade("GET", "1.1", headers) == Upgrade(KEY)


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "get"])
def test_another_method_is_405(method: str) -> None:
    error = refused(GOOD, method)
    assert (error.status, error.headers) == (405, (("Allow", "GET"),))
    assert method in str(error)


@pytest.mark.parametrize(
    ("headers", "version", "message"),
    [
        (GOOD, "1.0", "needs HTTP/1.1, not 1.0"),
        ([("Host", "x")], "1.1", "Upgrade: websocket is missing"),
        (replaced("Upgrade", "h2c"), "1.1", "Upgrade: websocket is missing"),
        (replaced("Upgrade", "websockets"), "1.1", "Upgrade: websocket is missing"),
        (without("Connection"), "1.1", "Connection: Upgrade is missing"),
        (replaced("Connection", "keep-alive"), "1.1", "Connection: Upgrade is missing"),
    ],
)
def test_a_request_without_an_upgrade_is_426(headers: Headers, version: str, message: str) -> None:
    error = refused(headers, version=version)
    assert error.status == 426
    assert error.headers == (("Upgrade", "websocket"), ("Connection", "Upgrade"))
    assert message in str(error)


@pytest.mark.parametrize("version", ["8", "0", "", "013", "13, 8", "14"])
def test_another_version_is_426_and_hears_ours(version: str) -> None:
    error = refused(replaced("Sec-WebSocket-Version", version))
    assert error.status == 426
    assert ("Sec-WebSocket-Version", "13") in error.headers
    assert ("Upgrade", "websocket") in error.headers
    assert repr(version) in str(error)


def test_a_missing_version_is_426_and_hears_ours() -> None:
    error = refused(without("Sec-WebSocket-Version"))
    assert error.status == 426
    assert ("Sec-WebSocket-Version", "13") in error.headers
    assert "missing" in str(error)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (without("Sec-WebSocket-Key"), "Key is missing"),
        (replaced("Sec-WebSocket-Key", KEY, KEY), "Key appears more than once"),
        (replaced("Sec-WebSocket-Version", "13", "13"), "Version appears more than once"),
        (replaced("Sec-WebSocket-Key", ""), "not 16 bytes"),
        (replaced("Sec-WebSocket-Key", "?" * 24), "not 16 bytes"),
        (replaced("Sec-WebSocket-Key", "é" * 24), "not 16 bytes"),
        (replaced("Sec-WebSocket-Key", KEY[:-1]), "not 16 bytes"),
        (replaced("Sec-WebSocket-Key", base64.b64encode(bytes(15)).decode()), "not 16 bytes"),
        (replaced("Sec-WebSocket-Key", base64.b64encode(bytes(17)).decode()), "not 16 bytes"),
        (replaced("Sec-WebSocket-Key", base64.b64encode(bytes(18)).decode()), "not 16 bytes"),
        (replaced("Sec-WebSocket-Key", "x" * 10_000), "not 16 bytes"),
        ([*GOOD, ("Sec-WebSocket-Protocol", "")], "no subprotocol"),
        ([*GOOD, ("Sec-WebSocket-Protocol", "a b")], "'a b' is not a token"),
        ([*GOOD, ("Sec-WebSocket-Protocol", "a"), ("Sec-WebSocket-Protocol", "a")], "'a' stands twice"),
        ([*GOOD, ("Sec-WebSocket-Extensions", "")], "no extension"),
        ([*GOOD, ("Sec-WebSocket-Extensions", "a;")], "malformed at character 3"),
        ([*GOOD, ("Content-Length", "5")], "has no body"),
        ([*GOOD, ("Content-Length", "05")], "has no body"),
        ([*GOOD, ("Transfer-Encoding", "chunked")], "has no body"),
        ([*GOOD, ("Origin", "http://a"), ("origin", "http://a")], "Origin appears more than once"),
    ],
)
def test_a_malformed_handshake_is_400_and_hears_why(headers: Headers, message: str) -> None:
    error = refused(headers)
    assert (error.status, error.headers) == (400, ())
    assert message in str(error)
    assert len(str(error)) < 300


@pytest.mark.parametrize(
    ("headers", "asks"),
    [
        (GOOD, True),
        ([("upgrade", "WEBSOCKET")], True),
        ([("Upgrade", "h2c, websocket")], True),
        ([("Sec-WebSocket-Key", KEY)], True),  # from behind a proxy that drops Upgrade
        ([("Host", "x")], False),
        ([("Upgrade", "h2c"), ("Connection", "Upgrade")], False),
        ([], False),
    ],
)
def test_a_request_for_a_websocket_is_told_from_a_plain_one(headers: Headers, asks: bool) -> None:
    assert is_upgrade(headers) is asks


def test_the_101_is_that_of_the_rfc() -> None:
    assert encode_101(KEY, "chat") == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Sec-WebSocket-Protocol: chat\r\n"
        b"\r\n"
    )


def test_the_101_carries_extensions_and_more() -> None:
    head = encode_101(KEY, None, "permessage-deflate", [("Set-Cookie", "a=b"), ("X", "")])
    assert b"Sec-WebSocket-Protocol" not in head
    assert head.endswith(
        b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\nSet-Cookie: a=b\r\nX: \r\n\r\n"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X", "secret\r\nSet-Cookie: b"),
        ("X", "secret\nb"),
        ("X", "secret\rb"),
        ("X", "secret\x00b"),
        ("X", "secret\x7f"),
        ("X\r\nY", "secret"),
        ("X Y", "secret"),
        ("X:", "secret"),
        ("", "secret"),
        ("X", "secret snow ☃"),
    ],
)
def test_a_header_that_would_break_the_head_is_refused_and_its_value_not_repeated(
    name: str, value: str
) -> None:
    others = [("Set-Cookie", "other secret")]
    with pytest.raises(ValueError) as answer:
        encode_101(KEY, None, None, [*others, (name, value)])
    with pytest.raises(ValueError) as request:
        build_request("x", "/", KEY, headers=[*others, (name, value)])
    assert "secret" not in f"{answer.value!r} {request.value!r}"


@pytest.mark.parametrize("target", ["", "/a b", "/a\r\nX: y", "/é", "/\x00"])
def test_a_target_that_would_break_the_head_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="target"):
        build_request("x", target, KEY)


def read_with_h11(request: bytes) -> tuple[str, str, Headers]:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(request)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    headers = [(name.decode(), value.decode()) for name, value in event.headers]
    return event.method.decode(), event.http_version.decode(), headers


def test_what_we_build_is_what_we_read_and_its_answer_is_good() -> None:
    request = build_request(
        "server.example.com:8080",
        "/chat?x=y",
        KEY,
        ["chat.v2", "chat"],
        "permessage-deflate; client_max_window_bits",
        "http://example.com",
        [("Authorization", "Bearer x")],
    )
    method, version, headers = read_with_h11(request)
    assert request.startswith(b"GET /chat?x=y HTTP/1.1\r\nHost: server.example.com:8080\r\n")
    assert {("origin", "http://example.com"), ("authorization", "Bearer x")} <= set(headers)
    upgrade = read_upgrade(method, version, headers)
    assert upgrade.subprotocols == ("chat.v2", "chat")
    assert upgrade.extensions == (("permessage-deflate", [("client_max_window_bits", None)]),)
    answer = response_headers(upgrade.key, "chat", "permessage-deflate")
    assert judge_response(101, answer, KEY, ["chat.v2", "chat"], ["permessage-deflate"]) == []


def test_the_least_request_is_read() -> None:
    assert read_upgrade(*read_with_h11(build_request("x", "/", KEY))) == Upgrade(KEY)


ANSWER: Headers = response_headers(KEY, None, None)


@pytest.mark.parametrize(
    ("status", "headers", "problems"),
    [
        (101, ANSWER, []),
        (101, [(name.lower(), value) for name, value in ANSWER], []),
        (200, ANSWER, ["status is 200"]),
        (426, [], ["status is 426"]),
        (101, [], ["Upgrade does not", "Connection does not", "Accept is missing"]),
        (101, ANSWER[1:], ["Upgrade does not say websocket"]),
        (101, [ANSWER[0], ("Connection", "close"), ANSWER[2]], ["Connection does not say Upgrade"]),
        (101, ANSWER + ANSWER[2:], ["Accept appears more than once"]),
        (101, [*ANSWER[:2], ("Sec-WebSocket-Accept", "x")], ["Accept is 'x'"]),
        (101, response_headers(KEY, "soap", None), ["subprotocol 'soap', which was not offered"]),
        (101, response_headers(KEY, "chat", None), []),
        (
            101,
            [*response_headers(KEY, "chat", None), ("sec-websocket-protocol", "chat")],
            ["Protocol appears more than once"],
        ),
        (101, response_headers(KEY, None, "x-gzip"), ["extension 'x-gzip', which was not offered"]),
        (101, response_headers(KEY, None, "permessage-deflate; a"), []),
        (101, response_headers(KEY, None, "a;;b"), ["malformed at character 3"]),
    ],
)
def test_an_answer_is_judged_by_every_rule(status: int, headers: Headers, problems: list[str]) -> None:
    found = judge_response(status, headers, KEY, ["chat"], ["permessage-deflate"])
    assert len(found) == len(problems)
    for sentence, part in zip(found, problems, strict=True):
        assert part in sentence
        assert "(RFC 6455 §" in sentence
        assert sentence.endswith(".")


@pytest.mark.parametrize("size", ["0", "00"])
def test_a_body_of_no_bytes_is_none(size: str) -> None:
    assert read_upgrade("GET", "1.1", [*GOOD, ("Content-Length", size)]).key == KEY


@pytest.mark.parametrize("offered", ["s3cret/t0ken==", "chat, s3cret.t0ken, s3cret.t0ken"])
def test_a_refusal_does_not_repeat_what_may_be_a_bearer_token(offered: str) -> None:
    error = refused([*GOOD, ("Sec-WebSocket-Protocol", offered)])
    assert error.status == 400
    assert "s3cret" not in str(error)
