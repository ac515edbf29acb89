"""The engine of the page keeps the contract, and carries rooms between two nodes."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest
import trio
import trio.testing

from tests.cli.process import running
from tests.docs.conftest import Follow
from tests.docs.following import exercises
from tests.docs.snippets import DOCS, files
from wsframework import App, Connection, Engine, History, RoomMessage, Rooms, RoomUnavailable
from wsframework.testing import EngineContract, serve

PAGE = "engines.md"


def _load() -> ModuleType:
    # A module of its own: the contract is a class, and cannot ask for a folder.
    module = ModuleType("relay_of_the_page")
    sys.modules[module.__name__] = module
    exec(compile(files(DOCS / PAGE)["relay.py"], str(DOCS / PAGE), "exec"), module.__dict__)
    return module


relay = _load()


class TestRelay(EngineContract):
    @asynccontextmanager
    async def engines(self) -> AsyncIterator[list[Engine]]:
        broker = relay.Broker()
        one, two, three = (relay.Relay(broker) for _ in range(3))
        async with one.run(), two.run(), three.run():
            yield [one, two, three]


@exercises(PAGE, "relay.py", "test_relay.py")
async def test_the_test_of_the_page_runs_the_contract(follow: Follow, tmp_path: Path) -> None:
    contract = follow(PAGE).load("test_relay.py").TestRelay()
    names = [name for name in dir(contract) if name.startswith("test_")]
    assert len(names) > 15
    for name in names:
        await getattr(contract, name)()


@exercises(PAGE, "pytest.ini")
def test_pytest_runs_it_as_the_page_shows_it(follow: Follow) -> None:
    with running("-m", "pytest", "-q", cwd=follow(PAGE).path) as program:
        assert program.wait() == 0, program.lines


async def test_an_app_runs_the_engine_and_members_of_two_nodes_meet() -> None:
    broker = relay.Broker()
    here, there = relay.Relay(broker), relay.Relay(broker)
    app = App()
    app.install(here)
    app.install(there)
    sides = {side: Rooms(engine=engine) for side, engine in (("here", here), ("there", there))}

    @app.websocket("/{side}/{name}")
    async def talk(ws: Connection, side: str, name: str) -> None:
        async with sides[side]["hall"].join(ws, name) as member:
            async for message in ws:
                assert sides[side]["hall"].broadcast(message, exclude=member) == 0

    async with serve(app) as server:
        assert broker.nodes == [here, there]
        async with server.connect("/here/ada") as ada, server.connect("/there/bob") as bob:
            await trio.testing.wait_all_tasks_blocked()
            assert Rooms(engine=there)["hall"].present() == ["ada", "bob"]
            await ada.send("hello over there")
            assert await bob.receive() == "hello over there"
            await bob.send("and back")
            assert await ada.receive() == "and back"
    assert broker.nodes == []


async def test_a_member_that_comes_back_to_another_node_gets_what_it_missed() -> None:
    broker = relay.Broker()
    here, there = relay.Relay(broker), relay.Relay(broker)
    kept = History(messages=10)
    app = App()
    app.install(here)
    app.install(there)

    @app.websocket("/{side}/{after}")
    async def talk(ws: Connection, side: str, after: str) -> None:
        room = Rooms(engine=here if side == "here" else there, history=kept)["hall"]
        async with room.join(ws, after=after) as member:
            await ws.send(f"missed: {member.missed}")
            await ws.wait_closed()

    async with serve(app) as server:
        room = Rooms(engine=here, history=kept)["hall"]
        first = await room.publish("one")
        await room.publish("two")
        async with server.connect(f"/there/{first}") as client:
            assert [await client.receive(), await client.receive()] == ["two", "missed: False"]
            await room.publish("three")
            assert await client.receive() == "three"
        for number in range(20):
            await room.publish(f"{number}")
        async with server.connect(f"/there/{first}") as client:
            assert await client.receive() == "missed: True"


async def test_a_full_queue_says_so() -> None:
    engine = relay.Relay(relay.Broker())
    for _ in range(1000):
        engine.broadcast("x", RoomMessage.of("x"), (), None)
    with pytest.raises(RoomUnavailable, match="too many messages wait"):
        engine.broadcast("x", RoomMessage.of("x"), (), None)
