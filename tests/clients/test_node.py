"""The npm package ws talks to the first chat, each side a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.process import ROOT, Program, serving

pytestmark = pytest.mark.node

HERE = Path(__file__).parent

SERVER = [
    "[SERVER] connection()",
    "[SERVER] Received: Hello!",
    "[SERVER] Received: Hello, I'm Mr No.1!",
    "[SERVER] Received: Hello, I'm Mr No.2!",
    "[SERVER] Received: Hello, I'm Mr No.3!",
    "[SERVER] Received: Goodbye!",
    "[SERVER] error: connection closed: the peer sent Close 1000, we answered 1000",
]
CLIENT = ["[CLIENT] open()", *["[CLIENT] Received: What's your name?"] * 4]


def chat(node: str, url: str) -> Program:
    return Program([node, str(HERE / "chat_client.mjs"), f"{url}/ws/chat"], ROOT)


@pytest.mark.slow
def test_a_node_client_plays_the_chat_and_the_server_serves_on(node: str) -> None:
    with serving("examples.chat_server:app", "--log-level", "warning") as server:
        url = server.url
        client = chat(node, url)
        assert client.wait() == 0
        assert client.lines == CLIENT
        assert json.loads(client.errors[0]) == {"subprotocol": "chat", "code": 1000}
        server.wait_for("[SERVER] error:")
        assert [line for line in server.lines if line.startswith("[")] == SERVER
        assert server.errors == []

        again = chat(node, url)
        again.wait_for("What's your name?")
        again.process.kill()
        again.wait()
        # That one vanished without a Close frame: its question finds the connection lost.
        assert again.lines[:2] == CLIENT[:2]
        assert server.stop() == 0
    assert server.errors == []


def test_the_one_liner_of_make_run_works(node: str) -> None:
    told = subprocess.run(
        ["make", "--dry-run", "run"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    # The recipe prints it with echo; the shell that make would use takes the quotes off again.
    (recipe,) = re.findall(r'^(?:@?echo "  node -e [^\n]*\\\n[^\n]*)$', told, re.MULTILINE)
    shown = subprocess.run(["sh", "-c", recipe], capture_output=True, text=True, check=True).stdout
    with serving("examples.chat_server:app") as server:
        line = shown.strip().replace("ws://127.0.0.1:3000", server.url)
        # Node 22 has WebSocket by itself, Node 20 on request; a shell runs it as a person's would.
        line = line.replace("node -e", f"exec '{node}' --experimental-websocket -e")
        client = Program(["sh", "-c", line], ROOT)
        assert client.wait_for("name") == "What's your name?"
        client.process.kill()
        client.wait()
        assert server.stop() == 0
