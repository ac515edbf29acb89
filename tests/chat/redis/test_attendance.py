"""Names and rooms that are the same in all workers."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.chat.people import Person
from tests.chat.redis.talking import talking, until_free, until_people
from tests.chat.serving import connect
from tests.engines.redis.redis_server import Proxy, RedisServer
from wsframework import Close, Rooms
from wsframework.chat import presence
from wsframework.chat.house import PAGE_PEOPLE, PAGE_ROOMS, BadCursor, House
from wsframework.chat.presence import CROWD, TAKEN_OVER
from wsframework.chat.redis.attendance import SharedAttendance, _Entrance
from wsframework.chat.redis.store import Store
from wsframework.engines.redis import RedisEngine
from wsframework.testing import cancel_everywhere

# Names


@pytest.mark.parametrize("alike", ["Ada", "ADA", "\u0410da", "A\u200bda", "Ad\u0430"])
async def test_a_name_is_taken_in_all_workers_however_it_is_written(redis: RedisServer, alike: str) -> None:
    async with talking(redis.url) as workers:
        await Person.come(workers.first, "Ada")
        thief = Person(await connect(workers.second, "/ws/chat", subprotocol="superchat"))
        refused = await thief.ask("hello", version=1, name=alike)
        assert refused["code"] in ("name_taken", "invalid")
        if refused["code"] == "name_taken":
            welcome = await thief.ask("hello", version=1, name=refused["suggestion"])
            assert welcome["type"] == "welcome"


async def test_of_many_who_want_a_name_at_once_one_gets_it(redis: RedisServer) -> None:
    async with talking(redis.url) as workers:
        peers = [
            Person(await connect(server, "/ws/chat", subprotocol="superchat"))
            for server in (workers.first, workers.second) * 5
        ]
        codes: list[str] = []

        async def claim(person: Person) -> None:
            codes.append((await person.ask("hello", version=1, name="Ada"))["type"])

        async with trio.open_nursery() as nursery:
            for person in peers:
                nursery.start_soon(claim, person)
        assert sorted(codes) == ["error"] * 9 + ["welcome"]


async def test_a_reserved_name_is_free_for_nobody_and_not_suggested(redis: RedisServer) -> None:
    options = {"reserved_names": ["Herald", "Herald 2"]}
    async with talking(redis.url, options=options) as workers:
        person = Person(await connect(workers.second, "/ws/chat", subprotocol="superchat"))
        refused = await person.ask("hello", version=1, name="HERALD")
        assert refused["code"] == "name_taken"
        assert refused["suggestion"] != "HERALD 2"
        assert (await workers.chats[0].say("lobby", "news", name="Herald")).name == "Herald"


async def test_whoever_comes_back_to_another_worker_gets_the_name_back(redis: RedisServer) -> None:
    async with talking(redis.url) as workers:
        ghost = await Person.come(workers.first, "Ada", "lobby")
        bob = await Person.come(workers.second, "Bob", "lobby")
        await Person.come(workers.second, "Ada", "lobby", token=ghost.token)
        assert await bob.event() == {"type": "left", "room": "lobby", "name": "Ada"}
        assert await bob.event() == {"type": "entered", "room": "lobby", "name": "Ada"}
        await ghost.peer.read_to_end()
        assert ghost.peer.closed is not None
        assert ghost.peer.closed.code == TAKEN_OVER


async def test_a_token_of_somebody_else_gets_nobody_a_name(redis: RedisServer) -> None:
    async with talking(redis.url) as workers:
        ada = await Person.come(workers.first, "Ada")
        eve = await Person.come(workers.first, "Eve")
        thief = Person(await connect(workers.second, "/ws/chat", subprotocol="superchat"))
        for token in (eve.token, ada.token[:-1], "x"):
            assert (await thief.ask("hello", version=1, name="Ada", token=token))["code"] == "name_taken"
        assert (await ada.ask("ping"))["type"] == "pong"


async def test_redis_knows_no_token_that_would_get_a_name(redis: RedisServer) -> None:
    async with talking(redis.url) as workers:
        ada = await Person.come(workers.first, "Ada", "lobby")
        await ada.ask("say", room="lobby", text="hello", key="k")
        dump = b""
        for name in ("names", "messages", "keys", f"guests:{workers.node(0)}"):
            dump += await redis.command("HGETALL", workers.key(name))
        assert b"Ada" in dump
        assert not any(part.encode() in dump for part in ada.token.split("."))


# A worker that is away


async def test_the_names_and_seats_of_a_worker_that_is_cut_off_are_free_after_the_lease(
    redis: RedisServer,
) -> None:
    async with Proxy(redis.port).running() as proxy, talking(proxy.url, redis.url, lease=0.5) as workers:
        ada = await Person.come(workers.first, "Ada", "lobby")
        bob = await Person.come(workers.second, "Bob", "lobby")
        proxy.swallow = True
        proxy.cut()
        late = await until_free(workers.second, "Ada")
        assert await bob.event("left") == {"type": "left", "room": "lobby", "name": "Ada"}
        assert (await late.ask("join", room="lobby"))["people"] == ["Bob", "Ada"]
        # The first worker comes back, and its Ada is told that she is none any more.
        proxy.swallow = False
        await ada.peer.read_to_end()
        assert ada.peer.closed is not None
        assert ada.peer.closed.code == 1013
        people = await bob.ask("people", room="lobby")
        assert sorted(people["people"]) == ["Ada", "Bob"]


async def test_nobody_speaks_under_a_name_that_was_given_away(redis: RedisServer) -> None:
    async with talking(redis.url) as workers:
        ada = await Person.come(workers.first, "Ada", "lobby")
        # As when this worker was stopped, its lease is over, and it does not know it yet.
        await redis.command("ZREM", workers.key("nodes"), workers.node(0))
        other = await Person.come(workers.second, "Ada", "lobby")
        await ada.send({"type": "say", "id": 9, "room": "lobby", "text": "it is me"})
        answers = await ada.peer.read_to_end()
        assert not any("it is me" in str(answer) or "said" in str(answer) for answer in answers)
        assert ada.peer.closed is not None
        assert ada.peer.closed.code == 1013
        await other.ask("say", room="lobby", text="no, me")
        assert await other.hear(1) == [("Ada", "no, me")]


async def test_a_guest_whom_redis_knows_by_another_name_is_put_back(redis: RedisServer) -> None:
    # As after a new name whose answer was lost, and that the guest was told it does not have.
    async with talking(redis.url) as workers:
        ada = await Person.come(workers.first, "Ada", "lobby")
        attendance = workers.chats[0]._presence
        assert isinstance(attendance, SharedAttendance)
        (place,) = attendance._places.values()
        await attendance._name(place, "name", "Grace", "", force=False)
        place.name = "Ada"
        assert (await ada.ask("say", room="lobby", text="first"))["code"] == "storage"
        assert (await ada.ask("say", room="lobby", text="second"))["type"] == "said"
        await until_free(workers.second, "Grace")


async def test_cancelling_anything_leaves_no_name_taken_and_nobody_in_a_room(redis: RedisServer) -> None:
    engine = RedisEngine(redis.url, prefix="cancel")
    attendance = SharedAttendance(Store(engine), Rooms(), (), lost=lambda: None)

    class Nobody:
        token, holder, over = "token", "", trio.Event()

        def end(self, close: Close) -> None: ...

        def member(self, room: str) -> None: ...

    async def be(guest: Nobody) -> None:
        await attendance.claim(guest, "Ada", None)
        await attendance.enter(guest, "lobby")
        await attendance.rename(guest, "Grace")
        attendance.leave(guest, "lobby")
        await attendance.enter(guest, "tea")

    async def check(guest: Nobody) -> None:
        attendance.depart(guest)
        for key in ("names", "people:lobby", "people:tea", "busiest", f"guests:{engine.node}"):
            assert not await engine.commands.call("EXISTS", f"cancel:{{chat}}:{key}"), key

    @asynccontextmanager
    async def come() -> AsyncIterator[Nobody]:
        yield Nobody()

    async with engine.run():
        attendance.begin()
        assert len((await cancel_everywhere(be, check, setup=come)).points) >= 4


async def test_guests_are_put_back_when_redis_has_forgotten_them(redis: RedisServer) -> None:
    async with talking(redis.url, lease=0.6) as workers:
        ada = await Person.come(workers.first, "Ada", "lobby", "tea")
        bob = await Person.come(workers.second, "Bob", "lobby")
        for name in ("names", "people:lobby", "people:tea", "busiest", "nodes"):
            await redis.command("DEL", workers.key(name))
        for number in (0, 1):
            await redis.command("DEL", workers.key(f"guests:{workers.node(number)}"))
        assert (await bob.event("people"))["count"] in (1, 2)
        await until_people(bob, "lobby", "Ada", "Bob")
        rooms = (await bob.ask("rooms"))["rooms"]
        assert rooms == [{"room": "lobby", "people": 2}, {"room": "tea", "people": 1}]
        thief = Person(await connect(workers.second, "/ws/chat", subprotocol="superchat"))
        assert (await thief.ask("hello", version=1, name="ada"))["code"] == "name_taken"
        await ada.ask("say", room="lobby", text="still me")
        assert await bob.hear(1) == [("Ada", "still me")]


async def test_who_left_while_redis_was_away_has_left_when_it_is_back(redis: RedisServer) -> None:
    async with Proxy(redis.port).running() as proxy, talking(proxy.url, redis.url) as workers:
        ada = await Person.come(workers.first, "Ada", "lobby", "tea")
        bob = await Person.come(workers.second, "Bob", "lobby", "tea")
        eve = await Person.come(workers.first, "Eve", "lobby")
        proxy.swallow = True
        proxy.cut()
        await trio.sleep(0.1)
        assert (await ada.ask("leave", room="tea"))["type"] == "ok"
        await eve.peer.vanish()
        proxy.swallow = False
        assert (await bob.event("left")) == {"type": "left", "room": "lobby", "name": "Eve"}
        await until_people(bob, "tea", "Bob")
        await Person.come(workers.second, "Eve")


# Rooms and people


async def test_what_happens_in_a_room_is_told_in_all_workers(redis: RedisServer) -> None:
    async with talking(redis.url) as workers:
        ada = await Person.come(workers.first, "Ada", "lobby")
        bob = await Person.come(workers.second, "Bob")
        assert (await bob.ask("join", room="lobby"))["people"] == ["Ada", "Bob"]
        await bob.ask("typing", room="lobby", on=True)
        await bob.ask("name", name="Bert")
        await bob.ask("leave", room="lobby")
        told = [await ada.event() for _ in range(4)]
        assert [event["type"] for event in told] == ["entered", "typing", "renamed", "left"]
        assert [event["type"] for event in bob.events] == ["renamed"]


async def test_a_crowd_over_all_workers_is_told_how_many_it_is(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "_CROWD_SECONDS", 0.0)
    async with talking(redis.url, options={"connections_per_address": None}) as workers:
        me = await Person.come(workers.first, "Me", "lobby")
        for number in range(CROWD - 1):
            await Person.come((workers.first, workers.second)[number % 2], f"name{number}", "lobby")
        late = await Person.come(workers.second, "Late", "lobby")
        await late.ask("typing", room="lobby", on=True)
        while (await me.event("people"))["count"] != CROWD + 1:
            pass
        assert not [event for event in me.events if event["type"] == "typing" or event.get("name") == "Late"]
        page = await me.ask("people", room="lobby")
        rest = await me.ask("people", room="lobby", cursor=page["cursor"])
        assert (len(page["people"]), len(rest["people"]), rest["cursor"]) == (PAGE_PEOPLE, 1, None)
        assert len({*page["people"], *rest["people"]}) == CROWD + 1


async def test_rooms_come_in_the_order_and_pages_of_a_house(redis: RedisServer) -> None:
    """Redis' lists are those of one process, also for rooms with letters of many languages."""
    engine = RedisEngine(redis.url, prefix="house")
    attendance = SharedAttendance(Store(engine), Rooms(), (), lost=lambda: None)
    house, choose = House(), random.Random(7)
    async with engine.run():
        for _ in range(PAGE_ROOMS + 150):
            room = "".join(choose.choices("abz09_-\u00e9\u0436\u4e2d\U00020000", k=3)) + "x"
            for _ in range(choose.choice((1, 1, 1, 2, 5))):
                seat = house.enter(room, "somebody")
                people = f"house:{{chat}}:people:{room}"
                await engine.commands.call("ZADD", people, seat.number, f"n {seat.number}")
            await engine.commands.call("ZADD", "house:{chat}:busiest", -house.count(room), room)
        cursor = None
        while True:
            expected, found = house.rooms(cursor), await attendance.rooms(cursor)
            assert found == expected
            if (cursor := expected.cursor) is None:
                break
        # A cursor of a room that is gone, or was never there.
        for strange in ("1/m", "2/", "0/a", "77/zzz", "1/\u00e9"):
            assert await attendance.rooms(strange) == house.rooms(strange)
        for wrong in ("x", "x/y", "-1/a", ""):
            with pytest.raises(BadCursor):
                await attendance.rooms(wrong)
            with pytest.raises(BadCursor):
                await attendance.people("room", wrong)


def test_an_entrance_knows_what_happened_before_its_process_went_on() -> None:
    entrance = _Entrance("n 3")
    entrance.note(b"entered", {"seat": 2, "name": "Before", "holder": "n 2"})
    entrance.note(b"entered", {"seat": 3, "name": "Me", "holder": "n 3"})
    flat = [1, b"Ada", 2, b"Before", 3, b"Me"]
    assert entrance.people(3, flat).names == ["Ada", "Before", "Me"]
    entrance.note(b"left", {"seat": 1, "name": "Ada"})
    entrance.note(b"renamed", {"seat": 2, "name": "Bob"})
    entrance.note(b"renamed", {"seat": 99, "name": "Elsewhere"})
    entrance.note(b"entered", {"seat": 4, "name": "Eve", "holder": "n 4"})
    people = entrance.people(3, flat)
    assert (people.names, people.count, people.cursor) == (["Bob", "Me", "Eve"], 3, None)


def test_an_entrance_into_a_full_page_leaves_the_rest_to_the_next_one() -> None:
    entrance = _Entrance("n 1")
    flat = [part for seat in range(1, PAGE_PEOPLE) for part in (seat, b"somebody")]
    for seat in (200, 201):
        entrance.note(b"entered", {"seat": seat, "name": "late", "holder": f"n {seat}"})
    people = entrance.people(PAGE_PEOPLE - 1, flat)
    assert (len(people.names), people.cursor, people.count) == (PAGE_PEOPLE, "200", PAGE_PEOPLE + 1)
    entrance.note(b"left", {"seat": 201, "name": "late"})
    assert entrance.people(PAGE_PEOPLE - 1, flat).cursor is None
