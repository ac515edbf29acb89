"""What `wsframework trace` prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.cli.conftest import Command
from tests.cli.process import running
from tests.cli.test_output import Terminal
from wsframework.cli import main
from wsframework.diagnostics.steps import Step
from wsframework.diagnostics.tracing.tracer import Plan


@contextmanager
def echo_server() -> Iterator[str]:
    code = """\
from wsframework import App
app = App()
@app.websocket("/", subprotocols=["chat"])
@app.websocket("/")
async def echo(ws):
    async for message in ws:
        await ws.send(message)
app.run(port=0, on_listening=lambda server: print(server.urls[0], flush=True))
"""
    with running("-c", code) as program:
        yield program.wait_for("ws://")


def test_the_story_reads_well_and_plain_when_piped(command: Command) -> None:
    with echo_server() as url:
        code, out, err = command("trace", url, "--send", "Hello!", "--subprotocol", "chat", "--wait", "0.1")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    lines = [line.split(" ms  ")[-1].strip() for line in out.splitlines()]
    text = "\n".join(lines)
    for words in (
        "NAME    127.0.0.1 is an address, so there is no name to resolve",
        "TCP   → SYN to 127.0.0.1:",
        "TCP   ← SYN+ACK from 127.0.0.1:",
        "→ ACK, 127.0.0.1:",
        "HTTP  → GET / HTTP/1.1",
        "HTTP  ← HTTP/1.1 101 Switching Protocols",
        "which is what came",
        "subprotocol: offered chat; the server took chat",
        "extensions: none offered, none used",
        "FRAME → Text (FIN) 6 bytes, masked with ",
        'FRAME ← Text (FIN) 6 bytes, not masked: "Hello!"',
        "1000 (normal closure: done)",
        "CLOSE   we sent Close 1000 first, the server answered 1000: closed cleanly",
        "TCP   ← FIN: the server ends TCP first",
        "TCP   → FIN: we end it too",
        "TCP     both sides have sent FIN",
    ):
        assert words in text, words


def test_json_is_one_list_of_steps_whose_names_stay(command: Command) -> None:
    with echo_server() as url:
        code, out, err = command("trace", url, "--json", "--wait", "0")
    assert (code, err) == (0, "")
    story = json.loads(out)
    assert all(list(step)[:2] == ["step", "at"] for step in story)
    assert [step["step"] for step in story][-1] == "tcp.closed"


def test_the_story_has_colour_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", terminal)
    with echo_server() as url, pytest.raises(SystemExit) as ended:
        main(["trace", url, "--wait", "0"])
    assert ended.value.code == 0
    assert "\x1b[36mTCP" in terminal.getvalue()


def test_an_interrupt_ends_the_story_with_130(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    async def interrupted(plan: Plan, tell: Callable[[Step], None]) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("wsframework.cli.trace.run_trace", interrupted)
    assert command("trace", "ws://127.0.0.1:1/") == (130, "", "")
    assert command("trace", "ws://127.0.0.1:1/", "--json") == (130, "[]\n", "")
