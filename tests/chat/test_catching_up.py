"""What a client that comes back gets, when it is more than a page."""

from __future__ import annotations

import pytest

from tests.chat.people import Person, texts
from tests.chat.serving import chatting
from wsframework.chat.history import MISSED_MESSAGES, PAGE_MESSAGES

pytestmark = pytest.mark.usefixtures("form")


async def test_what_was_missed_comes_page_by_page_and_live_messages_behind_it() -> None:
    async with chatting() as (server, chat):
        said = [str(number) for number in range(2 * PAGE_MESSAGES + 10)]
        for text in said:
            await chat.say("lobby", text, name="Clock")
        ada = await Person.come(server, "Ada")
        log = (await ada.ask("join", room="elsewhere"))["log"]
        page = await ada.ask("join", room="lobby", after=5, log=log)
        assert (page["complete"], page["rest"], page["last"]) == (True, True, 5 + PAGE_MESSAGES)
        await chat.say("lobby", "live", name="Clock")
        assert await ada.hear(1) == [("Clock", "live")]
        seen, last = texts(page), page["last"]
        while True:
            page = await ada.ask("history", room="lobby", after=last)
            assert page["complete"]
            seen += texts(page)
            last = page["messages"][-1]["id"]
            if not page["more"]:
                break
        assert seen == [*said[5:], "live"]


async def test_a_client_that_fell_behind_while_it_catches_up_is_told() -> None:
    async with chatting() as (server, chat):
        ada = await Person.come(server, "Ada", "lobby")
        for number in range(MISSED_MESSAGES + 1):
            await chat.say("lobby", str(number), name="Clock")
        page = await ada.ask("history", room="lobby", after=0)
        assert (page["complete"], page["more"], page["messages"]) == (False, False, [])
        one_less = await ada.ask("history", room="lobby", after=1)
        assert (one_less["complete"], len(one_less["messages"])) == (True, PAGE_MESSAGES)


async def test_history_goes_one_way() -> None:
    async with chatting() as (server, _):
        ada = await Person.come(server, "Ada", "lobby")
        for wrong in ({}, {"after": -1}, {"before": "1"}):
            assert (await ada.ask("history", room="lobby", **wrong))["code"] == "invalid"
