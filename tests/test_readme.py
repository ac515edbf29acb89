"""The README's first five minutes: every snippet and every command in it is run here."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected

from tests.cli.process import ROOT, running, serving
from tests.docs.snippets import commands, files, outputs, snippets
from tests.examples.conftest import connect
from wsframework.hosts.trio_websocket import serve_websocket

PAGE = ROOT / "README.md"
README = PAGE.read_text()
PROGRAMS = files(PAGE)
COMMANDS = commands(PAGE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with all programs in it, as a reader who follows along has it."""
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in PROGRAMS:
        sys.modules.pop(name.removesuffix(".py"), None)


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


async def serve(nursery: trio.Nursery, module: ModuleType) -> str:
    server = await nursery.start(module.app.serve, "127.0.0.1", 0)
    return str(server.urls[0])


def test_every_snippet_is_a_program_with_a_name_and_has_a_test() -> None:
    here = Path(__file__).read_text()
    blocks = snippets(PAGE)
    assert len(PROGRAMS) == sum(block.language in ("python", "ini") for block in blocks)
    for name in PROGRAMS:
        assert re.fullmatch(r"\w+\.(py|ini)", name)
        assert f'"{name.removesuffix(".py")}' in here or f'"{name}' in here
    assert {block.language for block in blocks} == {"python", "ini", "sh", "text"}


def test_every_command_is_one_that_a_test_runs() -> None:
    makes = {target for line in COMMANDS if line.startswith("make") for target in shlex.split(line, True)[1:]}
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert makes <= set(re.findall(r"^  make (\S+)", told, re.MULTILINE))
    assert [line for line in COMMANDS if not line.startswith("make")] == [
        "pip install '.[cli,speed]'",
        "wsframework run hello:app",
        "wsframework trace ws://127.0.0.1:8000/rooms/tea --send 'milk or sugar?'",
        "wsframework connect ws://127.0.0.1:8000/rooms/tea",
        "wsframework routes sums:app",
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == "wsframework"
    assert {"cli", "speed"} <= set(project["optional-dependencies"])


def test_the_first_server_is_ten_lines_long() -> None:
    assert len([line for line in PROGRAMS["hello.py"].splitlines() if line]) <= 10


def test_the_client_talks_to_the_first_server_that_the_command_starts(folder: Path) -> None:
    with serving("hello:app", cwd=folder) as server:
        client = folder / "client.py"
        client.write_text(client.read_text().replace("ws://127.0.0.1:8000", server.url))
        with running("client.py", cwd=folder) as program:
            assert program.wait() == 0
        (comment,) = re.findall(r"print\(.*\)  # (.*)", PROGRAMS["client.py"])
        assert program.lines == [comment]
        assert server.stop() == 0


def test_the_first_server_can_be_traced_and_talked_to(folder: Path) -> None:
    trace, talk = (
        shlex.split(line)[1:]
        for line in COMMANDS
        if line.startswith(("wsframework trace", "wsframework connect"))
    )
    with serving("hello:app", cwd=folder) as server:

        def here(arguments: list[str]) -> list[str]:
            return [word.replace("ws://127.0.0.1:8000", server.url) for word in arguments]

        with running("-m", "wsframework", *here(trace), "--wait", "0.2", cwd=folder) as program:
            assert program.wait() == 0
        told = "\n".join(program.lines)
        assert "tea: milk or sugar?" in told
        assert "SYN" in told
        assert "FIN" in told
        spoken = subprocess.run(
            [sys.executable, "-m", "wsframework", *here(talk)],
            input="milk\n",
            capture_output=True,
            text=True,
            check=True,
        )
        assert "tea: milk" in spoken.stdout
        assert server.stop() == 0


def test_the_routes_command_prints_what_the_readme_shows(folder: Path) -> None:
    (shown,) = [block for block in outputs(PAGE) if block.startswith("PATH ")]
    with running("-m", "wsframework", "routes", "sums:app", cwd=folder) as program:
        assert program.wait() == 0
    assert program.lines == shown.splitlines()


async def test_subprotocols_choose_between_two_handlers(folder: Path, nursery: trio.Nursery) -> None:
    url = await serve(nursery, load("sums"))
    for offered, sent, answer in [
        (["json", "text"], "[1, 2]", '{"sum": 13}'),
        (["csv", "json"], "1 2", "13"),
    ]:
        async with connect(f"{url}/sum/10", subprotocols=offered) as ws:
            assert ws.subprotocol == offered[0]
            await ws.send_message(sent)
            assert await ws.get_message() == answer


async def refused(url: str, headers: dict[str, str] | None = None) -> int:
    with pytest.RaisesGroup(ConnectionRejected, flatten_subgroups=True) as caught:
        async with connect(url, headers=headers):
            pass
    (answer,) = caught.value.exceptions
    assert isinstance(answer, ConnectionRejected)
    return answer.status_code


async def test_guards_and_origins_refuse_and_let_in(folder: Path, nursery: trio.Nursery) -> None:
    url = await serve(nursery, load("members"))
    assert await refused(f"{url}/club") == 401
    token = {"Authorization": "Bearer token-of-ada"}
    assert await refused(f"{url}/club", {**token, "Origin": "https://evil.example"}) == 403
    async with connect(f"{url}/club", headers={**token, "Origin": "https://club.example"}) as ws:
        assert await ws.get_message() == "Good evening, Ada."


async def test_the_stopwatch_pushes_while_it_receives(folder: Path, nursery: trio.Nursery) -> None:
    url = await serve(nursery, load("stopwatch"))
    async with connect(f"{url}/stopwatch") as ws:
        await ws.send_message("one")
        messages = {await ws.get_message() for _ in range(4)}
    assert messages == {"0.0", "lap: one", "0.1", "0.2"}


async def test_a_room_tells_all_its_members_but_the_one_who_spoke(
    folder: Path, nursery: trio.Nursery
) -> None:
    module = load("lobby")
    url = await serve(nursery, module)
    async with connect(f"{url}/lobby") as ada, connect(f"{url}/lobby") as ben, connect(f"{url}/lobby") as cyd:
        with trio.fail_after(30):
            while module.lobby.statistics().members < 3:  # noqa: ASYNC110
                await trio.sleep(0.01)
        await ada.send_message("hello")
        assert [await ben.get_message(), await cyd.get_message()] == ["hello", "hello"]
        await ben.send_message("hi ada")
        assert await ada.get_message() == "hi ada"


async def test_a_slow_client_misses_prices_and_gets_none_that_is_torn(
    folder: Path, nursery: trio.Nursery
) -> None:
    url = await serve(nursery, load("prices"))
    async with connect(f"{url}/prices") as ws:
        await trio.sleep(1.5)  # not reading: the sockets' buffers fill up
        messages = [str(await ws.get_message()) for _ in range(20)]
    prices = [int(message.partition(" ")[0]) for message in messages]
    assert all(message.endswith(" " + "." * 1_000_000) for message in messages)
    assert prices == sorted(set(prices))
    assert prices[-1] > len(prices)


async def closed_with(url: str, *messages: str) -> tuple[int, str]:
    async with connect(url) as ws:
        for message in messages:
            await ws.send_message(message)
        with pytest.raises(ConnectionClosed) as closed, trio.fail_after(30):
            await ws.get_message()
    assert closed.value.reason is not None
    return int(closed.value.reason.code), closed.value.reason.reason or ""


async def test_the_table_of_close_codes_is_true(folder: Path, nursery: trio.Nursery) -> None:
    module = load("codes")

    @module.app.websocket("/returns")  # type: ignore[untyped-decorator]
    async def returns(ws: object) -> None: ...

    @module.app.websocket("/crashes")  # type: ignore[untyped-decorator]
    async def crashes(ws: object) -> None:
        raise ValueError

    server = await nursery.start(module.app.serve, "127.0.0.1", 0)
    (url,) = server.urls
    assert await closed_with(f"{url}/returns") == (1000, "")
    assert await closed_with(f"{url}/codes", "early", "late") == (4001, "too late")
    assert (await closed_with(f"{url}/crashes"))[0] == 1011
    async with connect(f"{url}/codes"):
        pass
    with trio.fail_after(30):
        while not module.endings:  # noqa: ASYNC110
            await trio.sleep(0.01)
    (comment,) = re.findall(r"str\(error\)\)  # (.*)", PROGRAMS["codes.py"])
    assert module.endings == [comment]
    async with connect(f"{url}/codes") as ws:
        server.stop()
        with pytest.raises(ConnectionClosed) as closed:
            await ws.get_message()
    assert closed.value.reason is not None
    assert closed.value.reason.code == 1001


def test_the_test_passes_as_written_in_a_fresh_folder_and_can_fail(tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    for name in ("hello.py", "test_hello.py", "pytest.ini"):
        (fresh / name).write_text(PROGRAMS[name])

    def run() -> tuple[int, str]:
        # As `pytest` alone does: what it finds, with the configuration that the page shows.
        with running("-m", "pytest", cwd=fresh) as program:
            return program.wait(), "\n".join(program.lines)

    code, said = run()
    assert code == 0, said
    assert "1 passed" in said
    hello = fresh / "hello.py"
    hello.write_text(hello.read_text().replace('f"{room}: ', 'f"{room}!! '))  # longer: see its byte code
    code, said = run()
    assert code == 1, said


async def test_trio_websocket_can_host_the_app(folder: Path, nursery: trio.Nursery) -> None:
    module = load("moving")
    assert (module.serve_websocket, port_of(PROGRAMS["moving.py"])) == (serve_websocket, 8000)
    server = await nursery.start(module.serve_websocket, module.app, "127.0.0.1", 0, None)
    async with connect(f"ws://127.0.0.1:{server.port}/rooms/tea") as ws:
        await ws.send_message("hello")
        assert await ws.get_message() == "tea: hello"
    nursery.cancel_scope.cancel()


def port_of(program: str) -> int:
    (port,) = re.findall(r'"127\.0\.0\.1", (\d+)', program)
    return int(port)


def test_it_is_short_before_its_reference_part() -> None:
    before, mark, after = README.partition("## Reference by example")
    assert mark
    assert after
    assert len(before.split()) <= 700


def test_links_work_wherever_it_is_shown() -> None:
    """An index page shows it without the files beside it."""
    assert set(re.findall(r"\]\((?!https?://|#)([^)]+)\)", README)) == set()
    assert "<img" not in README
    for path in re.findall(r"`((?:docs|examples|tests)/[\w./-]*|[A-Z]+\.md)`", README):
        assert (ROOT / path).exists(), path


def test_links_to_anchors_lead_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors
