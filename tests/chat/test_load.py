"""The chat under load, and killed under load. `python -m tests.chat.load` is the whole of the first."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from tests.chat.load import Load, run
from wsframework.chat.history import HistoryStore
from wsframework.chat.messages import Message

pytestmark = pytest.mark.slow


def test_everybody_gets_everything_in_one_order_and_one_who_never_reads_delays_nobody() -> None:
    load = Load(clients=100, seconds=2.0, slow_bytes=64 * 1024, slow_seconds=1.0)
    delays = []
    for _ in range(3):  # a pause of the machine's own is no delay of ours, and does not come three times
        without = run(load)
        beside = run(attrs.evolve(load, stuck=True, stuffed=True))
        for result in (without, beside):
            assert result.acknowledged == result.said == 2000
            assert result.delivered == 100 * result.said
            assert result.complete == 100
        assert beside.stuck_closed
        delays.append(beside.p99 - without.p99)
        if delays[-1] <= 50:
            return
    pytest.fail(f"the one who never reads delayed the others: by {delays} ms at the 99th percentile")


SERVER = """
import sys
from wsframework import App
from wsframework.chat import Chat, Rate

app = App()
app.install(Chat(history=sys.argv[1], rate=Rate(per_second=1e6, burst=10**6)))
app.run(port=0, on_listening=lambda server: print(server.port, flush=True))
"""

CLIENTS = 10
IN_FLIGHT = 5
ROUNDS = 3
ACKNOWLEDGED_A_ROUND = 300


class Talk:
    """What was said, by its key: the text, and once it is acknowledged the id."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}
        self.ids: dict[str, int] = {}
        self.heard: dict[int, str] = {}
        self.tokens: dict[int, str] = {}

    @property
    def open(self) -> list[str]:
        return [key for key in self.said if key not in self.ids]

    async def one_client(self, port: int, number: int, enough: int) -> None:
        """Say again what was not acknowledged, then go on until enough is."""
        url = f"ws://127.0.0.1:{port}/ws/chat"
        async with open_websocket_url(url, subprotocols=["superchat"]) as ws:
            hello = {"type": "hello", "version": 1, "name": f"client {number}"}
            if number in self.tokens:  # keys are those of the token
                hello["token"] = self.tokens[number]
            await ws.send_message(json.dumps(hello))
            self.tokens[number] = json.loads(await ws.get_message())["token"]
            await ws.send_message(json.dumps({"type": "join", "room": "lobby"}))
            again = [key for key in self.open if key.startswith(f"{number}-")]
            for key in again:
                await self.say(ws, key)
            for _ in range(IN_FLIGHT - len(again)):
                await self.say_new(ws, number)
            while len(self.ids) < enough:
                value = json.loads(await ws.get_message())
                if value["type"] == "said":
                    self.ids[value["re"]] = value["message"]
                    await self.say_new(ws, number)
                elif value["type"] == "messages":
                    self.heard |= {message["id"]: message["text"] for message in value["messages"]}
                else:
                    assert value["type"] in ("welcome", "joined", "entered", "left"), value

    async def say_new(self, ws: WebSocketConnection, number: int) -> None:
        key = f"{number}-{len(self.said)}"
        self.said[key] = f"text of {key}"
        await self.say(ws, key)

    async def say(self, ws: WebSocketConnection, key: str) -> None:
        request: dict[str, Any] = {"type": "say", "id": key, "key": key, "room": "lobby"}
        await ws.send_message(json.dumps(request | {"text": self.said[key]}))

    async def until_killed(self, server: subprocess.Popen[str], enough: int) -> None:
        """Let all clients talk, and kill the server in the middle of it."""
        assert server.stdout is not None
        port = int(await trio.to_thread.run_sync(server.stdout.readline))

        async def client(number: int) -> None:
            try:
                await self.one_client(port, number, enough)
            except (ConnectionClosed, OSError):
                pass
            else:
                # With messages of all the others on their way.
                server.send_signal(signal.SIGKILL)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(CLIENTS):
                    nursery.start_soon(client, number)


def everything(path: Path) -> list[Message]:
    store = HistoryStore(path)
    store.open()
    page = store.newest("lobby", upto=store.last_id)
    messages = [*page.messages]
    while page.more:
        page = store.before("lobby", messages[0].id)
        messages[:0] = page.messages
    store.close()
    return messages


def test_after_a_kill_9_under_load_every_acknowledged_message_is_in_the_history_once(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    talk = Talk()
    unanswered = 0
    for number in range(1, ROUNDS + 1):
        command = [sys.executable, "-c", SERVER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                trio.run(talk.until_killed, server, number * ACKNOWLEDGED_A_ROUND)
            finally:
                server.kill()
        assert server.returncode == -signal.SIGKILL
        unanswered += len(talk.open)
        history = everything(path)
        by_id = {message.id: message.text for message in history}
        assert len(by_id) == len(history)
        assert {id: by_id.get(id) for id in talk.ids.values()} == {
            id: talk.said[key] for key, id in talk.ids.items()
        }
        # What others were told is kept too: nobody heard a message that never was.
        assert {id: by_id.get(id) for id in talk.heard} == talk.heard
        # What was said again after the kill before it has not become a second message.
        assert max(Counter(message.text for message in history).values()) == 1
    assert len(talk.ids) >= ROUNDS * ACKNOWLEDGED_A_ROUND
    assert unanswered > 0  # the kills did come in the middle
