from __future__ import annotations

import re
import shlex
import subprocess
import sys

from tests.cli.process import running, serving
from tests.docs.conftest import Follow
from tests.docs.following import exercises
from tests.docs.snippets import DOCS, commands, outputs, snippets
from wsframework.wire import Opcode, accept_key, is_upgrade, read_upgrade

PAGE = DOCS / "life.md"


@exercises("life.md", "accept.py", "mask.py")
def test_the_two_sums_of_the_protocol_give_what_the_page_says(follow: Follow) -> None:
    folder = follow("life.md")
    for name in ("accept.py", "mask.py"):
        program = [sys.executable, str(folder.path / name)]
        done = subprocess.run(program, capture_output=True, text=True, check=True)
        assert done.stdout in outputs(PAGE)


def test_request_and_answer_on_the_page_fit_each_other() -> None:
    request, answer = (block.text for block in snippets(PAGE) if block.language == "http")
    first, *lines = request.splitlines()
    fields = tuple((name.lower(), value) for name, _, value in (line.partition(": ") for line in lines))
    assert is_upgrade(fields)
    upgrade = read_upgrade("GET", "1.1", fields)
    assert first.split()[0] == "GET"
    assert f"Sec-WebSocket-Accept: {accept_key(upgrade.key)}" in answer
    assert f"Sec-WebSocket-Protocol: {upgrade.subprotocols[0]}" in answer


def test_the_table_of_opcodes_is_true() -> None:
    rows = re.findall(r"^\| (\d+) \| (\w+) \|", PAGE.read_text(), re.MULTILINE)
    assert {int(number): name.upper() for number, name in rows} == {int(code): code.name for code in Opcode}


@exercises(
    "life.md",
    "wsframework run hello:app",
    "wsframework trace ws://127.0.0.1:8000/rooms/tea --send 'milk or sugar?'",
)
def test_a_reader_can_trace_the_first_server(follow: Follow) -> None:
    folder = follow("first-steps.md")
    command = next(line for line in commands(PAGE) if "trace" in line)
    with serving("hello:app", cwd=folder.path) as server:
        arguments = shlex.split(command.replace("ws://127.0.0.1:8000", server.url))
        with running("-m", *arguments, "--wait", "0.3", cwd=folder.path) as program:
            assert program.wait() == 0
    told = "\n".join(program.lines)
    steps = [
        "SYN to",
        "SYN+ACK",
        "GET /rooms/tea",
        "101 Switching",
        '"milk or sugar?"',
        '"tea: milk or sugar?"',
    ]
    places = [told.index(step) for step in [*steps, "closed cleanly", "FIN: "]]
    assert places == sorted(places)
