"""Whatever a server does, both commands end in time, with a line, and show no control character."""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
import unicodedata
from collections.abc import Iterator

import pytest
import trustme

from tests.cli.conftest import Command
from tests.diagnostics.broken import Talk, drain, raw_server
from tests.diagnostics.hostile import ATTACKS, EVIL, FINE, dripping, noisy
from wsframework.cli.output import print_json
from wsframework.diagnostics.tracing import conversation

SECONDS = 60.0
"""Far more than the waits of one command together (`LIMITS`), on a busy machine."""

LIMITS = ("--timeout", "0.3", "--wait", "0.1")

LINE_CHARACTERS = 3200
"""A sentence of 500, each of whose characters may be an escape."""

COMMANDS = {
    "trace": ("trace",),
    "trace in JSON": ("trace", "--deflate", "--json"),
    "connect": ("connect",),
    "connect in JSON": ("connect", "--json"),
}

QUICK = ("trace in JSON", "connect")


@pytest.fixture(autouse=True)
def no_input(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with open(os.devnull) as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield


FRAMES = 1_000
"""Of how many frames a trace tells here at most: what it does with them takes longer than reading them."""


@pytest.fixture(autouse=True)
def fewer_frames(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.function is not test_a_trace_ends_whichever_number_of_frames_it_tells_of:
        monkeypatch.setattr(conversation, "_MAX_FRAMES", FRAMES)


def acts_on_a_terminal(text: str) -> list[str]:
    bad = {"Cc", "Cf", "Zl", "Zp", "Cs", "Cn"}
    return [c for c in text if c != "\n" and (unicodedata.category(c) in bad or c == "\u3164")]


def attack(command: Command, how: str, talk: Talk, *options: str, tls: ssl.SSLContext | None = None) -> int:
    """Let a command meet a server, check what holds for every server, and return the exit code."""
    name, *more = COMMANDS[how]
    secure = tls is not None or "--insecure" in options
    with raw_server(talk, tls=tls) as server:
        started = time.monotonic()
        code, out, err = command(name, f"{'wss' if secure else 'ws'}://{server}/", *LIMITS, *more, *options)
        took = time.monotonic() - started
    assert took < SECONDS
    assert "Traceback" not in out + err
    assert not acts_on_a_terminal(err)
    assert code is not None
    if code == 1 and name == "connect":
        assert err.count("\n") == 1
        assert err.startswith("error: ")
    if code == 1 and how == "trace":
        assert err or " WRONG " in out
    assert all(len(line) < LINE_CHARACTERS for line in err.splitlines())
    if how == "trace in JSON":
        json.loads(out)
    elif how == "connect in JSON":
        assert all(json.loads(line)["event"] for line in out.splitlines())
    if how != "connect":  # into a pipe, messages are printed as they are
        assert not acts_on_a_terminal(out)
    return code


COMBINATIONS = [
    # Half of them show what the other half does in another form; all of it takes minutes.
    pytest.param(how, name, marks=() if how in QUICK or "evil" in name else pytest.mark.attack)
    for how in COMMANDS
    for name in ATTACKS
]


@pytest.mark.parametrize(("how", "name"), COMBINATIONS)
def test_a_command_ends_in_time_with_a_line_and_without_control_characters(
    how: str, name: str, command: Command
) -> None:
    code = attack(command, how, ATTACKS[name])
    assert code in FINE.get(name, (1,)), code


def test_a_trace_ends_whichever_number_of_frames_it_tells_of(command: Command) -> None:
    assert attack(command, "trace in JSON", ATTACKS["messages without end"]) == 1


TLS_ATTACKS: dict[str, Talk] = {
    "silence": drain,
    "noise": noisy(bytes(range(256))),
    "plain HTTP": noisy(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "a record of noise": noisy(b"\x16\x03\x03\x10\x00" + bytes(4096)),
    "a record that is too long": noisy(b"\x16\x03\x03\xff\xff" + bytes(65535)),
    "empty records without end": noisy(b"\x16\x03\x03\x00\x00" * 512),
    "alerts without end": noisy(b"\x15\x03\x03\x00\x02\x01\x00" * 512),
    "a hello that drips": dripping(lambda connection: None, b"\x16\x03\x03\x10\x00\x02" + bytes(9999)),
}


@pytest.mark.parametrize("name", TLS_ATTACKS)
@pytest.mark.parametrize("how", QUICK)
def test_what_is_no_tls_is_one_line_and_1(how: str, name: str, command: Command) -> None:
    assert attack(command, how, TLS_ATTACKS[name], "--insecure") == 1


@pytest.fixture(scope="module")
def evil_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority = trustme.CA(organization_name=EVIL)
    authority.issue_cert("127.0.0.1", common_name=EVIL, organization_name=EVIL).configure_cert(context)
    return context


@pytest.mark.parametrize(
    "name",
    [
        "silence",
        "close at once",
        "reset at once",
        "header fields without end",
        "drip a head",
        "a body without end",
        "pings without end, deaf",
        "empty fragments without end",
        "messages without end",
        "data behind a Close",
        "a reason of evil",
    ],
)
@pytest.mark.parametrize("how", QUICK)
def test_tls_changes_nothing_of_it(
    how: str, name: str, command: Command, evil_certificate: ssl.SSLContext
) -> None:
    code = attack(command, how, ATTACKS[name], "--insecure", tls=evil_certificate)
    assert code in FINE.get(name, (1,)), code


@pytest.mark.parametrize("how", COMMANDS)
def test_a_certificate_of_evil_that_is_not_trusted_is_one_line(
    how: str, command: Command, evil_certificate: ssl.SSLContext
) -> None:
    assert attack(command, how, drain, tls=evil_certificate) == 1


def test_records_that_cannot_be_decrypted_are_one_line(
    command: Command, evil_certificate: ssl.SSLContext
) -> None:
    def talk(connection: socket.socket) -> None:
        secured = evil_certificate.wrap_socket(connection, server_side=True, suppress_ragged_eofs=True)
        plain = socket.socket(fileno=secured.detach())
        with plain:
            plain.sendall(b"\x17\x03\x03\x00\x40" + bytes(64))
            drain(plain)

    for how in COMMANDS:
        assert attack(command, how, talk, "--insecure") == 1


def test_json_is_plain_ascii_on_an_output_that_is_not_utf8(
    monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    with open(os.path.join(tmp_path, "out"), "w", encoding="ascii") as out:
        monkeypatch.setattr("sys.stdout", out)
        print_json({"grüß": "\x9b\u202e"})
    with open(out.name, "rb") as written:
        assert written.read() == rb'{"gr\u00fc\u00df": "\u009b\u202e"}' + b"\n"
