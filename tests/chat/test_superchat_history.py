"""What a superchat remembers, and tells those who come back."""

from __future__ import annotations

import sqlite3
import threading

import pytest
import trio
import trio.testing

from tests.chat.forms import only
from tests.chat.people import Person, texts
from tests.chat.serving import chatting
from wsframework.chat.history import HistoryStore
from wsframework.chat.journal import Journal
from wsframework.chat.messages import Draft, Message
from wsframework.chat.plugin import Chat

pytestmark = pytest.mark.usefixtures("form")


def store_of(chat: Chat) -> HistoryStore:
    assert isinstance(chat._journal, Journal)
    return chat._journal._store


async def test_whoever_joins_sees_the_newest_messages_and_can_go_back() -> None:
    async with chatting() as (server, chat):
        for number in range(120):
            await chat.say("lobby", str(number), name="Clock")
        ada = await Person.come(server, "Ada")
        joined = await ada.ask("join", room="lobby")
        assert texts(joined) == [str(number) for number in range(70, 120)]
        assert (joined["more"], joined["complete"], joined["last"]) == (True, True, 120)
        page = await ada.ask("history", room="lobby", before=joined["messages"][0]["id"])
        assert (texts(page), page["more"]) == ([str(number) for number in range(20, 70)], True)
        page = await ada.ask("history", room="lobby", before=page["messages"][0]["id"])
        assert (texts(page), page["more"]) == ([str(number) for number in range(20)], False)


async def test_whoever_comes_back_gets_exactly_what_they_missed() -> None:
    async with chatting() as (server, chat):
        ada = await Person.come(server, "Ada")
        joined = await ada.ask("join", room="lobby")
        await chat.say("lobby", "seen", name="Clock")
        seen = (await ada.event("messages"))["messages"][0]["id"]
        await ada.leave()
        for text in ("missed", "and this"):
            await chat.say("lobby", text, name="Clock")
            await chat.say("tea", "elsewhere", name="Clock")
        ada = await Person.come(server, "Ada")
        back = await ada.ask("join", room="lobby", after=seen, log=joined["log"])
        assert (texts(back), back["complete"]) == (["missed", "and this"], True)
        assert back["last"] == 5
        bob = await Person.come(server, "Bob")
        again = await bob.ask("join", room="lobby", after=joined["last"], log=joined["log"])
        assert texts(again) == ["seen", "missed", "and this"]
        await ada.leave()
        ada = await Person.come(server, "Ada")
        nothing = await ada.ask("join", room="lobby", after=back["last"], log=joined["log"])
        assert (texts(nothing), nothing["complete"]) == ([], True)


@pytest.mark.parametrize("case", ["too many", "another log", "no log", "from the future"])
async def test_whoever_missed_what_cannot_be_told_is_told_so_and_gets_the_newest(case: str) -> None:
    async with chatting() as (server, chat):
        ada = await Person.come(server, "Ada")
        joined = await ada.ask("join", room="lobby")
        await ada.ask("leave", room="lobby")
        for number in range(501 if case == "too many" else 5):
            await chat.say("lobby", str(number), name="Clock")
        since = {
            "too many": {"after": 0, "log": joined["log"]},
            "another log": {"after": 2, "log": "other"},
            "no log": {"after": 2},
            "from the future": {"after": 6, "log": joined["log"]},
        }[case]
        back = await ada.ask("join", room="lobby", **since)
        assert back["complete"] is False
        assert texts(back)[-1] == ("500" if case == "too many" else "4")
        assert len(back["messages"]) == (50 if case == "too many" else 5)


async def test_a_client_that_joins_while_others_talk_has_every_message_once_and_in_order() -> None:
    async with chatting() as (server, chat):
        stop = False

        async def talk() -> None:
            number = 0
            while not stop:
                await chat.say("lobby", str(number), name="Clock")
                number += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            ada = await Person.come(server, "Ada")
            last: int | None = None
            log = ""
            for _ in range(30):
                since = {} if last is None else {"after": last, "log": log}
                joined = await ada.ask("join", room="lobby", **since)
                assert joined["complete"]
                ids = [message["id"] for message in joined["messages"]]
                start = ids[0] - 1 if last is None and ids else last or 0
                assert ada.events == []  # the answer comes before the room's events
                ids += [message["id"] for message in (await ada.event("messages"))["messages"]]
                await ada.ask("leave", room="lobby")
                for event in ada.events:
                    ids += [message["id"] for message in event["messages"]]
                ada.events.clear()
                assert ids == list(range(start + 1, start + 1 + len(ids)))
                last, log = ids[-1], joined["log"]
            stop = True


async def test_a_message_said_again_with_its_key_is_said_once() -> None:
    async with chatting() as (server, _):
        ada = await Person.come(server, "Ada", "lobby")
        first = await ada.ask("say", room="lobby", text="once", key="k1")
        again = await ada.ask("say", room="lobby", text="once", key="k1")
        assert (first["message"], first["time"]) == (again["message"], again["time"])
        assert await ada.hear(1) == [("Ada", "once")]
        await ada.ask("ping")
        assert ada.events == []


async def test_a_key_is_its_senders_own_over_connections_and_names() -> None:
    async with chatting() as (server, _):
        ada = await Person.come(server, "Ada", "lobby")
        first = await ada.ask("say", room="lobby", text="mine", key="1")
        bob = await Person.come(server, "Bob", "lobby")
        assert (await bob.ask("say", room="lobby", text="Bob's", key="1"))["message"] > first["message"]
        await ada.leave()
        # Somebody else, who has the name now, or has made up a token.
        for hello in ({}, {"token": "x.y"}, {"token": "." + ada.token}):
            other = await Person.come(server, "Ada", "lobby", **hello)
            assert (await other.ask("say", room="lobby", text="not Ada's", key="1"))["message"] > first[
                "message"
            ]
            await other.leave()
        for _ in range(2):
            ada = await Person.come(server, "Ada", "lobby", token=ada.token)
            await ada.ask("name", name="Grace")
            assert (await ada.ask("say", room="lobby", text="mine", key="1"))["message"] == first["message"]
            await ada.leave()


async def test_messages_said_at_the_same_time_are_told_together_and_in_one_order() -> None:
    async with chatting() as (server, _):
        people = [await Person.come(server, f"P{number}", "lobby") for number in range(8)]

        async def talk(person: Person) -> None:
            for number in range(10):
                await person.ask("say", room="lobby", text=str(number))

        async with trio.open_nursery() as nursery:
            for person in people:
                nursery.start_soon(talk, person)
        orders = [await person.hear(80) for person in people]
        assert all(order == orders[0] for order in orders)
        for number in range(8):
            assert [text for name, text in orders[0] if name == f"P{number}"] == [str(n) for n in range(10)]


@only("one process")
async def test_nothing_is_told_before_it_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with chatting() as (server, chat):
        ada = await Person.come(server, "Ada", "lobby")
        gate = threading.Event()
        store = store_of(chat)
        append = store.append

        def wait(drafts: list[Draft]) -> list[tuple[Message, bool]]:
            assert gate.wait(30)
            return append(drafts)

        monkeypatch.setattr(store, "append", wait)
        await ada.send({"type": "say", "id": "s", "room": "lobby", "text": "safe?"})
        with trio.move_on_after(0.1) as waited:
            await ada.answer()
        assert waited.cancelled_caught
        assert ada.events == []
        gate.set()
        assert (await ada.answer())["type"] == "said"


@only("one process")
async def test_a_history_that_fails_is_answered_and_the_connection_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with chatting() as (server, chat):
        ada = await Person.come(server, "Ada", "lobby")
        writer = store_of(chat)._writer
        assert isinstance(writer, sqlite3.Connection)
        writer.execute("ALTER TABLE messages RENAME TO hidden")
        for request in ({"type": "say", "text": "lost"}, {"type": "history", "before": 9}):
            answer = await ada.ask(room="lobby", **request)
            assert (answer["code"], answer["type"]) == ("storage", "error")
            assert "messages" not in answer["message"]  # what SQLite says is not for clients
        assert (await ada.ask("join", room="tea"))["code"] == "storage"
        assert "no such table" in caplog.text
        writer.execute("ALTER TABLE hidden RENAME TO messages")
        assert (await ada.ask("join", room="tea"))["type"] == "joined"
        await ada.ask("say", room="lobby", text="works again")
        assert await ada.hear(1) == [("Ada", "works again")]
