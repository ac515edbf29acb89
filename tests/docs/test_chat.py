from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.process import running
from tests.docs.conftest import Follow
from tests.docs.following import exercises
from tests.docs.snippets import DOCS, commands, files
from tests.engines.redis.conftest import redis as redis  # the fixture
from tests.engines.redis.redis_server import RedisServer
from wsframework.chat import history, house, names, presence, protocol, rate, superchat
from wsframework.testing import Client, serve

PAGE = "chat.md"
TEXT = (DOCS / PAGE).read_text()


async def ask(client: Client, **members: Any) -> dict[str, Any]:
    await client.send(json.dumps({"id": 1, **members}))
    while True:
        value: dict[str, Any] = json.loads(await client.receive())
        if "re" in value:
            return value


@exercises(PAGE, "wsframework chat")
def test_the_command_prints_an_address(tmp_path: Path) -> None:
    with running("-m", "wsframework", "chat", "--port", "0", cwd=tmp_path) as server:
        server.wait_for("http://127.0.0.1:")
        assert server.stop() == 0
    assert (tmp_path / "chat.db").exists()


@exercises(PAGE, "team.py")
async def test_the_chat_of_a_team_is_where_it_shall_be(
    follow: Follow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = follow(PAGE).load("team.py").app
    async with serve(app) as server:
        assert 'data-room="general"' in (await server.request("GET", "/team")).text
        async with server.connect("/team/ws", subprotocols=["superchat"]) as client:
            welcome = await ask(client, type="hello", version=1, name="Ada")
            assert welcome["limits"]["requests_burst"] == 30
    assert (tmp_path / "team.db").exists()


@exercises(
    PAGE,
    "shared.py",
    "chat.acl",  # tests/chat/redis/test_store.py tries whether it suffices
    "wsframework chat --redis redis://localhost --workers 4",
    "wsframework run shared:app --workers 4",
)
def test_several_processes_serve_one_chat(tmp_path: Path, redis: RedisServer) -> None:
    text = files(DOCS / PAGE)["shared.py"].replace("redis://localhost", redis.url)
    (tmp_path / "shared.py").write_text(text)
    for command in commands(DOCS / PAGE):
        if "--workers" not in command:
            continue
        arguments = command.replace("--workers 4", "--workers 2").replace("redis://localhost", redis.url)
        with running("-m", *arguments.split(), "--port", "0", cwd=tmp_path) as server:
            server.wait_for("127.0.0.1:")
            assert server.stop() == 0


@exercises(PAGE, "herald.py")
async def test_the_herald_announces_and_counts(follow: Follow) -> None:
    app = follow(PAGE).load("herald.py").app
    async with serve(app) as server:
        assert (await server.request("POST", "/announce")).text == "message 1\n"
        async with server.connect("/ws/chat", subprotocols=["superchat"]) as client:
            await ask(client, type="hello", version=1, name="Ada")
            joined = await ask(client, type="join", room="lobby")
            assert [message["text"] for message in joined["messages"]] == ["Lunch is ready"]


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table behind a heading."""
    section = TEXT.partition(f"### {heading}\n")[2].partition("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


async def test_every_request_of_the_page_gets_the_answer_of_the_page(follow: Follow) -> None:
    # In real time: the history writes in a thread, which no virtual clock waits for.
    table = rows("Requests and their answers")
    requests = [json.loads(request.strip("`")) for request, _ in table]
    assert [request["type"] for request in requests] == [
        "hello", "name", "join", "leave", "say", "history", "typing", "people", "rooms", "ping",
    ]  # fmt: skip
    app = follow(PAGE).load("herald.py").app
    async with serve(app) as server, server.connect("/ws/chat", subprotocols=["superchat"]) as client:
        for request, (_, described) in zip(requests, table, strict=True):
            if request["type"] == "say":
                await ask(client, type="join", room="lobby")
            answer = await ask(client, **request)
            kind, _, members = described.partition(":")
            assert answer["type"] == kind.strip("`"), answer
            words = re.findall(r"`(\w+)`", members.partition(", a list of")[0])
            assert set(words) == answer.keys() - {"type", "re"}, answer


def test_every_error_code_is_on_the_page() -> None:
    sources = "".join(Path(str(module.__file__)).read_text() for module in (protocol, superchat))
    used = set(re.findall(r'Refusal\(\s*"(\w+)"', sources))
    assert {code.strip("`") for code, *_ in rows("Errors")} == used


def test_every_event_is_on_the_page() -> None:
    sources = "".join(Path(str(module.__file__)).read_text() for module in (presence, superchat))
    used = set(re.findall(r'(?<!def )event\(\s*"(\w+)"', sources))
    assert {re.findall(r'"type": "(\w+)"', row[0])[0] for row in rows("Events")} == used


def test_the_numbers_of_the_page_are_those_of_the_program() -> None:
    assert f"Names** have 1 to {names.NAME_CHARS} characters" in TEXT
    assert f"names of 1 to {names.ROOM_CHARS} letters" in TEXT
    assert f"1 to {protocol.MAX_TEXT_CHARS:,} characters" in TEXT
    assert f"more than {history.MISSED_MESSAGES} messages" in TEXT
    assert f"{history.PAGE_MESSAGES} messages and {history.PAGE_CHARS // 1024} Ki characters" in TEXT
    assert f"{house.PAGE_ROOMS} rooms or {house.PAGE_PEOPLE} people" in TEXT
    assert f"more than {presence.CROWD} people" in TEXT
    assert f"within {superchat.HELLO_SECONDS:g} seconds" in TEXT
    assert f"Only {rate.CONNECTIONS_PER_ADDRESS} connections from one address" in TEXT
    assert f"[… {history.PAGE_MESSAGES} of them …]" in TEXT
    assert f"## superchat, version {protocol.VERSION}\n" in TEXT
    assert f"closed with {presence.TAKEN_OVER}" in TEXT
