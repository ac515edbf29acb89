"""Two workers of one chat, each with people of its own."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from tests.chat.forms import Form, workers_of
from tests.chat.people import Person
from tests.chat.serving import NO_LIMIT, Peer
from wsframework import Server
from wsframework.chat import Chat
from wsframework.chat.redis.attendance import SharedAttendance

__all__ = ["Talker", "Workers", "check", "talking", "until_free", "until_people"]


@attrs.frozen
class Workers:
    """Two workers.

    Attributes:
        first, second: their servers.
        chats: their chats.
        form: where their Redis is.
    """

    first: Server
    second: Server
    chats: list[Chat]
    form: Form

    def key(self, name: str) -> str:
        """The name of a key of the chat."""
        return f"{self.form.prefix}:{{chat}}:{name}"

    def node(self, number: int) -> str:
        """What Redis calls the first worker (0) or the second."""
        attendance = self.chats[number]._presence
        assert isinstance(attendance, SharedAttendance)
        return attendance._node


@asynccontextmanager
async def talking(
    *urls: str, options: dict[str, Any] | None = None, **engine_options: Any
) -> AsyncIterator[Workers]:
    """Serve a chat from two workers.

    Args:
        urls: of the Redis of each, or of both.
        options: of the chat.
        engine_options: of the engines.
    """
    form = Form(2, list(urls) if len(urls) == 2 else [*urls, *urls])
    chosen = {"rate": NO_LIMIT, **(options or {})}
    async with workers_of(form, None, chosen, **engine_options) as (servers, chats):
        with trio.fail_after(30):
            yield Workers(servers[0], servers[1], chats, form)


async def until_free(server: Server, name: str, seconds: float = 20) -> Person:
    """Ask for a name until it is free; return who has it then."""
    person = await Person.come(server, f"somebody who wants {name}"[:32])
    with trio.fail_after(seconds):
        while (await person.ask("name", name=name))["type"] != "named":  # noqa: ASYNC110 - it is elsewhere
            await trio.sleep(0.05)
    return person


async def until_people(person: Person, room: str, *names: str) -> None:
    """Wait until a room has these people."""
    with trio.fail_after(20):
        while sorted((await person.ask("people", room=room))["people"]) != sorted(names):  # noqa: ASYNC110
            await trio.sleep(0.05)


class Talker:
    """A client that says numbers until it is told to stop, and comes back as the page does."""

    def __init__(self, name: str, connect: Callable[[], Awaitable[Peer]]) -> None:
        self.name = name
        self.acknowledged: list[str] = []
        self.heard: dict[int, str] = {}
        self.anew = 0
        self._connect = connect
        self._peer: Peer | None = None
        self._token: str | None = None
        self._last: int | None = None
        self._log = ""

    async def run(self, stop: trio.Event) -> None:
        number = 0
        pending: str | None = None
        while not stop.is_set() or pending:
            try:
                person = await self._come()
                while not stop.is_set() or pending:
                    if pending is None:
                        pending, number = f"{self.name} {number}", number + 1
                    key = pending.replace(" ", "-")
                    answer = await person.ask("say", room="lobby", text=pending, key=key)
                    self._hear(person)
                    if answer["type"] == "said":
                        self.acknowledged.append(pending)
                        pending = None
                        # Slowly: whoever comes back a second later can be sent 500 messages and no more.
                        await trio.sleep(0.03)
                    else:
                        assert answer["code"] == "storage", answer
                        await trio.sleep(0.05)
            except (AssertionError, OSError, trio.BrokenResourceError) as error:
                ended = re.search("connection ended|no answer", str(error))
                if isinstance(error, AssertionError) and not ended:
                    raise
                await trio.sleep(0.05)
            finally:
                if self._peer is not None:
                    await trio.aclose_forcefully(self._peer.stream)

    async def _come(self) -> Person:
        self._peer = await self._connect()
        person = Person(self._peer)
        shown = {} if self._token is None else {"token": self._token}
        while True:
            welcome = await person.ask("hello", version=1, name=self.name, **shown)
            if welcome["type"] == "welcome":
                break
            assert welcome["code"] == "name_taken", welcome
            await trio.sleep(0.1)
        self._token = welcome["token"]
        since = {} if self._last is None else {"after": self._last, "log": self._log}
        joined = await person.ask("join", room="lobby", **since)
        assert joined["type"] == "joined", joined
        if not joined["complete"]:
            self.anew += 1
            self.heard.clear()
        self._log = joined["log"]
        self._take(joined["messages"])
        self._last = joined["last"]
        while joined.get("rest") or joined.get("more_to_read"):
            page = await person.ask("history", room="lobby", after=self._last)
            assert page["complete"], page
            self._take(page["messages"])
            self._last = page["messages"][-1]["id"]
            joined = {"more_to_read": page["more"]}
        self._hear(person)
        return person

    def _hear(self, person: Person) -> None:
        events, person.events = person.events, []
        for event in events:
            if event["type"] == "messages":
                self._take(event["messages"])
                self._last = max(self._last or 0, event["messages"][-1]["id"])

    def _take(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            assert self.heard.setdefault(message["id"], message["text"]) == message["text"]


async def check(talkers: list[Talker], late: Person) -> None:
    """Check that what was acknowledged is there, once, in order, for those who talked and who come late."""
    page = await late.ask("history", room="lobby", before=2**53 - 1)
    said, first = page["messages"], page
    while first["more"]:
        first = await late.ask("history", room="lobby", before=said[0]["id"])
        said = [*first["messages"], *said]
    everything = [message["text"] for message in said]
    assert len(everything) == len(set(everything))
    for talker in talkers:
        own = [text for text in everything if text.startswith(f"{talker.name} ")]
        assert own == talker.acknowledged
        assert own == [f"{talker.name} {number}" for number in range(len(own))]
        # What it heard has no hole, from the first message that it knows to the last.
        heard = {message["id"]: message["text"] for message in said}
        low, high = min(talker.heard), max(talker.heard)
        missing = [id for id in heard if low <= id <= high and id not in talker.heard]
        assert missing == []
        assert all(heard[id] == text for id, text in talker.heard.items())
