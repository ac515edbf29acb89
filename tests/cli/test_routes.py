from __future__ import annotations

import json
import sys

import pytest

from tests.cli.conftest import Command, Write
from tests.cli.test_output import Terminal
from wsframework.cli import main

SHOP = """\
from wsframework import App, Response
app = App()

@app.websocket("/rooms/{room}", subprotocols=["chat", "superchat"])
async def talk(ws, room): ...

@app.websocket("/rooms/{room}")
async def listen(ws, room): ...

class Pages:
    async def health(self, request): return "ok"

app.http("/health", methods=["GET", "POST"])(Pages().health)
"""


def test_what_is_mounted_is_listed(write: Write, command: Command) -> None:
    write("mounted.py", SHOP + "async def shop(scope, receive, send): ...\napp.mount('/shop', shop)\n")
    code, out, _ = command("routes", "mounted:app")
    assert code == 0
    assert out.splitlines()[-1].split() == ["/shop", "an", "application"]
    code, out, _ = command("routes", "mounted:app", "--json")
    assert json.loads(out)[-1] | {"path": "/shop", "kind": "mount"} == json.loads(out)[-1]


def test_the_table_has_path_answers_handler_and_place(write: Write, command: Command) -> None:
    write("listed.py", SHOP)
    code, out, err = command("routes", "listed:app")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "PATH           ANSWERS          HANDLER       DEFINED",
        "/rooms/{room}  chat, superchat  talk          listed.py:4",
        "/rooms/{room}  no subprotocol   listen        listed.py:7",
        "/health        GET POST HEAD    Pages.health  listed.py:11",
    ]


def test_json_has_the_same_for_programs(write: Write, command: Command) -> None:
    write("listed_json.py", SHOP)
    code, out, _ = command("routes", "listed_json:app", "--json")
    assert code == 0
    first, second, third = json.loads(out)
    assert first == {
        "path": "/rooms/{room}",
        "kind": "websocket",
        "subprotocols": ["chat", "superchat"],
        "methods": [],
        "handler": "talk",
        "defined": "listed_json.py:4",
    }
    assert second["subprotocols"] == []
    assert (third["kind"], third["methods"], third["subprotocols"]) == ("http", ["GET", "POST", "HEAD"], [])


def test_an_app_without_routes_has_an_empty_table(write: Write, command: Command) -> None:
    write("empty.py", "from wsframework import App\napp = App()\n")
    assert command("routes", "empty:app") == (0, "PATH  ANSWERS  HANDLER  DEFINED\n", "")
    assert command("routes", "empty:app", "--json") == (0, "[]\n", "")


def test_the_table_has_colour_on_a_terminal(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("listed_colour.py", SHOP)
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", terminal)
    with pytest.raises(SystemExit):
        main(["routes", "listed_colour:app"])
    assert "\x1b[36m/rooms/{room}" in terminal.getvalue()


def test_a_wrong_import_string_is_one_line_and_exit_code_2(command: Command) -> None:
    code, out, err = command("routes", "nowhere:app")
    assert (code, out) == (2, "")
    assert err.startswith("error: there is no module 'nowhere'")
    assert err.count("\n") == 1
