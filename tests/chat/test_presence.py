"""What requests cost in a full house, and what crowds are told."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.chat.people import Person
from tests.chat.serving import NO_LIMIT, serving
from wsframework import App, Server
from wsframework.chat import Chat, presence
from wsframework.chat.house import PAGE_PEOPLE, PAGE_ROOMS, House
from wsframework.chat.names import NameTaken
from wsframework.chat.presence import CROWD, Presence
from wsframework.chat.superchat import Conversation

TRIES = 9
REFERENCE = [{"id": number, "name": "somebody"} for number in range(2_500)]
"""What takes about a millisecond to encode on a machine of 2026 that has nothing else to do."""


class Metered:
    """An awaitable that counts the CPU time of its own steps, and not of the tasks that run between them."""

    def __init__(self, awaitable: Awaitable[None]) -> None:
        self.seconds = 0.0
        self._awaitable = awaitable

    def __await__(self) -> Generator[Any, Any, None]:
        steps = self._awaitable.__await__()
        value: Any = None
        while True:
            start = time.thread_time()
            try:
                waits_for = steps.send(value)
            except StopIteration:
                return
            finally:
                self.seconds += time.thread_time() - start
            value = yield waits_for


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that each request of all conversations took."""
    spent: list[float] = []
    handle: Callable[[Conversation, str | bytes], Awaitable[None]] = Conversation._handle

    async def metered(conversation: Conversation, message: str | bytes) -> None:
        meter = Metered(handle(conversation, message))
        await meter
        spent.append(meter.seconds)

    monkeypatch.setattr(Conversation, "_handle", metered)
    return spent


@asynccontextmanager
async def a_house() -> AsyncIterator[tuple[Server, Chat, House]]:
    """Serve a chat, and give it with what knows who is in which room."""
    app, chat = App(), Chat(rate=NO_LIMIT)
    app.install(chat)
    async with serving(app) as server:
        yield server, chat, local(chat).house


def local(chat: Chat) -> Presence:
    presence = chat._presence
    assert isinstance(presence, Presence)
    return presence


@pytest.mark.slow
async def test_no_request_costs_more_than_a_millisecond_whatever_is_in_the_house(costs: list[float]) -> None:
    most = min(seconds_to_encode(REFERENCE) for _ in range(TRIES))
    wide = "\U0001f98a" * 32
    async with a_house() as (server, chat, house):
        names = local(chat).names
        for number in range(30_000):
            house.enter(f"room{number}", "somebody")
        for number in range(3_000):
            house.enter("big", f"Somebody with a name {number}")
        for name in ("Ada", wide):
            for _ in range(1_500):
                try:
                    names.claim(name, object())  # type: ignore[arg-type]
                except NameTaken as taken:
                    names.claim(taken.suggestion, object())  # type: ignore[arg-type]
        for text in ("a, b" * 100, '\n"\u00e9\U0001f98a' * 1000):
            for _ in range(150):
                await chat.say(f"said{len(text)}", text, name="Clock")
        me = await Person.come(server, "Me", "big", "said400", "said4000")
        log = (await me.ask("join", room="other"))["log"]
        requests: list[dict[str, Any]] = [
            {"type": "rooms"},
            {"type": "rooms", "cursor": (await me.ask("rooms"))["cursor"]},
            {"type": "people", "room": "big"},
            {"type": "typing", "room": "big", "on": True},
            {"type": "name", "name": "Ada"},
            {"type": "name", "name": wide},
            {"type": "name", "name": "a" + "\u0315\u0300" * 5_000},
            {"type": "say", "room": "said4000", "text": '\n"\u00e9\U0001f98a' * 1000},
            {"type": "history", "room": "said400", "before": 140},
            {"type": "history", "room": "said4000", "before": 290},
            {"type": "history", "room": "said4000", "after": 160},
            {"type": "ping", "more": [1.5] * 3000},
            {"type": "ping", "more": [[1]] * 1300},
            {"type": "ping", "more": [10**4000] * 4},
            {"type": "ping", "more": {str(number): {} for number in range(800)}},
        ]
        again = [
            ({"type": "join", "room": room, **since}, {"type": "leave", "room": room})
            for room in ("big", "said400", "said4000")
            for since in ({}, {"after": 1, "log": log}, {"after": 160, "log": log})
        ]
        for joined in ("big", "said400", "said4000"):
            await me.ask("leave", room=joined)
        for join, leave in again:
            dear = await least(me, costs, join, leave)
            assert dear < most, (join, dear, most)
        for joined in ("big", "said400", "said4000"):
            await me.ask("join", room=joined)
        for request in requests:
            dear = await least(me, costs, request)
            assert dear < most, (str(request)[:100], dear, most)


def seconds_to_encode(value: object) -> float:
    start = time.thread_time()
    json.dumps(value)
    return time.thread_time() - start


async def least(person: Person, costs: list[float], *requests: dict[str, Any]) -> float:
    """Return what the dearest of some requests costs at the best of some tries: others use it too."""
    tries = []
    for _ in range(TRIES):
        costs.clear()
        for request in requests:
            await person.send({"id": 0, **request})
            await person.answer()
        tries.append(max(costs))
    return min(tries)


async def test_a_full_house_is_read_page_by_page() -> None:
    async with a_house() as (server, _, house):
        for number in range(PAGE_ROOMS + 20):
            house.enter(f"room{number:03}", "somebody")
        for number in range(PAGE_PEOPLE + 20):
            house.enter("big", f"name{number}")
        me = await Person.come(server, "Me")
        joined = await me.ask("join", room="big")
        names = joined["people"]
        assert (len(names), joined["count"]) == (PAGE_PEOPLE, PAGE_PEOPLE + 21)
        people = await me.ask("people", room="big", cursor=joined["people_cursor"])
        assert [*names, *people["people"]] == [*(f"name{number}" for number in range(PAGE_PEOPLE + 20)), "Me"]
        assert people["cursor"] is None
        first = await me.ask("rooms")
        second = await me.ask("rooms", cursor=first["cursor"])
        assert first["rooms"][0] == {"room": "big", "people": PAGE_PEOPLE + 21}
        assert len(first["rooms"]) == PAGE_ROOMS
        assert len(second["rooms"]) == 21
        assert second["cursor"] is None
        for request in ({"type": "rooms"}, {"type": "people", "room": "big"}):
            refused = await me.ask(**request, cursor="nonsense")
            assert (refused["code"], refused["field"]) == ("invalid", "cursor")
        assert (await me.ask("people", room="elsewhere"))["code"] == "not_joined"


async def test_a_crowd_is_told_how_many_it_is_and_nothing_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "_CROWD_SECONDS", 0.0)
    async with a_house() as (server, _, house):
        seats = [house.enter("lobby", f"name{number}") for number in range(CROWD - 2)]
        me = await Person.come(server, "Me", "lobby")
        ada = await Person.come(server, "Ada", "lobby")  # the hundredth
        assert await me.event("entered") == {"type": "entered", "room": "lobby", "name": "Ada"}
        assert await me.event() == {"type": "people", "room": "lobby", "count": CROWD}
        bob = await Person.come(server, "Bob", "lobby")
        await bob.ask("typing", room="lobby", on=True)
        await bob.ask("name", name="Bert")
        for _ in range(2):  # Bob came, and has another name
            assert await me.event() == {"type": "people", "room": "lobby", "count": CROWD + 1}
        house.leave(seats[0])
        await bob.ask("typing", room="lobby", on=True)
        assert await me.event() == {"type": "typing", "room": "lobby", "name": "Bert", "on": True}
        await bob.ask("name", name="Bob")
        await bob.leave()
        assert (await me.event("renamed"))["to"] == "Bob"
        assert (await me.event("left"))["name"] == "Bob"
        assert await ada.event("people")


async def test_a_new_name_is_told_to_so_many_people_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "_MOST_TOLD", 3)
    async with a_house() as (server, _, _):
        me = await Person.come(server, "Me", "one", "two")
        ada = await Person.come(server, "Ada", "two", "one")
        await me.ask("name", name="Grace")
        assert (await ada.event("renamed"))["room"] == "one"
        assert await ada.event("people") == {"type": "people", "room": "two", "count": 2}


def test_presence_has_nothing_to_do_in_an_empty_house() -> None:
    async def main() -> None:
        with trio.move_on_after(100) as waiting:
            await Presence(Chat().rooms).run()
        assert waiting.cancelled_caught

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
