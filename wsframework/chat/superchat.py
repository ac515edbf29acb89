"""superchat's server side: what every request does, and to whom.

Theory of operation
-------------------
A `Superchat` is what all conversations share: the rooms, the names, the journal. A `Conversation` is one
connection: it reads one request after another and sends each its answer before it reads the next one, so a
client's requests take effect in its order, and one that does not read its answers is not served more.

Answers go to their connection alone; rooms are told *events*. A room's events are the same, in the same
order, for all its members. An answer may overtake an event; ids say what comes when.

Joining is the delicate part. What a client missed is read from the database while the room goes on, so the
room is recorded meanwhile (see `journal`). Then, without a checkpoint in between, the connection becomes a
member and the answer is committed: behind it come the room's events, from the very next one on.
"""

from __future__ import annotations

import hmac
import math
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from hashlib import blake2b
from typing import TypeVar

import attrs
import trio

from wsframework import Close, Connection, Member, Rooms
from wsframework.chat import protocol
from wsframework.chat.history import MISSED_MESSAGES, PAGE_MESSAGES
from wsframework.chat.house import PAGE_PEOPLE, PAGE_ROOMS, BadCursor, House, People, Seat
from wsframework.chat.journal import Journal, Recording
from wsframework.chat.messages import Draft, HistoryError, Message, Missed, Page
from wsframework.chat.names import NAME_CHARS, ROOM_CHARS, Names, NameTaken
from wsframework.chat.presence import CROWD, Presence
from wsframework.chat.protocol import Refusal, answer, event
from wsframework.chat.rate import Rate, Visit, Visitors

__all__ = ["Conversation", "Superchat", "messages_event"]

PageT = TypeVar("PageT")

_SECRET_CHARS = len(secrets.token_urlsafe(16))

HELLO_SECONDS = 10.0
"""How long a client has for its hello, from its connection on."""

TAKEN_OVER = 4409
"""The close code of a connection whose name has come back on another one; clients do not reconnect."""


@attrs.frozen(eq=False)
class Superchat:
    """What all conversations of a chat share.

    Attributes:
        rooms: who hears whom.
        presence: what they are told of their people.
        names: who is called what.
        journal: what was said.
        rate: how fast a client may be.
        visitors: who is connected, and counts their requests.
        rooms_per_connection: how many rooms a client may be in.
    """

    rooms: Rooms
    presence: Presence
    names: Names[Conversation]
    journal: Journal
    rate: Rate
    visitors: Visitors
    rooms_per_connection: int

    async def converse(self, ws: Connection) -> None:
        """Serve one connection. The handler of the subprotocol `superchat`.

        Raises:
            Close: as `Conversation.run`, or the client's address has too many connections.
        """
        with self.visitors.visit(ws.request.remote, trio.current_time()) as visit:
            await Conversation(self, ws, visit).run()


@attrs.frozen
class _Membership:
    member: Member
    seat: Seat
    scope: AsyncExitStack


class Conversation:
    """One connection's life in the chat."""

    def __init__(self, chat: Superchat, ws: Connection, visit: Visit) -> None:
        self._chat = chat
        self._ws = ws
        self._visit = visit
        self._name: str | None = None
        self._token = ""
        self._sender = ""
        self._memberships: dict[str, _Membership] = {}
        self._scope = trio.CancelScope()
        self._over = trio.Event()
        self._greeting = trio.CancelScope()

    async def run(self) -> None:
        """Answer requests until the connection ends.

        Raises:
            Close: the client flooded, did not say hello in time, or its name has come back on another
                connection.

        Cancellation:
            The rooms are left and the name is free, whatever ends it.
        """
        try:
            with self._scope, self._greeting:
                self._greeting.deadline = trio.current_time() + HELLO_SECONDS
                async for message in self._ws:
                    await self._handle(message)
        finally:
            for room in list(self._memberships):
                await self._leave(room)
            self._chat.names.release(self)
            self._over.set()
        if self._greeting.cancelled_caught:
            raise Close(1008, f"no hello within {HELLO_SECONDS:g} seconds")
        if self._scope.cancelled_caught:
            raise Close(TAKEN_OVER, "your name has come back on another connection")

    async def end(self) -> None:
        """End the conversation, for another connection of the same person.

        Cancellation: it ends all the same.
        """
        self._scope.cancel(reason="the same person has come back on another connection")
        await self._over.wait()

    def knows(self, token: str | None) -> bool:
        """Whether a token is the one this conversation was given."""
        return token is not None and hmac.compare_digest(token.encode(), self._token.encode())

    async def _handle(self, message: str | bytes) -> None:
        wait = self._visit.take(trio.current_time())
        if self._visit.exhausted:
            raise Close(1008, "too many requests")
        try:
            request = self._admit(message, wait)
            try:
                await self._do(request)
            except HistoryError:
                # The journal has logged why; that is no business of clients.
                raise Refusal(
                    "storage", "the server's history does not work now; try again later", request.id
                ) from None
        except Refusal as refusal:
            await self._ws.send(refusal.answer())

    def _admit(self, message: str | bytes, wait: float) -> protocol.Request:
        """Read a request; refuse it if it is none, or comes too soon. Either way its sender knows which."""
        if not wait:
            return protocol.parse(message)
        try:
            re = protocol.parse(message).id
        except Refusal as refusal:
            re = refusal.re
        raise Refusal("rate_limited", "too many requests; wait a moment", re, retry_after=round(wait, 3))

    async def _do(self, request: protocol.Request) -> None:
        if isinstance(request, protocol.Ping):
            await self._ws.send(answer(request.id, "pong", time=_now()))
            return
        if isinstance(request, protocol.Hello):
            await self._hello(request)
            return
        name = self._name
        if name is None:
            raise Refusal("hello_first", "say hello first: who are you?", request.id)
        match request:
            case protocol.Rename():
                await self._rename(request, name)
            case protocol.Join():
                await self._join(request, name)
            case protocol.Leave():
                self._membership(request)
                await self._leave(request.room)
                await self._ws.send(answer(request.id, "ok"))
            case protocol.Say():
                await self._say(request, name)
            case protocol.History():
                await self._history(request)
            case protocol.Typing():
                self._chat.presence.typing(self._membership(request), name, request.on)
                await self._ws.send(answer(request.id, "ok"))
            case protocol.ListPeople():
                self._membership(request)
                people = self._page_of(request, lambda house: house.people(request.room, request.cursor))
                await self._ws.send(answer(request.id, "people", room=request.room, **_people(people)))
            case protocol.ListRooms():
                rooms = self._page_of(request, lambda house: house.rooms(request.cursor))
                listed = [{"room": room, "people": people} for room, people in rooms.rooms]
                await self._ws.send(answer(request.id, "rooms", rooms=listed, cursor=rooms.cursor))

    # Names

    async def _hello(self, request: protocol.Hello) -> None:
        if self._name is not None:
            raise Refusal("already_greeted", "you have said hello; use 'name' for a new name", request.id)
        if request.version != protocol.VERSION:
            raise Refusal(
                "version",
                f"this server speaks version {protocol.VERSION} of superchat",
                request.id,
                versions=[protocol.VERSION],
            )
        while (ghost := self._chat.names.holder(request.name)) is not None and ghost.knows(request.token):
            # The same person, back before we noticed that they had left.
            await ghost.end()
        self._claim(request.name, request.id)
        self._name = request.name
        self._greeting.deadline = math.inf
        self._token, self._sender = _token(request.token)
        await self._ws.send(
            answer(
                request.id,
                "welcome",
                version=protocol.VERSION,
                name=self._name,
                token=self._token,
                log=self._chat.journal.log,
                time=_now(),
                limits={
                    "text_chars": protocol.MAX_TEXT_CHARS,
                    "name_chars": NAME_CHARS,
                    "room_chars": ROOM_CHARS,
                    "rooms": self._chat.rooms_per_connection,
                    "page_messages": PAGE_MESSAGES,
                    "page_people": PAGE_PEOPLE,
                    "page_rooms": PAGE_ROOMS,
                    "missed_messages": MISSED_MESSAGES,
                    "crowd": CROWD,
                    "requests_per_second": self._chat.rate.per_second,
                    "requests_burst": self._chat.rate.burst,
                },
            )
        )

    async def _rename(self, request: protocol.Rename, name: str) -> None:
        if request.name != name:
            self._claim(request.name, request.id)
            self._name = request.name
            memberships = self._memberships.values()
            for membership in memberships:
                membership.member.data = request.name
                self._chat.presence.house.rename(membership.seat, request.name)
            self._chat.presence.renamed([one.member for one in memberships], name, request.name)
        await self._ws.send(answer(request.id, "named", name=request.name))

    def _claim(self, name: str, re: protocol.RequestId) -> None:
        try:
            self._chat.names.claim(name, self)
        except NameTaken as error:
            raise Refusal(
                "name_taken", f"somebody is called {name!r} already", re, suggestion=error.suggestion
            ) from None

    # Rooms

    async def _join(self, request: protocol.Join, name: str) -> None:
        room = request.room
        if room in self._memberships:
            raise Refusal("already_joined", f"you are in the room {room!r}", request.id)
        if len(self._memberships) >= self._chat.rooms_per_connection:
            raise Refusal(
                "too_many_rooms", f"you are in {len(self._memberships)} rooms; leave one", request.id
            )
        journal = self._chat.journal
        with journal.recording(room) as recording:
            missed = await self._missed(request, recording)
            if missed is not None and missed.complete:
                # What is recorded comes behind a gap if there is more: it is in the rest.
                rest, page = missed.more, Page(missed.messages, more=False)
            else:
                rest, page = False, await journal.read(lambda store: store.newest(room, upto=recording.upto))
            if not rest:
                page = attrs.evolve(page, messages=(*page.messages, *recording.messages))
            # From here to the commit of the answer nothing else runs: it ends where the room's events begin.
            scope, presence = AsyncExitStack(), self._chat.presence
            member = await scope.enter_async_context(self._chat.rooms[room].join(self._ws, name))
            self._memberships[room] = _Membership(member, presence.house.enter(room, name), scope)
            presence.entered(member, name)
            await self._ws.send(
                answer(
                    request.id,
                    "joined",
                    room=room,
                    complete=missed is None or missed.complete,
                    rest=rest,
                    last=page.messages[-1].id if rest else journal.last_id,
                    log=journal.log,
                    **_people(presence.house.people(room), "people_cursor"),
                    **_page(page),
                )
            )

    async def _missed(self, request: protocol.Join, recording: Recording) -> Missed | None:
        """Read what a client that joins has missed; None if it has had nothing."""
        after, journal = request.after, self._chat.journal
        if after is None:
            return None
        if request.log != journal.log:
            return Missed((), complete=False, more=False)
        return await journal.read(lambda store: store.after(request.room, after, upto=recording.upto))

    async def _history(self, request: protocol.History) -> None:
        self._membership(request)
        journal, room, before, after = self._chat.journal, request.room, request.before, request.after
        if after is None:
            page = await journal.read(lambda store: store.before(room, before or 0))
            await self._ws.send(answer(request.id, "history", room=room, complete=True, **_page(page)))
        else:
            upto = journal.last_id
            missed = await journal.read(lambda store: store.after(room, after, upto=upto))
            page = Page(missed.messages, more=missed.more)
            await self._ws.send(
                answer(request.id, "history", room=room, complete=missed.complete, **_page(page))
            )

    def _membership(self, request: protocol.InRoom) -> Member:
        if request.room not in self._memberships:
            raise Refusal("not_joined", f"you are not in the room {request.room!r}", request.id)
        return self._memberships[request.room].member

    def _page_of(self, request: protocol.Request, page: Callable[[House], PageT]) -> PageT:
        try:
            return page(self._chat.presence.house)
        except BadCursor as error:
            raise Refusal("invalid", str(error), request.id, field="cursor") from None

    async def _leave(self, room: str) -> None:
        """Leave a room and tell it. Waits for nothing, so no cancellation can come in between."""
        membership = self._memberships.pop(room)
        await membership.scope.aclose()
        self._chat.presence.house.leave(membership.seat)
        self._chat.presence.left(membership.member, self._name or "")

    async def _say(self, request: protocol.Say, name: str) -> None:
        self._membership(request)
        draft = Draft(request.room, name, request.text, request.key, self._sender)
        message = await self._chat.journal.append(draft)
        await self._ws.send(
            answer(request.id, "said", room=message.room, message=message.id, time=message.time)
        )


def messages_event(room: str, messages: Iterable[Message]) -> str:
    """Encode the event that tells a room its new messages."""
    return event("messages", room=room, messages=[_message(message) for message in messages])


def _token(earlier: str | None) -> tuple[str, str]:
    """Return a new token, and the sender that it and the earlier one belong to.

    Its first part stays the same from one connection to the next: whoever knows it is the same sender. The
    database has a digest of it, from which nobody can make a token.
    """
    secret, _, rest = (earlier or "").partition(".")
    if len(secret) < _SECRET_CHARS or not rest:
        secret = secrets.token_urlsafe(16)
    return f"{secret}.{secrets.token_urlsafe(16)}", blake2b(secret.encode(), digest_size=16).hexdigest()


def _page(page: Page) -> dict[str, object]:
    return {"messages": [_message(message) for message in page.messages], "more": page.more}


def _message(message: Message) -> dict[str, object]:
    return {"id": message.id, "name": message.name, "text": message.text, "time": message.time}


def _people(people: People, cursor: str = "cursor") -> dict[str, object]:
    return {"people": people.names, "count": people.count, cursor: people.cursor}


def _now() -> int:
    return int(time.time() * 1000)
