from __future__ import annotations

import copy
import re

import pytest
import trio_websocket

import wsframework
from wsframework import errors
from wsframework.errors import (
    Close,
    Closed,
    CloseFrame,
    ConfigurationError,
    ConnectionClosed,
    HandshakeError,
    ImportStringError,
    ListenError,
    PluginError,
    Reject,
    RouteError,
    WSFrameworkError,
    check_close,
    is_valid_close_code,
    unwrap_group,
)

OURS = CloseFrame(1001, "going away")
THEIRS = CloseFrame(4000, "bye")

NEVER_ON_THE_WIRE = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535, -1]
ON_THE_WIRE = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    assert errors.__doc__ is not None
    lines = re.findall(r"^    (?:(│?\s*)[├└]── )?(\w+)", errors.__doc__, re.MULTILINE)
    parents = {name: "ConfigurationError" if indent.strip() else "WSFrameworkError" for indent, name in lines}
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


def test_a_close_frame_reads_as_its_code_and_reason() -> None:
    assert str(CloseFrame(1000)) == "1000"
    assert str(THEIRS) == "4000 (bye)"


@pytest.mark.parametrize(
    ("closed", "code", "reason", "clean", "text"),
    [
        (
            Closed(OURS, CloseFrame(1001), True),
            1001,
            "",
            True,
            "we sent Close 1001 (going away), the peer answered 1001",
        ),
        (
            Closed(OURS, None, True, "the timeout was over"),
            1006,
            "",
            False,
            "we sent Close 1001 (going away), the peer sent none; the timeout was over",
        ),
        (
            Closed(CloseFrame(4000), THEIRS, False),
            4000,
            "bye",
            True,
            "the peer sent Close 4000 (bye), we answered 4000",
        ),
        (
            Closed(None, THEIRS, False),
            4000,
            "bye",
            False,
            "the peer sent Close 4000 (bye), we could not answer",
        ),
        (
            Closed(None, None, None, "connection reset"),
            1006,
            "",
            False,
            "no Close frame was sent or received; connection reset",
        ),
        (Closed(None, None, None), 1006, "", False, "no Close frame was sent or received"),
    ],
)
def test_closed_says_who_was_first_and_what_the_peer_said(
    closed: Closed, code: int, reason: str, clean: bool, text: str
) -> None:
    assert (closed.code, closed.reason, closed.clean, str(closed)) == (code, reason, clean, text)


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


@pytest.mark.parametrize("code", ON_THE_WIRE)
def test_codes_of_the_registry_and_the_private_ranges_may_be_sent(code: int) -> None:
    assert is_valid_close_code(code)
    check_close(code, "")
    assert Close(code).code == code


@pytest.mark.parametrize("code", NEVER_ON_THE_WIRE)
def test_reserved_and_unassigned_codes_may_not_be_sent(code: int) -> None:
    assert not is_valid_close_code(code)
    with pytest.raises(ValueError, match=rf"close code {code} may not be sent: use 1000, "):
        Close(code)


def test_a_close_reason_is_measured_in_bytes_of_utf_8() -> None:
    assert Close(1000, "x" * 123).reason == "x" * 123
    check_close(1000, "é" * 61)
    with pytest.raises(ValueError, match="at most 123 bytes of UTF-8; this one has 124"):
        Close(1000, "é" * 62)


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
    assert Reject(401, dict(pairs)).headers == pairs
    assert Reject(401, list(pairs), "who are you?").headers == pairs
    assert Reject(401).headers == ()
    assert Reject(401).body == b""


@pytest.mark.parametrize("status", [101, 200, 299, 600, 0])
def test_a_rejection_needs_a_status_that_refuses(status: int) -> None:
    with pytest.raises(ValueError, match=f"from 300 to 599, not {status}"):
        Reject(status)


def test_a_handshake_error_carries_its_http_answer() -> None:
    error = HandshakeError("version 12 is not spoken", 426, (("Sec-WebSocket-Version", "13"),))
    assert (error.status, error.headers) == (426, (("Sec-WebSocket-Version", "13"),))
    assert str(error) == "version 12 is not spoken"
    assert (HandshakeError("bad").status, HandshakeError("bad").headers) == (400, ())


def test_unwrap_group_takes_a_lone_exception_out_of_all_its_groups() -> None:
    inner = ValueError("x")
    assert unwrap_group(inner) is inner
    assert unwrap_group(ExceptionGroup("a", [ExceptionGroup("b", [inner])])) is inner
    two = ExceptionGroup("two", [inner, KeyError("y")])
    assert unwrap_group(two) is two
    assert unwrap_group(ExceptionGroup("around", [two])) is two
