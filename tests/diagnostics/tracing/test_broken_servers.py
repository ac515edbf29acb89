"""Servers that answer wrongly: each gets one plain sentence with the section that says so."""

from __future__ import annotations

import json
import socket
import time
import zlib

import pytest

from tests.cli.conftest import Command
from tests.diagnostics.broken import (
    Talk,
    answer,
    answer_close,
    drain,
    every,
    only,
    problems,
    raw_server,
    read_frame,
    read_request,
    reset,
    saying,
    tell_story,
    upgrade,
    upgrading,
)

CHUNKED = ("Transfer-Encoding: chunked",)


def answering(status: str, *fields: str, body: bytes = b"") -> Talk:
    length = () if fields[:1] == CHUNKED else (f"Content-Length: {len(body)}",)

    def talk(connection: socket.socket) -> None:
        answer(connection, status, *fields, *length, body=body)
        drain(connection)

    return talk


def sending(data: bytes, *fields: str) -> Talk:
    """Open a WebSocket, send these bytes, then behave as well as can be."""

    def talk(connection: socket.socket) -> None:
        upgrade(connection, *fields, then=data)
        answer_close(connection)
        connection.shutdown(socket.SHUT_WR)
        drain(connection)

    return talk


# The opening handshake

OPENINGS: dict[str, tuple[Talk, str]] = {
    "accept.wrong": (
        upgrading("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", without="Sec-WebSocket-Accept"),
        "but this key asks for",
    ),
    "accept.missing": (upgrading(without="Sec-WebSocket-Accept"), "Accept is missing"),
    "upgrade.missing": (upgrading(without="Upgrade"), "Upgrade does not say websocket"),
    "connection.missing": (upgrading(without="Connection"), "Connection does not say Upgrade"),
    "subprotocol.unasked": (upgrading("Sec-WebSocket-Protocol: superchat"), "subprotocol 'superchat'"),
    "extension.unasked": (upgrading("Sec-WebSocket-Extensions: x-mine"), "extension 'x-mine'"),
    "status.200": (answering("200 OK"), "plain HTTP, not a WebSocket"),
    "status.302": (answering("302 Found", "Location: https://x.invalid/"), "https://x.invalid/"),
    "status.400": (answering("400 Bad Request", body=b"\r\nno key"), "It says: 'no key'"),
    "status.401": (answering("401 Unauthorized", "WWW-Authenticate: Basic"), "(Basic)"),
    "status.403": (answering("403 Forbidden"), "--origin"),
    "status.404": (answering("404 Not Found"), "nothing at this path"),
    "status.407": (answering("407 Proxy Authentication Required"), "a proxy asks"),
    "status.418": (answering("418 Teapot"), "no WebSocket was opened"),
    "status.426": (answering("426 Upgrade Required"), "a proxy in between may drop it"),
    "status.503": (answering("503 Busy"), "is unavailable"),
    "http.malformed": (saying(b"SSH-2.0-x\r\n", end=True), "begins with 'SSH-2.0-x'"),
    "http.tls": (saying(b"\x15\x03\x01\x00\x02\x02\x46", end=True), "use wss:// instead"),
    "http.none": (saying(b"", end=True), "closed TCP before it had answered"),
}


@pytest.mark.parametrize("problem", OPENINGS)
def test_a_wrong_answer_is_one_line_with_its_section_and_exit_code_1(problem: str, command: Command) -> None:
    talk, words = OPENINGS[problem]
    with raw_server(talk) as server:
        story = tell_story(f"ws://{server}/")
        code, out, err = command("trace", f"ws://{server}/", "--wait", "0")
    diagnosis = only(story, "diagnosis")
    assert diagnosis["problem"] == problem
    assert words in diagnosis["sentence"]
    assert diagnosis["fatal"] is True
    assert "RFC " in diagnosis["sentence"] or problem == "http.tls"
    assert not every(story, "frame")
    assert code == 1
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1
    assert "Traceback" not in out


def test_a_version_that_the_server_asks_for_is_named() -> None:
    with raw_server(answering("426 Upgrade Required", "Sec-WebSocket-Version: 8, 7")) as server:
        story = tell_story(f"ws://{server}/")
    assert "version 8, 7, not 13" in only(story, "diagnosis")["sentence"]


def test_the_wrong_accept_is_shown_beside_the_right_one(command: Command) -> None:
    with raw_server(OPENINGS["accept.wrong"][0]) as server:
        agreement = only(tell_story(f"ws://{server}/"), "http.response")["agreement"]
        _, out, _ = command("trace", f"ws://{server}/")
    assert agreement["accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert agreement["accept_expected"] not in ("", agreement["accept"])
    assert agreement["accept_matches"] is False
    assert "but s3pPLMBiTxaQ9kYGzzhZRbK+xOo= CAME" in out


def test_all_that_is_wrong_with_an_answer_is_told(command: Command) -> None:
    talk = upgrading("Sec-WebSocket-Protocol: superchat", without="Sec-WebSocket-Accept")
    with raw_server(talk) as server:
        story = tell_story(f"ws://{server}/")
        _, _, err = command("trace", f"ws://{server}/")
    assert problems(story) == ["accept.missing", "subprotocol.unasked"]
    assert err.count("error: ") == 2


def test_compression_with_parameters_that_nobody_may_accept_is_refused() -> None:
    talk = upgrading("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99")
    with raw_server(talk) as server:
        story = tell_story(f"ws://{server}/", deflate=True)
    assert problems(story) == ["extension.parameters"]
    assert "RFC 7692 §7.1" in only(story, "diagnosis")["sentence"]


def test_a_page_is_not_quoted_and_its_first_line_is_shown() -> None:
    page = b"<!doctype html>\n<p>hello"
    with raw_server(answering("200 OK", body=page)) as server:
        story = tell_story(f"ws://{server}/")
    assert "It says" not in only(story, "diagnosis")["sentence"]
    assert only(story, "http.response")["body"] == page.decode()


def test_a_body_in_chunks_is_quoted_without_their_sizes() -> None:
    body = b"6\r\nno tea\r\n0\r\n\r\n"
    with raw_server(answering("500 Oops", *CHUNKED, body=body)) as server:
        story = tell_story(f"ws://{server}/")
    assert "It says: 'no tea'" in only(story, "diagnosis")["sentence"]


def test_a_listener_that_never_answers_is_given_up_in_time(command: Command) -> None:
    with raw_server(drain) as server:
        code, out, err = command("trace", f"ws://{server}/", "--timeout", "0.3")
    assert (code, err) == (1, "error: The server sent no answer to the opening handshake within 0.3 s.\n")
    assert "GET / HTTP/1.1" in out


def test_a_head_without_an_end_is_given_up_in_time() -> None:
    def talk(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
        drain(connection)

    with raw_server(talk) as server:
        story = tell_story(f"ws://{server}/", timeout_seconds=0.3)
    assert "end of its answer's head" in only(story, "diagnosis")["sentence"]


def test_a_reset_instead_of_an_answer_is_told() -> None:
    def talk(connection: socket.socket) -> None:
        read_request(connection)
        reset(connection)

    with raw_server(talk) as server:
        story = tell_story(f"ws://{server}/")
    assert problems(story) == ["http.none", "tcp.reset"]
    assert "reset the connection (RST)" in story[-4]["sentence"]
    assert only(story, "tcp.closed")["how"] == "reset"


# Frames

BROKEN_FRAMES = {
    "frame.masked": (b"\x81\x82\1\2\3\4" + bytes((ord("h") ^ 1, ord("i") ^ 2)), "§5.1"),
    "frame.reserved_bits": (b"\xa1\x02hi", "§5.2"),
    "frame.opcode": (b"\x83\x00", "§5.2"),
    "frame.fragmented_control": (b"\x09\x00", "§5.5"),
    "frame.long_control": (b"\x89\x7e\x00\x7e" + bytes(126), "§5.5"),
    "frame.length": (b"\x81\x7e\x00\x02hi", "§5.2"),
    "frame.continuation": (b"\x80\x00", "§5.4"),
    "frame.interleaved": (b"\x01\x01a\x81\x01b", "§5.4"),
    "message.utf8": (b"\x81\x02\xc3\x28", "§8.1"),
    "close.half_code": (b"\x88\x01\x03", "§5.5.1"),
    "close.code": (b"\x88\x02\x03\xed", "§7.4"),
    "close.reason": (b"\x88\x04\x03\xe8\xc3\x28", "§8.1"),
}


@pytest.mark.parametrize("problem", BROKEN_FRAMES)
def test_a_broken_frame_is_shown_and_diagnosed_and_the_connection_failed(
    problem: str, command: Command
) -> None:
    data, section = BROKEN_FRAMES[problem]
    with raw_server(sending(data)) as server:
        story = tell_story(f"ws://{server}/", timeout_seconds=1.0)
        code, out, err = command("trace", f"ws://{server}/", "--wait", "0.1", "--timeout", "1")
    assert problems(story) == [problem]
    sentence = only(story, "diagnosis")["sentence"]
    assert f"RFC 6455 {section}" in sentence or f", {section}" in sentence
    assert only(story, "diagnosis")["fatal"] is False
    frames = every(story, "frame")
    assert frames[0]["direction"] == "received"
    assert (frames[-1]["direction"], frames[-1]["name"]) == ("sent", "close")
    assert frames[-1]["close_code"] == (1007 if problem in ("message.utf8", "close.reason") else 1002)
    assert only(story, "closing.handshake")["clean"] is False
    assert (code, err) == (1, "")
    assert sentence in out


def test_the_compressed_bit_after_a_messages_first_frame_is_diagnosed() -> None:
    talk = sending(b"\x01\x01a\xc0\x01b", "Sec-WebSocket-Extensions: permessage-deflate")
    with raw_server(talk) as server:
        story = tell_story(f"ws://{server}/", deflate=True, timeout_seconds=1.0)
    assert problems(story) == ["frame.reserved_bits"]
    assert "RFC 7692 §6" in only(story, "diagnosis")["sentence"]


def test_what_cannot_be_inflated_is_diagnosed() -> None:
    talk = sending(b"\xc1\x02\xff\xff", "Sec-WebSocket-Extensions: permessage-deflate")
    with raw_server(talk) as server:
        story = tell_story(f"ws://{server}/", deflate=True, timeout_seconds=1.0)
    assert problems(story) == ["message.deflate"]
    assert "RFC 7692 §7.2" in only(story, "diagnosis")["sentence"]


def test_a_compressed_message_in_fragments_is_told_as_the_message_it_is() -> None:
    stream = zlib.compressobj(wbits=-15)
    data = (stream.compress(b"tea" * 100) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]
    frames = bytes((0x41, 3)) + data[:3] + bytes((0x80, len(data) - 3)) + data[3:]
    with raw_server(sending(frames, "Sec-WebSocket-Extensions: permessage-deflate")) as server:
        story = tell_story(f"ws://{server}/", deflate=True)
    message = only(story, "message")
    assert (message["frames"], message["compressed"], message["length"]) == (2, True, 300)
    assert message["payload"]["text"] == ("tea" * 100)[:256]
    assert problems(story) == []


def test_data_behind_a_close_frame_is_diagnosed() -> None:
    def talk(connection: socket.socket) -> None:
        upgrade(connection, then=b"\x88\x02\x03\xe8\x81\x01x")
        read_frame(connection)

    with raw_server(talk) as server:
        story = tell_story(f"ws://{server}/")
    assert problems(story) == ["frame.after_close"]


@pytest.mark.parametrize(
    ("data", "problem", "words"),
    [
        (b"\x81\x05he", "frame.cut", "2 of 5 bytes"),
        (b"\x81", "frame.cut", "inside a frame's header"),
        (b"\x01\x02he", "message.cut", "inside a fragmented message"),
    ],
)
def test_a_connection_that_ends_inside_something_is_told(data: bytes, problem: str, words: str) -> None:
    def talk(connection: socket.socket) -> None:
        upgrade(connection, then=data)
        connection.shutdown(socket.SHUT_WR)
        drain(connection)

    with raw_server(talk) as server:
        story = tell_story(f"ws://{server}/")
    assert problems(story) == [problem, "close.none"]
    assert words in every(story, "diagnosis")[0]["sentence"]


# The closing handshake and the end of TCP


def test_a_server_that_does_not_answer_a_close_frame_is_told() -> None:
    def talk(connection: socket.socket) -> None:
        upgrade(connection)
        drain(connection)

    with raw_server(talk) as server:
        story = tell_story(f"ws://{server}/", timeout_seconds=0.3)
    assert problems(story) == ["close.unanswered"]
    assert "within 0.3 s (RFC 6455 §5.5.1)" in only(story, "diagnosis")["sentence"]
    closing = only(story, "closing.handshake")
    assert (closing["first"], closing["sent_code"], closing["received_code"]) == ("client", 1000, None)
    first, second = every(story, "tcp.fin")
    assert (first["direction"], first["first"]) == ("sent", True)
    assert (second["direction"], second["first"]) == ("received", False)
    assert only(story, "tcp.closed")["time_wait"] == ["client"]


def test_a_server_that_hangs_up_instead_of_answering_a_close_frame_is_told() -> None:
    def talk(connection: socket.socket) -> None:
        upgrade(connection)
        read_frame(connection)

    with raw_server(talk) as server:
        story = tell_story(f"ws://{server}/")
    assert problems(story) == ["close.unanswered"]
    assert "ended the connection without answering" in only(story, "diagnosis")["sentence"]


def test_a_server_that_leaves_without_a_close_frame_is_told() -> None:
    with raw_server(upgrade) as server:
        story = tell_story(f"ws://{server}/", wait_seconds=5)
    assert problems(story) == ["close.none"]
    assert "1006" in only(story, "diagnosis")["sentence"]
    assert only(story, "closing.handshake")["first"] is None


def test_a_reset_in_the_middle_is_an_error(command: Command) -> None:
    def talk(connection: socket.socket) -> None:
        upgrade(connection)
        read_frame(connection)
        reset(connection)

    with raw_server(talk) as server:
        story = tell_story(f"ws://{server}/", messages=("hi",), wait_seconds=5)
        code, out, err = command("trace", f"ws://{server}/", "--send", "hi")
    assert problems(story) == ["close.none", "tcp.reset"]
    assert {step["severity"] for step in every(story, "diagnosis")} == {"error"}
    assert only(story, "tcp.reset")["direction"] == "received"
    assert only(story, "tcp.closed")["how"] == "reset"
    assert (code, err) == (1, "")
    assert "RST: the connection ends at once" in out
    assert "RFC 1122 §4.2.2.13" in out


def test_a_reset_after_the_closing_handshake_is_odd_and_no_error(command: Command) -> None:
    def talk(connection: socket.socket) -> None:
        upgrade(connection)
        answer_close(connection)
        time.sleep(0.05)
        reset(connection)

    with raw_server(talk) as server:
        story = tell_story(f"ws://{server}/")
        code, out, _ = command("trace", f"ws://{server}/", "--wait", "0")
    assert problems(story) == ["tcp.reset"]
    assert only(story, "diagnosis")["severity"] == "warning"
    assert code == 0
    assert " ODD " in out


def test_a_server_that_leaves_the_end_of_tcp_to_us_is_told() -> None:
    def talk(connection: socket.socket) -> None:
        upgrade(connection)
        answer_close(connection)
        drain(connection)

    with raw_server(talk) as server:
        story = tell_story(f"ws://{server}/", timeout_seconds=0.3)
    assert problems(story) == ["tcp.not_closed"]
    assert "RFC 6455 §7.1.1" in only(story, "diagnosis")["sentence"]
    ours, theirs = every(story, "tcp.fin")
    assert ours["states"][0] == "ESTABLISHED"
    # Over loopback their FIN may be there before we look.
    assert ours["states"][-1] in ("FIN_WAIT2", "CLOSED")
    assert (theirs["direction"], theirs["first"], theirs["states"]) == ("received", False, ["TIME_WAIT"])
    closed = only(story, "tcp.closed")
    assert (closed["how"], closed["first"], closed["time_wait"]) == ("fin", "client", ["client"])


def test_a_server_that_never_ends_tcp_is_left() -> None:
    def talk(connection: socket.socket) -> None:
        upgrade(connection)
        answer_close(connection)
        time.sleep(1.5)

    with raw_server(talk) as server:
        story = tell_story(f"ws://{server}/", timeout_seconds=0.2)
    assert problems(story) == ["tcp.not_closed", "tcp.half_open"]
    assert only(story, "tcp.closed")["how"] == "abandoned"


def test_a_server_that_reads_nothing_is_given_up() -> None:
    def talk(connection: socket.socket) -> None:
        upgrade(connection)
        time.sleep(1)

    with raw_server(talk) as server:
        story = tell_story(f"ws://{server}/", messages=("x" * 20_000_000,), timeout_seconds=0.3)
    assert problems(story)[0] == "tcp.stuck"


def test_what_a_server_sends_cannot_move_the_cursor(command: Command) -> None:
    text = b"\x1b[2J\r\nbell \x07"
    talk = sending(bytes((0x81, len(text))) + text, "X-Evil: \x1b[1A")
    with raw_server(talk) as server:
        code, out, _ = command("trace", f"ws://{server}/", "--wait", "0.1")
    assert code == 0
    assert "\x1b" not in out
    assert "\x07" not in out
    assert r"X-Evil: \u001b[1A" in out
    assert r'"\u001b[2J\r\nbell \u0007"' in out


def test_json_has_the_diagnosis_and_stderr_the_line(command: Command) -> None:
    with raw_server(OPENINGS["status.404"][0]) as server:
        code, out, err = command("trace", f"ws://{server}/", "--json")
    story = json.loads(out)
    assert code == 1
    assert only(story, "diagnosis")["sentence"] in err
    assert [step["step"] for step in story][-3:] == ["tcp.fin", "tcp.fin", "tcp.closed"]
