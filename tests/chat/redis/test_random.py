"""People come, go, and change names and rooms at random while connections are cut: who is where is true."""

from __future__ import annotations

import random

import pytest
import trio

from tests.chat.people import Person
from tests.chat.redis.talking import Workers, talking
from tests.chat.serving import connect
from tests.engines.redis.redis_server import Proxy, RedisServer
from wsframework import Server

pytestmark = pytest.mark.slow

ROOMS = ("lobby", "tea", "music", "quiet")
NAMES = [f"name {number}" for number in range(12)]


class Wanderer:
    """A person who does something at random, and knows where they are, and as the page does who else is."""

    def __init__(self, choose: random.Random, servers: tuple[Server, Server]) -> None:
        self.rooms: set[str] = set()
        self.seen: dict[str, list[str]] = {}
        self.name = ""
        self.person: Person | None = None
        self._choose = choose
        self._servers = servers
        self._token: str | None = None
        self.listed: set[str] = set()

    async def wander(self, stop: trio.Event) -> None:
        while not stop.is_set():
            try:
                await self._do()
            except AssertionError as error:
                if "connection ended" not in str(error):
                    raise
                self.person, self.name, self.rooms, self.seen = None, "", set(), {}
            await trio.sleep(self._choose.random() * 0.02)

    async def _do(self) -> None:
        if self.person is None:
            await self._come()
            return
        room, choice = self._choose.choice(ROOMS), self._choose.random()
        if choice < 0.3 and room not in self.rooms:
            answer = await self.person.ask("join", room=room)
            if answer["type"] == "joined":
                assert self.name in answer["people"], answer
                await self.read()
                self.rooms.add(room)
                self.seen[room] = answer["people"]
        elif choice < 0.5 and room in self.rooms:
            assert (await self.person.ask("leave", room=room))["type"] == "ok"
            self.rooms.discard(room)
            self.seen.pop(room)
        elif choice < 0.7:
            answer = await self.person.ask("name", name=self._choose.choice(NAMES))
            if answer["type"] == "named":
                self.name = answer["name"]
        elif choice < 0.75:
            await self.person.peer.vanish()
            self.person, self.name, self.rooms, self.seen = None, "", set(), {}
        elif self.rooms:
            answer = await self.person.ask("say", room=min(self.rooms), text="hello")
            assert answer["type"] == "said" or answer["code"] == "storage", answer
        await self.read()

    async def read(self) -> None:
        """Take note of what was told."""
        if self.person is None:
            return
        events, self.person.events = self.person.events, []
        for event in events:
            people = self.seen.get(event["room"])
            if people is None:
                continue  # of a room that was left meanwhile
            match event["type"]:
                case "entered":
                    self.seen[event["room"]] = [*(p for p in people if p != event["name"]), event["name"]]
                case "left":
                    self.seen[event["room"]] = [p for p in people if p != event["name"]]
                case "renamed":
                    self.seen[event["room"]] = [event["to"] if p == event["name"] else p for p in people]
                case "people":
                    self.listed.add(event["room"])
        for room in list(self.listed):
            self.listed.discard(room)
            if room in self.rooms:
                answer = await self.person.ask("people", room=room)
                if answer["type"] == "people":
                    self.seen[room] = answer["people"]
                else:
                    self.listed.add(room)

    async def _come(self) -> None:
        person = Person(
            await connect(self._choose.choice(self._servers), "/ws/chat", subprotocol="superchat")
        )
        shown = {"token": self._token} if self._token and self._choose.random() < 0.7 else {}
        answer = await person.ask("hello", version=1, name=self._choose.choice(NAMES), **shown)
        if answer["type"] == "welcome":
            self.person, self.name, self._token = person, answer["name"], answer["token"]
        else:
            await person.peer.vanish()


async def everywhere(workers: Workers, room: str) -> list[list[str]]:
    """Return who is in a room, as people at each worker see it."""
    found = []
    for number, server in enumerate((workers.first, workers.second)):
        observer = await Person.come(server, f"observer {number}", room)
        found.append(sorted((await observer.ask("people", room=room))["people"]))
        await observer.leave()
    return found


@pytest.mark.parametrize("cuts", [0, 6])
@pytest.mark.parametrize("seed", [1, 2])
async def test_who_is_where_is_the_same_and_true_everywhere(redis: RedisServer, seed: int, cuts: int) -> None:
    choose = random.Random(seed)
    async with (
        Proxy(redis.port).running() as one,
        Proxy(redis.port).running() as two,
        talking(one.url, two.url, lease=2.0, timeout=1.0) as workers,
    ):
        people = [Wanderer(choose, (workers.first, workers.second)) for _ in range(10)]
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            for wanderer in people:
                nursery.start_soon(wanderer.wander, stop)
            for _ in range(max(1, cuts)):
                await trio.sleep(0.4)
                if cuts:
                    choose.choice((one, two)).cut()
            await trio.sleep(0.5)
            stop.set()
        here = [wanderer for wanderer in people if wanderer.person is not None]
        assert len({wanderer.name for wanderer in here}) == len(here)
        for wanderer in here:
            for room in wanderer.rooms:
                truth = sorted(other.name for other in here if room in other.rooms)
                with trio.fail_after(15):
                    while sorted(wanderer.seen[room]) != truth:
                        assert wanderer.person is not None
                        await trio.sleep(0.05)
                        await wanderer.person.ask("ping")
                        await wanderer.read()
        for room in ROOMS:
            names = {wanderer.name for wanderer in here if room in wanderer.rooms}
            with trio.fail_after(15):
                while True:
                    first, second = await everywhere(workers, room)
                    if {*first} - {"observer 0"} == {*second} - {"observer 1"} == names:
                        break
                    await trio.sleep(0.2)
        for wanderer in here:
            assert wanderer.person is not None
            await wanderer.person.peer.vanish()
        with trio.fail_after(15):
            while b"people:" in (keys := await redis.command("KEYS", workers.key("*").replace("{", "\\{"))):  # noqa: ASYNC110
                await trio.sleep(0.05)
        for name in ("names", "busiest", f"guests:{workers.node(0)}", f"guests:{workers.node(1)}"):
            assert f"{{chat}}:{name}\r\n".encode() not in keys, name
