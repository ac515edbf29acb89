from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import trio_websocket

import wsframework
from wsframework import errors
from wsframework.closes import Closed, CloseFrame
from wsframework.errors import (
    Accept,
    Close,
    ConfigurationError,
    ConnectionClosed,
    HandshakeError,
    ImportStringError,
    ListenError,
    PluginError,
    Reject,
    RouteError,
    WSFrameworkError,
)

OURS = CloseFrame(1001, "going away")
THEIRS = CloseFrame(4000, "bye")


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    assert errors.__doc__ is not None
    lines = re.findall(r"^    (?:(│?\s*)[├└]── )?(\w+)", errors.__doc__, re.MULTILINE)
    parents, above = {}, ""
    for indent, name in lines:
        parents[name] = above if indent.strip() else "WSFrameworkError"
        above = above if indent.strip() else name
    del parents["WSFrameworkError"]
    classes = {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, WSFrameworkError) and value is not WSFrameworkError
    }
    assert {name: value.__bases__[0].__name__ for name, value in classes.items()} == parents


@pytest.mark.parametrize("error", [RouteError, ListenError, PluginError, ImportStringError])
def test_mistakes_in_the_set_up_are_configuration_errors(error: type[Exception]) -> None:
    assert issubclass(error, ConfigurationError)
    assert issubclass(error, wsframework.WSFrameworkError)


def test_connection_closed_is_caught_as_trio_websockets_exception() -> None:
    error = ConnectionClosed(Closed(CloseFrame(4000), THEIRS, False))
    with pytest.raises(trio_websocket.ConnectionClosed) as caught:
        raise error
    # The attributes that code written for trio-websocket reads.
    assert caught.value.reason is not None
    assert (caught.value.reason.code, caught.value.reason.reason) == (4000, "bye")
    assert isinstance(error, WSFrameworkError)


def test_connection_closed_carries_both_frames_and_reads_well() -> None:
    closed = Closed(OURS, None, True)
    error = ConnectionClosed(closed)
    assert error.closed is closed
    assert error.code == 1006
    assert str(error) == "connection closed: we sent Close 1001 (going away), the peer sent none"
    assert repr(error) == "ConnectionClosed('we sent Close 1001 (going away), the peer sent none')"
    # trio-websocket has None where the peer gave no reason.
    assert error.reason is not None
    assert error.reason.reason is None


def test_a_close_is_1000_by_default_and_reads_as_its_frame() -> None:
    assert (Close().code, Close().reason, str(Close())) == (1000, "", "1000")
    assert str(Close(4001, "not you")) == "4001 (not you)"


def test_errors_survive_a_copy() -> None:
    # copy.copy goes through pickle's protocol: what crosses a process or is re-raised elsewhere.
    close = copy.copy(Close(4001, "not you"))
    assert (close.code, close.reason) == (4001, "not you")
    closed = copy.copy(ConnectionClosed(Closed(OURS, THEIRS, True)))
    assert closed.closed == Closed(OURS, THEIRS, True)
    assert closed.code == 4000


def test_a_rejection_takes_headers_as_a_mapping_or_as_pairs() -> None:
    pairs = (("WWW-Authenticate", "Bearer"), ("X-Why", "no token"))
    assert Reject(401, headers=dict(pairs)).headers == pairs
    assert Reject(401, "who are you?", list(pairs)).headers == pairs
    assert Reject(401).headers == ()
    assert Reject(401).body == b""


def test_a_rejection_with_headers_in_the_place_of_the_body_is_refused_at_once() -> None:
    headers: Any = {"WWW-Authenticate": "Bearer"}
    with pytest.raises(TypeError, match=r"not dict: Reject\(status, body, headers\)"):
        Reject(401, headers)


@pytest.mark.parametrize("status", [101, 200, 299, 600, 0, 401.0, 401.5, "401", True, None])
def test_a_rejection_needs_a_status_that_refuses(status: Any) -> None:
    with pytest.raises(ValueError, match=f"from 300 to 599, not {status!r}"):
        Reject(status)


def test_a_handshake_error_carries_its_http_answer() -> None:
    error = HandshakeError("version 12 is not spoken", 426, (("Sec-WebSocket-Version", "13"),))
    assert (error.status, error.headers) == (426, (("Sec-WebSocket-Version", "13"),))
    assert str(error) == "version 12 is not spoken"
    assert (HandshakeError("bad").status, HandshakeError("bad").headers) == (400, ())


# Reject


def test_a_reject_closes_a_websocket_only_if_it_has_a_code() -> None:
    assert Reject(401, "no").close is None
    assert Reject(401, close=4401).close == CloseFrame(4401, "")
    copied = copy.copy(Reject(401, "no", {"A": "b"}, close=4401))
    assert (copied.status, copied.body, copied.headers) == (401, "no", (("A", "b"),))
    assert copied.close == CloseFrame(4401, "no")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("please sign in\n", "please sign in"),
        (b'{"error": "signed out"}', '{"error": "signed out"}'),
        ("x" * 123, "x" * 123),
        ("x" * 124, "x" * 123),
        ("é" * 70, "é" * 61),
        (b"\xff\xfe", ""),
    ],
)
def test_the_reason_of_a_rejects_close_is_what_fits_of_its_body(body: str | bytes, reason: str) -> None:
    assert Reject(401, body, close=4401).close == CloseFrame(4401, reason)


@pytest.mark.parametrize("code", [0, 401, 1005, 1006, 1015, 2999, 5000])
def test_a_reject_with_a_code_that_may_not_be_sent_is_refused(code: int) -> None:
    with pytest.raises(ValueError, match=f"close code {code} may not be sent"):
        Reject(401, close=code)


# Accept


def test_an_accept_has_a_value_and_fields() -> None:
    assert (Accept().value, Accept().headers) == (None, ())
    accept = Accept("Ada", headers={"Set-Cookie": "a=1"})
    assert (accept.value, accept.headers) == ("Ada", (("Set-Cookie", "a=1"),))
    assert Accept(headers=iter([("A", "\t é"), ("a", "")])).headers == (("A", "\t é"), ("a", ""))
    copied = copy.copy(accept)
    assert (copied.value, copied.headers) == (accept.value, accept.headers)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Sec-WebSocket-Accept", "it is part of the handshake"),
        ("sec-websocket-extensions", "it is part of the handshake"),
        ("SEC-WebSocket-Protocol", "the route chooses the subprotocol"),
        ("Sec-WebSocket-Whatever", "it is part of the handshake"),
        ("upgrade", "it is part of the handshake"),
        ("Connection", "it is part of the handshake"),
        ("Content-Length", "it says where the answer ends"),
        ("Transfer-Encoding", "it says where the answer ends"),
        ("Keep-Alive", "it is about a single hop"),
        ("Proxy-Connection", "it is about a single hop"),
        ("TE", "it is about a single hop"),
        ("Trailer", "it is about a single hop"),
        ("Content-Type", "it describes a body: set it on the Response"),
        ("content-encoding", "it describes a body"),
    ],
)
def test_an_accept_refuses_fields_that_are_not_to_be_added(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        Accept(headers=[("X-Fine", "1"), (name, "1")])
