from __future__ import annotations

import json
import signal
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import open_websocket_url

from tests.cli.conftest import Command
from tests.cli.process import running
from tests.engines.redis.conftest import redis as redis  # the fixture
from tests.engines.redis.redis_server import RedisServer
from wsframework.cli.chat import addresses_to_open
from wsframework.request import Address


async def say(url: str, text: str) -> list[str]:
    """Say something in the lobby; return what was said there before."""
    async with open_websocket_url(url.replace("http", "ws") + "ws/chat", subprotocols=["superchat"]) as ws:
        answers: list[dict[str, Any]] = []
        for request in (
            {"type": "hello", "version": 1, "name": "Ada"},
            {"type": "join", "room": "lobby"},
            {"type": "say", "room": "lobby", "text": text, "id": "said"},
        ):
            await ws.send_message(json.dumps(request))
        while not answers or answers[-1].get("re") != "said":
            answers.append(json.loads(await ws.get_message()))
        return [message["text"] for message in answers[1]["messages"]]


def test_chat_serves_its_page_and_keeps_what_was_said(tmp_path: Path) -> None:
    for before in ([], ["hello"]):
        with running("-m", "wsframework", "chat", "--port", "0", cwd=tmp_path) as server:
            url = server.wait_for("http://").strip()
            with urllib.request.urlopen(url, timeout=30) as response:
                assert response.status == 200
                assert "<title>Chat</title>" in response.read().decode()
            assert trio.run(say, url, "hello") == before
            server.wait_for("Messages are kept in chat.db")
            assert server.stop(signal.SIGINT) == 0
        assert (tmp_path / "chat.db").exists()


def test_chat_without_history_leaves_no_file(tmp_path: Path) -> None:
    with running("-m", "wsframework", "chat", "--port", "0", "--no-history", cwd=tmp_path) as server:
        trio.run(say, server.wait_for("http://").strip(), "hello")
        server.wait_for("in memory only")
        assert server.stop() == 0
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_cannot_be_opened_is_one_line_and_exit_code_2(command: Command) -> None:
    code, _, errors = command("chat", "--port", "0", "--db", "no/chat.db")
    assert code == 2
    assert errors == "error: cannot open the chat history no/chat.db: No such file or directory\n"


def test_a_port_in_use_is_one_line_and_exit_code_2(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, errors = command("chat", "--port", port)
    assert (code, errors.count("\n")) == (2, 1)
    assert port in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trusted-proxy", "10.0.0.1/8"], "'10.0.0.1/8' has bits behind its prefix"),
        (["--trusted-proxy", "unix", "--proxy-field", "via"], "'via' is no field"),
        (["--proxy-field", "forwarded"], "a field of trusted proxies is named, and no proxy is"),
        (["--proxy-protocol", "--port", "0"], "proxy_protocol is for connections of trusted proxies"),
    ],
)
def test_a_proxy_that_is_none_is_one_line_and_exit_code_2(
    command: Command, options: list[str], message: str
) -> None:
    code, out, errors = command("chat", "--no-history", *options)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert errors.startswith(f"error: {message}")


async def talk(url: str, people: int) -> set[str]:
    """Have people talk over connections of their own; return what all of them have heard."""
    heard: list[set[str]] = []

    async def be(name: str) -> None:
        async with open_websocket_url(
            url.replace("http", "ws") + "ws/chat", subprotocols=["superchat"]
        ) as ws:
            for request in ({"type": "hello", "version": 1, "name": name}, {"type": "join", "room": "lobby"}):
                await ws.send_message(json.dumps(request))
            texts: set[str] = set()
            while True:
                answer = json.loads(await ws.get_message())
                texts |= {message["text"] for message in answer.get("messages", ())}
                if answer["type"] == "joined":
                    await ws.send_message(json.dumps({"type": "say", "room": "lobby", "text": name}))
                if len(texts) == people:
                    heard.append(texts)
                    await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for number in range(people):
            nursery.start_soon(be, f"person {number}")
        with trio.fail_after(60):
            while len(heard) < people:  # noqa: ASYNC110 - it is simple
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert all(texts == heard[0] for texts in heard)
    return heard[0]


@pytest.mark.parametrize("workers", [[], ["--workers", "1"], ["--workers", "2"]])
def test_the_chat_on_redis_is_one_chat_over_all_workers(
    tmp_path: Path, redis: RedisServer, workers: list[str]
) -> None:
    prefix = f"cli{len(workers)}{workers[-1:]}"
    command = ["chat", "--port", "0", "--redis", redis.url, "--prefix", prefix, *workers]
    with running("-m", "wsframework", *command, cwd=tmp_path) as server:
        url = server.wait_for("http://").strip()
        assert trio.run(talk, url, 6) == {f"person {number}" for number in range(6)}
        server.wait_for(f"Messages are kept in {redis.url}")
        assert server.stop() == 0
    assert list(tmp_path.iterdir()) == []
    # What it lacks to keep acknowledged messages is one line for each process.
    lacks = [line for line in server.errors if "lose messages" in line]
    assert len(lacks) == int((workers or ["1"])[-1])
    assert "appendonly is 'no' instead of 'yes'" in lacks[0]


def test_the_redis_of_the_chat_may_be_named_by_the_environment(tmp_path: Path, redis: RedisServer) -> None:
    environment = {"WSFRAMEWORK_REDIS": redis.url, "WSFRAMEWORK_PREFIX": "environment"}
    command = ["-m", "wsframework", "chat", "--port", "0", "--workers", "2"]
    with running(*command, cwd=tmp_path, environment=environment) as server:
        assert trio.run(talk, server.wait_for("http://").strip(), 2) == {"person 0", "person 1"}
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--redis", "http://x"], "http"),
        (["--redis", "redis://127.0.0.1:1"], "redis://127.0.0.1:1"),
        (["--redis", "redis://127.0.0.1:1", "--workers", "2"], "redis://127.0.0.1:1"),
        (["--redis", "redis://x", "--db", "x.db"], "--redis (or WSFRAMEWORK_REDIS) excludes --db"),
        (["--redis", "redis://x", "--no-history"], "--redis (or WSFRAMEWORK_REDIS) excludes --db"),
    ],
)
def test_a_redis_that_cannot_be_used_is_one_line_and_exit_code_2(
    tmp_path: Path, options: list[str], line: str
) -> None:
    with running("-m", "wsframework", "chat", "--port", "0", *options, cwd=tmp_path) as server:
        assert server.wait() == 2
    (error,) = [error for error in server.errors if error.startswith("error: ")]
    assert line in error
    assert not any("Traceback" in error for error in server.errors)


@pytest.mark.parametrize("options", [[], ["--no-history"]])
@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_chat_says_why_it_runs_in_one_process(command: Command, options: list[str], workers: str) -> None:
    code, out, errors = command("chat", "--workers", workers, *options)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert errors.startswith(f"error: --workers {workers}: the chat runs in one process")
    assert "give --redis URL" in errors


def test_no_history_and_a_database_exclude_each_other(command: Command) -> None:
    code, _, errors = command("chat", "--no-history", "--db", "x.db")
    assert code == 2
    assert "exclude each other" in errors


@pytest.mark.parametrize(
    ("listening", "opened"),
    [
        ([Address("127.0.0.1", 3000)], ["http://127.0.0.1:3000/"]),
        ([Address("::1", 80)], ["http://[::1]:80/"]),
    ],
)
def test_an_address_is_opened_as_it_is(listening: list[Address], opened: list[str]) -> None:
    assert addresses_to_open(tuple(listening)) == opened


def test_every_interface_is_opened_by_names_that_work(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {socket.AF_INET: "192.0.2.7", socket.AF_INET6: ""}
    monkeypatch.setattr("wsframework.cli.chat._own_address", own.__getitem__)
    everywhere = (Address("0.0.0.0", 3000), Address("::", 3000))
    assert addresses_to_open(everywhere) == ["http://localhost:3000/", "http://192.0.2.7:3000/"]
