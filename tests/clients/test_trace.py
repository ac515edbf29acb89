"""`wsframework trace` and `connect` against a server that is not ours: the npm package ws."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.process import ROOT, Program
from tests.diagnostics.broken import every, only, problems, tell_story

pytestmark = pytest.mark.node

HERE = Path(__file__).parent


@pytest.fixture
def url(node: str) -> Iterator[str]:
    program = Program([node, str(HERE / "echo_server.mjs")], ROOT)
    try:
        yield program.wait_for("ws://")
    finally:
        program.process.kill()
        program.wait()


def test_a_node_server_is_told_from_syn_to_fin(url: str) -> None:
    story = tell_story(url, messages=("Hello!",), subprotocols=("superchat", "chat"), wait_seconds=0.3)
    assert problems(story) == []
    assert only(story, "http.response")["agreement"]["subprotocol"] == "chat"
    frames = [
        (step["direction"], step["name"], step["masked"], step["payload"]["text"])
        for step in every(story, "frame")
        if step["name"] == "text"
    ]
    assert frames == [("sent", "text", True, "Hello!"), ("received", "text", False, "Hello!")]
    closing = only(story, "closing.handshake")
    assert (closing["first"], closing["received_code"], closing["clean"]) == ("client", 1000, True)
    assert only(story, "tcp.closed")["how"] == "fin"


def test_a_node_servers_compression_is_understood(url: str) -> None:
    story = tell_story(url, messages=("tea " * 100,) * 2, deflate=True, wait_seconds=0.3)
    assert problems(story) == []
    assert only(story, "http.response")["agreement"]["extensions"].startswith("permessage-deflate")
    received = [step for step in every(story, "message") if step["direction"] == "received"]
    assert [step["length"] for step in received] == [400, 400]


def test_connect_talks_to_a_node_server(url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wsframework", "connect", url, "--wait", "0.3"],
        input="one\ntwo\n",
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\ntwo\n", "")
