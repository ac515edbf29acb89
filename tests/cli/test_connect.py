"""The terminal client: from a pipe, for programs, and at a terminal."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.cli.here import run_here
from tests.cli.process import PATIENCE_SECONDS, ROOT, running
from tests.diagnostics.broken import (
    Talk,
    answer_close,
    drain,
    raw_server,
    read_frame,
    saying,
    upgrade,
    upgrading,
)

SERVER = """\
import trio
from wsframework import App, Close
app = App()

@app.websocket("/", subprotocols=["chat"])
@app.websocket("/")
async def echo(ws):
    async for message in ws:
        match message:
            case "bye":
                raise Close(1000, "well")
            case "go":
                raise Close(4001, "not you")
            case "crash":
                raise RuntimeError
            case "binary":
                await ws.send(bytes(range(40)))
            case "later":
                await trio.sleep(0.3)
                await ws.send("sorry")
            case "who":
                fields = ws.request.headers
                await ws.send(f"{fields.get('origin')} {fields.get('x-tea')}")
            case _:
                await ws.send(message)

app.run(port=0, on_listening=lambda server: print(server.urls[0], flush=True))
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running("-c", SERVER) as program:
        yield program.wait_for("ws://")


def connect(url: str, *options: str, typed: str = "") -> tuple[int, str, str]:
    code, out, err = run_here("connect", url, "--wait", "0.4", *options, typed=typed.encode())
    assert "Traceback" not in err, err
    return code, out, err


def connect_to(talk: Talk, *options: str, typed: str = "") -> tuple[int, str, str]:
    """Let it meet a server that does no more than this."""
    with raw_server(talk) as server:
        return connect(f"ws://{server}/", *options, typed=typed)


# From a pipe


def test_every_line_is_sent_and_every_reply_printed_as_it_is(url: str) -> None:
    typed = "hi\n\n/ping\ngrüß dich"
    assert connect(url, typed=typed) == (0, f"{typed}\n", "")
    # And in a process of its own.
    command = [sys.executable, "-m", "wsframework", "connect", url, "--wait", "0.4"]
    done = subprocess.run(
        command, input=typed.encode(), capture_output=True, timeout=PATIENCE_SECONDS, cwd=ROOT
    )
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{typed}\n", b"")


def test_late_replies_are_waited_for_and_quiet_ends_it(url: str) -> None:
    assert connect(url, typed="later\nlater\nlater\n") == (0, "sorry\n" * 3, "")


def test_nothing_to_say_is_closed_at_once_and_is_no_error(url: str) -> None:
    assert connect(url, "--wait", "0") == (0, "", "")


def test_binary_messages_are_shown_in_hexadecimal(url: str) -> None:
    assert connect(url, typed="binary\n")[1] == f"<40 bytes: {bytes(range(32)).hex(' ')} …>\n"


def test_a_normal_end_of_the_servers_is_silent_and_0(url: str) -> None:
    assert connect(url, "--wait", "20", typed="bye\n") == (0, "", "")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("go", "closed by the server, 4001 (the application's own): not you"),
        ("crash", "closed by the server, 1011 (internal error): internal error"),
    ],
)
def test_another_end_of_the_servers_is_a_line_and_3(url: str, line: str, words: str) -> None:
    assert connect(url, "--wait", "20", typed=f"hi\n{line}\n") == (3, "hi\n", f"{words}\n")


def test_a_server_that_leaves_without_a_close_frame_is_3(url: str) -> None:
    def talk(connection: socket.socket) -> None:
        upgrade(connection)
        read_frame(connection)

    assert connect_to(talk, "--wait", "20", typed="hi\n") == (
        3,
        "",
        "the server ended the connection without a Close frame (1006)\n",
    )


def test_origin_header_and_subprotocol_are_sent(url: str) -> None:
    _, port = url.rsplit(":", 1)
    options = ("--origin", f"http://127.0.0.1:{port}", "--header", "X-Tea: green", "--subprotocol", "chat")
    code, out, _ = connect(url, *options, "--json", typed="who\n")
    opened, _, received, _ = map(json.loads, out.splitlines())
    assert code == 0
    assert opened["subprotocol"] == "chat"
    assert received["text"] == f"http://127.0.0.1:{port} green"


def test_json_is_one_object_a_line(url: str) -> None:
    code, out, err = connect(url, "--json", typed="hi\nbinary\n")
    events = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert all(list(event)[:2] == ["time", "event"] for event in events)
    told = [{name: value for name, value in event.items() if name != "time"} for event in events]
    assert told[0] == {"event": "opened", "url": url, "subprotocol": None}
    assert told[-1] == {"event": "closed", "by": "client", "code": 1000, "reason": ""}
    assert [event for event in told if event["event"] == "sent"] == [
        {"event": "sent", "kind": "text", "text": "hi"},
        {"event": "sent", "kind": "text", "text": "binary"},
    ]
    assert [event for event in told if event["event"] == "received"] == [
        {"event": "received", "kind": "text", "text": "hi"},
        {"event": "received", "kind": "binary", "base64": base64.b64encode(bytes(range(40))).decode()},
    ]


def test_an_interrupt_closes_the_connection_properly() -> None:
    closes: list[tuple[int, bytes]] = []

    def talk(connection: socket.socket) -> None:
        upgrade(connection, then=b"\x81\x02hi")
        closes.append(read_frame(connection))
        connection.sendall(b"\x88\x02\x03\xe8")
        drain(connection)

    with raw_server(talk) as server:
        client = subprocess.Popen(
            [sys.executable, "-m", "wsframework", "connect", f"ws://{server}/"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )
        with client:
            assert client.stdout is not None
            assert client.stderr is not None
            assert client.stdout.readline() == b"hi\n"
            client.send_signal(signal.SIGINT)
            assert client.wait(PATIENCE_SECONDS) == 130
            assert client.stderr.read() == b""
    assert closes == [(0x88, b"\x03\xe8")]


def test_a_server_that_does_not_answer_a_close_frame_is_left_in_time() -> None:
    assert connect_to(upgrading(), "--wait", "0", "--timeout", "0.3") == (
        1,
        "",
        "error: The server did not answer our Close frame (RFC 6455 §5.5.1).\n",
    )


def test_pings_between_both_close_frames_are_no_error() -> None:
    def talk(connection: socket.socket) -> None:
        upgrade(connection)
        read_frame(connection)
        connection.sendall(b"\x89\x01x" * 10 + b"\x81\x02hi" + b"\x88\x02\x03\xe8")
        drain(connection)

    assert connect_to(talk, "--wait", "0") == (0, "", "")


# No connection: the sentences are those of a trace


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\nno tea", "nothing at this path (RFC 6455"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "plain HTTP, not a WebSocket"),
        (b"SSH-2.0-OpenSSH\r\n", "begins with 'SSH-2.0-OpenSSH'"),
        (
            b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            "but this key asks for",
        ),
        (
            b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            "Sec-WebSocket-Accept is missing",
        ),
    ],
    ids=["404", "200", "ssh", "accept", "no accept"],
)
def test_a_wrong_answer_is_one_line_and_1(answer: bytes, words: str) -> None:
    code, out, err = connect_to(saying(answer), typed="hi\n")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1


def test_a_subprotocol_that_was_not_offered_is_one_line_and_1() -> None:
    code, _, err = connect_to(upgrading("Sec-WebSocket-Protocol: superchat"))
    assert code == 1
    assert "the subprotocol 'superchat', which was not offered" in err


def test_a_server_that_says_nothing_is_left_in_time() -> None:
    assert connect_to(drain, "--timeout", "0.3") == (
        1,
        "",
        "error: The server sent no answer to the opening handshake within 0.3 s.\n",
    )


def test_a_server_that_leaves_without_an_answer_is_told() -> None:
    code, _, err = connect_to(saying(b"", end=True))
    assert code == 1
    assert "before it had answered the opening handshake" in err


# At a terminal


class Person:
    """Somebody at a terminal."""

    def __init__(self, url: str, *options: str) -> None:
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.environ.pop("NO_COLOR", None)
            os.execv(sys.executable, [sys.executable, "-m", "wsframework", "connect", url, *options])
        self._seen = ""

    def sees(self, words: str) -> str:
        """Wait until the words are on the screen, without colours; return what came up to there."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while words not in self._seen:
            left = deadline - time.monotonic()
            assert left > 0, self._seen
            if select.select([self._terminal], [], [], left)[0]:
                try:
                    data = os.read(self._terminal, 4096).decode()
                except OSError:
                    data = ""  # the other end is closed
                assert data, self._seen
                self._seen += re.sub(r"\x1b\[[0-9;]*m", "", data)
        before, _, self._seen = self._seen.partition(words)
        return before

    def types(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def types_at_the_prompt(self, text: str) -> None:
        """Type once the program reads keys one by one: before, they would be the terminal's own."""
        self.sees("> ")
        self.types(text)

    def leaves(self) -> int:
        """Wait for the program's end; return its exit code."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                os.close(self._terminal)
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline
            if select.select([self._terminal], [], [], 0.05)[0]:
                try:
                    self._seen += os.read(self._terminal, 4096).decode()
                except OSError:
                    time.sleep(0.01)


@pytest.fixture
def person(url: str) -> Person:
    person = Person(url)
    person.sees(f"connected to {url}; /help lists the commands")
    person.sees("> ")
    return person


def test_what_is_typed_is_sent_and_shown_with_time_and_direction(person: Person) -> None:
    person.types("hello\n")
    before = person.sees("→ hello")
    assert re.search(r"\d\d:\d\d:\d\d\.\d\d\d $", before)
    person.sees("← hello")
    person.types("binary\n")
    person.sees("← <40 bytes: 00 01")
    person.types_at_the_prompt("\x04")
    person.sees("closed by us, 1000")
    assert person.leaves() == 0


def test_ping_shows_how_long_it_took(person: Person) -> None:
    person.types("/ping\n")
    person.sees("pong after ")
    person.types("/close\n")
    assert person.leaves() == 0


def test_close_takes_a_code_and_a_reason(person: Person) -> None:
    person.types("/close 1005\n")
    person.sees("close code 1005 may not be sent")
    person.types("/close now\n")
    person.sees("a close code is a number, not 'now'")
    person.types("/close 4000 enough\n")
    person.sees("closed by us, 4000 (the application's own)")
    assert person.leaves() == 0


def test_help_lists_the_commands_and_a_slash_escapes_one(person: Person) -> None:
    person.types("/help\n")
    for command in ("/ping", "/close [CODE REASON]", "/help", "//…"):
        person.sees(command)
    person.types("/dance\n")
    person.sees("there is no command /dance")
    person.types("//ping\n")
    person.sees("← /ping")
    person.types("\x03")
    person.sees("closed by us")
    assert person.leaves() == 130


def test_lines_have_a_history(person: Person) -> None:
    person.types("first\n")
    person.sees("← first")
    person.types_at_the_prompt("\x1b[A\n")
    person.sees("→ first")
    person.sees("← first")
    person.types_at_the_prompt("\x04")
    assert person.leaves() == 0


def test_a_close_of_the_servers_ends_the_prompt_and_gives_the_terminal_back(person: Person) -> None:
    person.types("go\n")
    person.sees("closed by the server, 4001 (the application's own): not you")
    assert person.leaves() == 3


def test_what_a_server_sends_cannot_move_the_cursor() -> None:
    def talk(connection: socket.socket) -> None:
        upgrade(connection, then=b"\x81\x06\x1b[2J\r\n")
        answer_close(connection)

    with raw_server(talk) as server:
        person = Person(f"ws://{server}/")
        person.sees(r"← \u001b[2J\r\n")
        person.types_at_the_prompt("\x04")
        assert person.leaves() == 0
