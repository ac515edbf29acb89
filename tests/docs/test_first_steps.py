from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib

import pytest
import trio

from tests.cli.process import running, serving
from tests.clients.conftest import HERE as CLIENTS
from tests.clients.conftest import node
from tests.docs.conftest import Follow
from tests.docs.following import exercises
from tests.docs.snippets import DOCS, ROOT, commands, files, outputs, snippets
from tests.examples.conftest import connect
from tests.waiting import until

__all__ = ["node"]

PAGE = DOCS / "first-steps.md"
PIPE_SAYS, CLIENT_SAYS, ROUTES = outputs(PAGE)


@exercises("first-steps.md", "hello.py", "client.py", "wsframework run hello:app", "python client.py")
def test_the_client_talks_to_the_server_that_the_command_starts(follow: Follow) -> None:
    folder = follow("first-steps.md")
    with serving("hello:app", cwd=folder.path) as server:
        client = folder.path / "client.py"
        client.write_text(client.read_text().replace("ws://127.0.0.1:8000", server.url))
        with running("client.py", cwd=folder.path) as program:
            assert program.wait() == 0
        assert program.lines == CLIENT_SAYS.splitlines()
        assert server.stop() == 0


@exercises("first-steps.md", "echo 'milk or sugar?' | wsframework connect ws://127.0.0.1:8000/rooms/tea")
def test_a_line_from_a_pipe_is_answered(follow: Follow) -> None:
    folder = follow("first-steps.md")
    (command,) = (line for line in commands(PAGE) if line.startswith("echo"))
    with serving("hello:app", cwd=folder.path) as server:
        command = command.replace("ws://127.0.0.1:8000", server.url)
        command = command.replace("wsframework", f"{shlex.quote(sys.executable)} -m wsframework")
        done = subprocess.run(
            f"{command} --wait 0.5", shell=True, capture_output=True, text=True, timeout=30, check=True
        )
    assert done.stdout == PIPE_SAYS


def test_the_command_listens_where_the_page_says() -> None:
    told = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "make docs" in told
    with running("-m", "wsframework", "run", "--help") as program:
        assert program.wait() == 0
    assert "127.0.0.1" in "\n".join(program.lines)
    assert "8000" in "\n".join(program.lines)
    assert "ws://127.0.0.1:8000" in PAGE.read_text()


@exercises("first-steps.md", "wsframework routes hello:app")
def test_the_routes_are_those_of_the_page(follow: Follow) -> None:
    folder = follow("first-steps.md")
    with running("-m", "wsframework", "routes", "hello:app", cwd=folder.path) as program:
        assert program.wait() == 0
    assert program.lines == ROUTES.splitlines()


@exercises("first-steps.md", "both.py")
async def test_server_and_client_in_one_program(follow: Follow, capsys: pytest.CaptureFixture[str]) -> None:
    module = follow("first-steps.md").load("both.py")
    with trio.fail_after(10):
        await module.main()
    assert capsys.readouterr().out == "tea: hello\n"


@exercises("first-steps.md", "talk.py")
async def test_a_message_reaches_everyone_in_the_room(follow: Follow, nursery: trio.Nursery) -> None:
    folder = follow("first-steps.md")
    url = await folder.serve(nursery, "talk.py")
    rooms = folder.load("talk.py").rooms
    async with connect(f"{url}/rooms/tea") as ada, connect(f"{url}/rooms/tea") as ben:
        await until(lambda: "tea" in rooms and rooms["tea"].statistics().members == 2)
        await ada.send_message("hello")
        with trio.fail_after(10):
            assert [await ada.get_message(), await ben.get_message()] == ["hello", "hello"]


@exercises(
    "first-steps.md",
    "names.py",
    "wsframework run names:app",
    "wsframework connect 'ws://127.0.0.1:8000/rooms/tea?name=Ada'",
)
def test_the_name_is_in_the_messages_and_has_to_be_given(follow: Follow) -> None:
    folder = follow("first-steps.md")
    (command,) = (line for line in commands(PAGE) if "name=Ada" in line)
    with serving("names:app", cwd=folder.path) as server:

        def said(address: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "wsframework", "connect", address, "--wait", "0.5"],
                input="hello\n",
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )

        address = shlex.split(command)[-1].replace("ws://127.0.0.1:8000", server.url)
        assert said(address).stdout == "Ada joined\nAda: hello\n"
        refused = said(address.partition("?")[0])
    assert refused.returncode != 0
    assert "400" in refused.stderr


@exercises("first-steps.md", "test_names.py", "pytest.ini")
def test_the_test_passes_and_can_fail(follow: Follow) -> None:
    folder = follow("first-steps.md")

    def run() -> int:
        with running("-m", "pytest", "-q", cwd=folder.path) as program:
            return program.wait()

    assert run() == 0
    names = folder.path / "names.py"
    names.write_text(names.read_text().replace('f"{name}: ', 'f"{name}!! '))  # longer: see its byte code
    assert run() == 1


@exercises("first-steps.md", "pip install '.[cli,speed]'")
@exercises("index.md", "pip install '.[cli,speed]'", "wsframework run hello:app", "hello.py")
def test_the_extras_are_there_and_the_first_page_shows_the_same_program() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for page in (PAGE, DOCS / "index.md"):
        (install,) = (line for line in commands(page) if line.startswith("pip"))
        found = re.fullmatch(r"pip install '\.\[([\w,]+)\]'", install)
        assert found is not None
        assert set(found[1].split(",")) <= set(project["optional-dependencies"])
    assert files(DOCS / "index.md")["hello.py"] == files(PAGE)["hello.py"]


@pytest.mark.node
def test_the_two_lines_for_the_browser_work(node: str, follow: Follow) -> None:
    (script,) = (snippet.text for snippet in snippets(PAGE) if snippet.language == "js")
    folder = follow("first-steps.md")
    with serving("hello:app", cwd=folder.path) as server:
        script = script.replace("ws://127.0.0.1:8000", server.url)
        program = f'globalThis.WebSocket = require("ws");{script}ws.onopen = () => ws.send("one");'
        program += "const log = console.log; console.log = (text) => { log(text); ws.close(); };"
        done = subprocess.run(
            [node, "-e", program], cwd=CLIENTS, capture_output=True, text=True, timeout=30, check=True
        )
    assert done.stdout == "tea: one\n"
