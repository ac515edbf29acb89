from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing

from tests.chat.forms import chosen, only
from tests.chat.people import Person, texts
from tests.chat.serving import chatting, connect
from wsframework import Limits, SlowPolicy
from wsframework.chat import Rate, superchat

pytestmark = pytest.mark.usefixtures("form")

# Hello and names


async def test_hello_is_answered_with_all_a_client_must_know() -> None:
    async with chatting() as (server, _):
        person = Person(await connect(server, "/ws/chat", subprotocol="superchat"))
        welcome = await person.ask("hello", version=1, name=" Ada ")
        assert {key: welcome[key] for key in ("type", "re", "version", "name")} == {
            "type": "welcome",
            "re": 1,
            "version": 1,
            "name": "Ada",
        }
        assert welcome["token"]
        assert welcome["log"]
        assert welcome["time"] > 1_700_000_000_000
        assert welcome["limits"]["text_chars"] == 4000
        assert welcome["limits"]["name_chars"] == 32


@pytest.mark.parametrize(
    "request_",
    [
        {"type": "join", "room": "lobby"},
        {"type": "say", "room": "lobby", "text": "hi"},
        {"type": "name", "name": "Ada"},
        {"type": "rooms"},
        {"type": "history", "room": "lobby", "before": 5},
    ],
)
async def test_whoever_has_not_said_hello_is_asked_to(request_: dict[str, Any]) -> None:
    async with chatting() as (server, _):
        person = Person(await connect(server, "/ws/chat", subprotocol="superchat"))
        answer = await person.ask(**request_)
        assert (answer["type"], answer["code"]) == ("error", "hello_first")
        assert (await person.ask("hello", version=1, name="Ada"))["type"] == "welcome"


async def test_a_version_that_is_not_spoken_is_told_with_those_that_are() -> None:
    async with chatting() as (server, _):
        person = Person(await connect(server, "/ws/chat", subprotocol="superchat"))
        answer = await person.ask("hello", version=2, name="Ada")
        assert (answer["code"], answer["versions"]) == ("version", [1])
        assert (await person.ask("hello", version=1, name="Ada"))["type"] == "welcome"


async def test_hello_is_said_once() -> None:
    async with chatting() as (server, _):
        ada = await Person.come(server, "Ada")
        assert (await ada.ask("hello", version=1, name="Grace"))["code"] == "already_greeted"


async def test_a_name_that_is_taken_is_refused_with_one_that_is_free() -> None:
    async with chatting() as (server, _):
        await Person.come(server, "Ada")
        other = Person(await connect(server, "/ws/chat", subprotocol="superchat"))
        answer = await other.ask("hello", version=1, name="ADA")
        assert (answer["code"], answer["suggestion"]) == ("name_taken", "ADA 2")
        assert (await other.ask("hello", version=1, name=answer["suggestion"]))["type"] == "welcome"


async def test_a_name_is_free_again_when_its_holder_has_gone() -> None:
    async with chatting() as (server, _):
        await (await Person.come(server, "Ada")).leave()
        await Person.come(server, "Ada")


async def test_a_new_name_is_told_to_the_rooms_and_the_old_one_is_free() -> None:
    async with chatting() as (server, _):
        ada = await Person.come(server, "Ada", "lobby", "tea")
        bob = await Person.come(server, "Bob", "lobby")
        assert await ada.ask("name", name="Grace") == {"type": "named", "re": 4, "name": "Grace"}
        renamed = {"type": "renamed", "room": "lobby", "name": "Ada", "to": "Grace"}
        assert await bob.event("renamed") == renamed
        assert await ada.event("renamed") == renamed
        assert (await ada.event("renamed"))["room"] == "tea"
        late = await Person.come(server, "Ada")
        assert (await late.ask("join", room="lobby"))["people"] == ["Grace", "Bob", "Ada"]


async def test_a_new_name_that_is_taken_changes_nothing() -> None:
    async with chatting() as (server, _):
        ada = await Person.come(server, "Ada", "lobby")
        await Person.come(server, "Bob")
        assert (await ada.ask("name", name="bob"))["code"] == "name_taken"
        assert (await ada.ask("name", name="ADA"))["name"] == "ADA"
        await ada.ask("say", room="lobby", text="still me")
        assert await ada.hear(1) == [("ADA", "still me")]


async def test_whoever_shows_their_token_gets_their_name_back_from_a_dead_connection() -> None:
    async with chatting() as (server, _):
        ghost = await Person.come(server, "Ada", "lobby")
        bob = await Person.come(server, "Bob", "lobby")
        back = await Person.come(server, "Ada", "lobby", token=ghost.token)
        assert await bob.event() == {"type": "left", "room": "lobby", "name": "Ada"}
        assert await bob.event() == {"type": "entered", "room": "lobby", "name": "Ada"}
        assert back.token != ghost.token
        await ghost.peer.read_to_end()
        assert ghost.peer.closed is not None
        assert ghost.peer.closed.code == 4409
        await back.ask("say", room="lobby", text="here I am")
        assert await bob.hear(1) == [("Ada", "here I am")]


async def test_a_wrong_token_gets_nobody_a_name() -> None:
    async with chatting() as (server, _):
        ada = await Person.come(server, "Ada")
        thief = Person(await connect(server, "/ws/chat", subprotocol="superchat"))
        for token in ("guess", "ä", ada.token[:-1]):
            assert (await thief.ask("hello", version=1, name="Ada", token=token))["code"] == "name_taken"
        assert (await ada.ask("ping"))["type"] == "pong"


# Rooms and presence


async def test_a_message_reaches_everybody_in_the_room_with_id_and_time() -> None:
    async with chatting() as (server, _):
        ada = await Person.come(server, "Ada", "lobby")
        bob = await Person.come(server, "Bob", "lobby")
        other = await Person.come(server, "Eve", "tea")
        said = await ada.ask("say", room="lobby", text="hello <b>Bob</b>")
        assert (said["type"], said["room"]) == ("said", "lobby")
        message = {"id": said["message"], "name": "Ada", "text": "hello <b>Bob</b>", "time": said["time"]}
        expected = {"type": "messages", "room": "lobby", "messages": [message]}
        assert await bob.event("messages") == expected
        assert await ada.event("messages") == expected
        await other.ask("ping")
        assert other.events == []


async def test_who_comes_and_goes_is_told_to_the_others() -> None:
    async with chatting() as (server, _):
        ada = await Person.come(server, "Ada", "lobby")
        bob = await Person.come(server, "Bob")
        joined = await bob.ask("join", room="Lobby")
        assert (joined["room"], joined["people"]) == ("lobby", ["Ada", "Bob"])
        assert await ada.event() == {"type": "entered", "room": "lobby", "name": "Bob"}
        assert (await bob.ask("leave", room="lobby"))["type"] == "ok"
        assert await ada.event() == {"type": "left", "room": "lobby", "name": "Bob"}
        await bob.ask("join", room="lobby")
        await bob.peer.vanish()
        assert await ada.event() == {"type": "entered", "room": "lobby", "name": "Bob"}
        assert await ada.event() == {"type": "left", "room": "lobby", "name": "Bob"}
        assert bob.events == []  # nobody is told about themselves


async def test_rooms_with_people_are_listed_the_busiest_first() -> None:
    async with chatting() as (server, _):
        ada = await Person.come(server, "Ada", "quiet", "busy")
        await Person.come(server, "Bob", "busy")
        rooms = (await ada.ask("rooms"))["rooms"]
        assert rooms == [{"room": "busy", "people": 2}, {"room": "quiet", "people": 1}]


@pytest.mark.parametrize(
    "request_",
    [
        {"type": "leave"},
        {"type": "say", "text": "hi"},
        {"type": "history", "before": 9},
        {"type": "typing", "on": True},
    ],
)
async def test_a_room_one_is_not_in_cannot_be_used(request_: dict[str, Any]) -> None:
    async with chatting() as (server, _):
        await Person.come(server, "Bob", "tea")
        ada = await Person.come(server, "Ada", "lobby")
        assert (await ada.ask(room="tea", **request_))["code"] == "not_joined"


async def test_joining_twice_is_refused_and_changes_nothing() -> None:
    async with chatting() as (server, _):
        ada = await Person.come(server, "Ada", "lobby")
        assert (await ada.ask("join", room="LOBBY"))["code"] == "already_joined"
        await ada.ask("say", room="lobby", text="once")
        assert await ada.hear(1) == [("Ada", "once")]


async def test_nobody_is_in_too_many_rooms() -> None:
    async with chatting(rooms_per_connection=2) as (server, _):
        ada = await Person.come(server, "Ada", "one", "two")
        assert (await ada.ask("join", room="three"))["code"] == "too_many_rooms"
        await ada.ask("leave", room="one")
        assert (await ada.ask("join", room="three"))["type"] == "joined"


async def test_typing_is_told_to_the_others_only() -> None:
    async with chatting() as (server, _):
        ada = await Person.come(server, "Ada", "lobby")
        bob = await Person.come(server, "Bob", "lobby")
        assert (await ada.ask("typing", room="lobby", on=True))["type"] == "ok"
        assert (await ada.ask("typing", room="lobby", on=False))["type"] == "ok"
        assert await bob.event() == {"type": "typing", "room": "lobby", "name": "Ada", "on": True}
        assert await bob.event() == {"type": "typing", "room": "lobby", "name": "Ada", "on": False}
        assert [event["type"] for event in ada.events] == ["entered"]


async def test_ping_is_answered_before_hello_too() -> None:
    async with chatting() as (server, _):
        person = Person(await connect(server, "/ws/chat", subprotocol="superchat"))
        assert (await person.ask("ping"))["type"] == "pong"


# Mistakes


@pytest.mark.parametrize(
    ("message", "code", "re"),
    [
        ("{", "malformed", None),
        (b"\x00", "malformed", None),
        ([1], "malformed", None),
        ({"type": "dance", "id": "d"}, "unknown_type", "d"),
        ({"type": "say", "id": "s", "room": "lobby"}, "invalid", "s"),
        ({"id": "n"}, "invalid", "n"),
    ],
)
async def test_a_mistake_is_answered_and_the_connection_goes_on(message: Any, code: str, re: Any) -> None:
    async with chatting() as (server, _):
        ada = await Person.come(server, "Ada", "lobby")
        await ada.send(message)
        answer = await ada.answer()
        assert (answer["type"], answer["code"], answer["re"]) == ("error", code, re)
        await ada.ask("say", room="lobby", text="still here")
        assert await ada.hear(1) == [("Ada", "still here")]


async def test_two_clients_that_make_mistakes_in_different_orders_never_see_each_others_answers() -> None:
    mistakes: list[Any] = [
        "{",
        {"type": "dance"},
        {"type": "join", "room": "no spaces"},
        {"type": "say", "room": "elsewhere", "text": "x"},
        {"type": "hello", "version": 1, "name": "Zed"},
        {"type": "name", "name": "Bob"},
    ]
    async with chatting() as (server, _):
        people = {name: await Person.come(server, name, "lobby") for name in ("Ada", "Bob")}
        answers: dict[str, list[Any]] = {"Ada": [], "Bob": []}

        async def err(name: str, order: list[Any]) -> None:
            person = people[name]
            for number, mistake in enumerate(order):
                marked = mistake if isinstance(mistake, str) else {**mistake, "id": f"{name}{number}"}
                await person.send(marked)
                answers[name].append(await person.answer())
                await person.send({"type": "say", "room": "lobby", "text": f"{name}{number}", "id": "say"})
                answers[name].append(await person.answer())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(err, "Ada", mistakes)
            nursery.start_soon(err, "Bob", [*reversed(mistakes)][:-1])
        for name, count in (("Ada", 6), ("Bob", 5)):
            ids = [answer["re"] for answer in answers[name]]
            assert all(id is None or id == "say" or id.startswith(name) for id in ids), ids
            assert ids[1::2] == ["say"] * count
            assert all(answer["type"] in ("error", "named") for answer in answers[name][::2])
        for person in people.values():
            heard = await person.hear(11)
            assert [text for speaker, text in heard if speaker == "Ada"] == [f"Ada{n}" for n in range(6)]
            assert all(event["type"] in ("entered", "messages", "renamed") for event in person.events)


async def test_a_flood_is_refused_with_the_requests_id_and_then_ended_with_1008() -> None:
    async with chatting(rate=Rate(per_second=0.001, burst=3, tolerance=2)) as (server, _):
        ada = await Person.come(server, "Ada", "lobby")  # takes two
        assert (await ada.ask("ping"))["type"] == "pong"
        answer = await ada.ask("say", room="lobby", text="too soon")
        assert answer["code"] == "rate_limited"
        assert answer["retry_after"] > 0
        await ada.send("{")
        assert (await ada.answer())["re"] is None
        await ada.send({"type": "ping"})
        await ada.peer.read_to_end()
        assert ada.peer.closed is not None
        assert ada.peer.closed.code == 1008
        assert ada.events == []  # what was refused was not said


async def test_a_flood_of_one_is_not_felt_by_another() -> None:
    async with chatting(rate=Rate(per_second=0.001, burst=5, tolerance=2)) as (server, _):
        ada = await Person.come(server, "Ada", "lobby")
        bob = await Person.come(server, "Bob", "lobby")
        for _ in range(10):
            await ada.send({"type": "ping"})
        await ada.peer.read_to_end()
        await bob.ask("say", room="lobby", text="calm")
        assert await bob.hear(1) == [("Bob", "calm")]


# The slow


async def test_a_member_that_never_reads_is_closed_with_1013_and_delays_nobody() -> None:
    slow = SlowPolicy(max_bytes=2000)
    async with chatting(limits=Limits(outbox_bytes=2000), slow=slow) as (server, chat):
        stuck = await Person.come(server, "Stuck", "lobby")
        ada = await Person.come(server, "Ada", "lobby")
        for number in range(20):
            await ada.ask("say", room="lobby", text=f"{number:0500}")
        assert [int(text) for _, text in await ada.hear(20)] == list(range(20))
        assert (await ada.event("left"))["name"] == "Stuck"
        await stuck.peer.read_to_end()
        assert stuck.peer.closed is not None
        assert stuck.peer.closed.code == 1013
        assert "lobby" in chat.rooms or chosen().workers > 1


async def test_a_client_that_does_not_read_its_answers_is_not_served_more() -> None:
    async with chatting(limits=Limits(outbox_bytes=2000)) as (server, _):
        ada = await Person.come(server, "Ada", "lobby")
        for _ in range(200):
            await ada.send({"type": "rooms", "id": "x" * 60})
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(200):
            assert (await ada.answer())["re"] == "x" * 60


async def test_an_answer_that_waits_for_room_still_comes_before_the_rooms_events() -> None:
    async with chatting(limits=Limits(outbox_bytes=600)) as (server, chat):
        ada = await Person.come(server, "Ada")
        for _ in range(20):
            await ada.send({"type": "rooms", "id": "x" * 60})
        await ada.send({"type": "join", "id": "join", "room": "lobby"})
        await trio.testing.wait_all_tasks_blocked()
        await chat.say("lobby", "before or after", name="Clock")
        for _ in range(20):
            await ada.answer()
        await chat.say("lobby", "and this", name="Clock")
        joined = await ada.answer()
        assert ada.events == []
        heard = texts(joined)
        while len(heard) < 2:
            heard += texts(await ada.event("messages"))
        assert heard == ["before or after", "and this"]


async def test_events_that_others_send_are_json_objects_of_known_types() -> None:
    async with chatting() as (server, _):
        ada = await Person.come(server, "Ada", "lobby")
        bob = await Person.come(server, "Bob", "lobby")
        await bob.ask("typing", room="lobby", on=True)
        await bob.ask("say", room="lobby", text="\u2028 </script> \U0001f98a \u202e")
        await bob.ask("name", name="Robert")
        await bob.leave()
        types = [(await ada.event())["type"] for _ in range(5)]
        assert types == ["entered", "typing", "messages", "renamed", "left"]
        assert json.dumps(ada.events) == "[]"


@only("one process")  # with Redis, time cannot be virtual
async def test_a_client_that_does_not_say_hello_in_time_is_closed(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superchat, "HELLO_SECONDS", 4.0)
    async with chatting() as (server, _):
        silent = Person(await connect(server, "/ws/chat", subprotocol="superchat"))
        ada = await Person.come(server, "Ada")
        start = trio.current_time()
        for _ in range(3):
            await trio.sleep(1)
            assert (await silent.ask("ping"))["type"] == "pong"
        await silent.peer.read_to_end()
        assert silent.peer.closed is not None
        assert (silent.peer.closed.code, silent.peer.closed.reason) == (1008, "no hello within 4 seconds")
        assert trio.current_time() - start == pytest.approx(4, abs=0.5)
        await trio.sleep(2)
        assert (await ada.ask("ping"))["type"] == "pong"


@only("one process", "redis")  # each process counts for itself
async def test_reconnecting_gets_around_no_rate() -> None:
    rate = Rate(per_second=0.001, burst=5)
    async with chatting(rate=rate, address_rate=Rate(per_second=0.001, burst=20)) as (server, _):
        answered = 0
        for _ in range(10):
            person = Person(await connect(server, "/ws/chat", subprotocol="superchat"))
            try:
                while (await person.ask("ping"))["type"] == "pong":
                    answered += 1
                await person.leave()
            except AssertionError:
                assert person.peer.closed is not None
                assert person.peer.closed.reason == "too many requests from your address"
        assert answered == 20 - 4  # a connection counts as a request


@only("one process", "redis")
@pytest.mark.parametrize("subprotocol", ["superchat", "chat"])
async def test_an_address_has_so_many_connections_and_no_more(subprotocol: str) -> None:
    async with chatting(connections_per_address=2) as (server, _):
        peers = [await connect(server, "/ws/chat", subprotocol=subprotocol) for _ in range(3)]
        await peers[2].read_to_end()
        assert peers[2].closed is not None
        assert peers[2].closed.reason == "too many connections from your address"
        await peers[0].close()
        await peers[0].read_to_end()
        again = await connect(server, "/ws/chat", subprotocol=subprotocol)
        await again.send(json.dumps({"type": "ping", "id": 1}))
        assert await again.receive()
