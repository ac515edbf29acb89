"""What is told of TLS, and of servers that do not speak it."""

from __future__ import annotations

import socket
import ssl
from datetime import datetime

import pytest
import trustme

from tests.cli.conftest import Command
from tests.diagnostics.broken import every, only, problems, raw_server
from tests.diagnostics.tracing.apps import echoing, trace_app
from wsframework.diagnostics.target import tls_context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def served_by(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    return context


async def test_tls_is_told_with_its_certificate(authority: trustme.CA) -> None:
    context = tls_context()
    authority.configure_trust(context)
    served = served_by(authority, "localhost", "127.0.0.1", "*.tea.example")
    story, well = await trace_app(echoing(), context=served, tls=context, messages=("hi",))
    assert well
    assert problems(story) == []
    tls = only(story, "tls.opened")
    assert tls["version"] == "TLSv1.3"
    assert tls["bits"] >= 128
    assert (tls["server_name"], tls["verified"]) == ("localhost", True)
    certificate = tls["certificate"]
    assert certificate["names"] == ["localhost", "127.0.0.1", "*.tea.example"]
    assert certificate["issuer"]
    assert datetime.fromisoformat(certificate["not_before"]) < datetime.fromisoformat(
        certificate["not_after"]
    )
    assert certificate["days_left"] > 0
    assert [step["name"] for step in every(story, "frame")] == ["text", "text", "close", "close"]
    assert [step["direction"] for step in every(story, "tls.closed")] == ["received", "sent"]


async def test_a_certificate_that_nobody_vouches_for_is_refused(authority: trustme.CA) -> None:
    story, well = await trace_app(
        echoing(), context=served_by(authority, "localhost"), tls=tls_context(), messages=("hi",)
    )
    assert not well
    (problem, *_) = every(story, "diagnosis")
    assert (problem["problem"], problem["fatal"]) == ("tls.certificate", True)
    assert "RFC 5280" in problem["sentence"]
    assert "--insecure" in problem["sentence"]
    assert not every(story, "http.request")


async def test_an_insecure_trace_shows_whom_it_has_trusted(authority: trustme.CA) -> None:
    story, well = await trace_app(
        echoing(), context=served_by(authority, "elsewhere.example"), tls=tls_context(insecure=True)
    )
    assert well
    tls = only(story, "tls.opened")
    assert (tls["verified"], tls["certificate"]["names"]) == (False, ["elsewhere.example"])


def test_a_port_without_tls_is_one_line_that_says_so(command: Command) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with raw_server(talk) as server:
        for name in ("trace", "connect"):
            code, _, err = command(name, f"wss://{server}/x")
            assert (code, err) == (
                1,
                f"error: The server does not speak TLS on this port; is it ws://{server}/x?\n",
            )


def test_a_tls_handshake_that_nobody_answers_is_given_up(command: Command) -> None:
    with raw_server(lambda connection: ignore(connection)) as server:
        for name in ("trace", "connect"):
            code, _, err = command(name, f"wss://{server}/", "--timeout", "0.3")
            assert (code, err) == (1, "error: The server sent no answer to the TLS handshake within 0.3 s.\n")


def test_a_tls_handshake_that_is_cut_short_is_told(command: Command) -> None:
    with raw_server(lambda connection: connection.recv(1)) as server:  # type: ignore[arg-type]
        for name in ("trace", "connect"):
            code, _, err = command(name, f"wss://{server}/")
            assert code == 1
            assert err.startswith("error: The TLS handshake failed")
            assert err.count("\n") == 1


def ignore(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass
