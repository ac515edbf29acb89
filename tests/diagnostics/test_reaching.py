"""Servers that cannot be reached."""

from __future__ import annotations

import socket

import pytest
import trio

from tests.cli.conftest import Command
from tests.diagnostics.broken import LINUX, only, problems, tell_story


def test_a_port_where_nobody_listens_is_one_line(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for name in ("trace", "connect"):
        code, _, err = command(name, f"ws://127.0.0.1:{port}/")
        assert code == 1
        assert err == (
            f"error: Nothing listens on 127.0.0.1:{port}: the SYN was answered with RST, connection refused "
            "(RFC 9293 §3.5.2).\n"
        )
    story = tell_story(f"ws://127.0.0.1:{port}/")
    assert [step["step"] for step in story] == ["name.resolved", "tcp.connecting", "tcp.failed", "diagnosis"]
    assert only(story, "tcp.failed")["error"] == "ECONNREFUSED"


def test_a_name_that_nobody_knows_is_one_line(command: Command) -> None:
    for name in ("trace", "connect"):
        code, out, err = command(name, "ws://nonexistent.invalid/")
        assert (code, out) == (1, "")
        assert err.startswith("error: There is no address for the name nonexistent.invalid: ")
        assert err.count("\n") == 1


def test_a_resolver_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(host: str, port: int, type: int) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    story = tell_story("ws://slow.example/", timeout_seconds=0.1)
    assert problems(story) == ["name.unknown"]
    assert "within 0.1 s" in only(story, "diagnosis")["sentence"]


def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        async def getaddrinfo(host: str, port: int, type: int) -> list[tuple[object, ...]]:
            return [(socket.AF_INET, type, 6, "", (address, port)) for address in ("127.0.0.9", "127.0.0.1")]

        monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
        story = tell_story(f"ws://two.example:{port}/", timeout_seconds=0.2)
    assert only(story, "name.resolved")["addresses"] == [f"127.0.0.9:{port}", f"127.0.0.1:{port}"]
    assert only(story, "tcp.failed")["remote"] == f"127.0.0.9:{port}"
    assert only(story, "tcp.connected")["remote"] == f"127.0.0.1:{port}"


@LINUX
def test_a_syn_that_nobody_answers_is_given_up_and_counted() -> None:
    # A listener whose queue is full drops further SYNs.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(address)
        story = tell_story(f"ws://127.0.0.1:{address[1]}/", timeout_seconds=0.5)
        for client in waiting:
            client.close()
    assert problems(story) == ["tcp.timeout"]
    assert only(story, "tcp.connecting")["state"] == "SYN_SENT"
    failed = only(story, "tcp.failed")
    assert (failed["error"], failed["syns"]) == ("timeout", 1)
