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

import math
import secrets
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from hashlib import blake2b

import attrs
import trio

from wsframework import Close, Connection, Member, Rooms, RoomUnavailable
from wsframework.chat import protocol
from wsframework.chat.attendance import Attendance
from wsframework.chat.history import MISSED_MESSAGES, PAGE_MESSAGES
from wsframework.chat.house import PAGE_PEOPLE, PAGE_ROOMS, BadCursor, People
from wsframework.chat.messages import Draft, HistoryError, Message, Missed, Page
from wsframework.chat.names import NAME_CHARS, ROOM_CHARS, NameTaken
from wsframework.chat.presence import CROWD
from wsframework.chat.protocol import Refusal, answer, event
from wsframework.chat.rate import Rate, Visit, Visitors
from wsframework.chat.transcript import Recording, Transcript

__all__ = ["Conversation", "Superchat", "messages_event"]

_SECRET_CHARS = len(secrets.token_urlsafe(16))

HELLO_SECONDS = 10.0
"""How long a client has for its hello, from its connection on."""


@attrs.frozen(eq=False)
class Superchat:
    """What all conversations of a chat share.

    Attributes:
        rooms: who hears whom.
        presence: who is called what, and who is in which room.
        journal: what was said.
        rate: how fast a client may be.
        visitors: who is connected, and counts their requests.
        rooms_per_connection: how many rooms a client may be in.
    """

    rooms: Rooms
    presence: Attendance
    journal: Transcript
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
    scope: AsyncExitStack


class Conversation:
    """One connection's life in the chat: a `Guest`.

    Attributes:
        token: what the client shows when it comes back.
        holder: what the attendance calls it.
        over: set when it has departed.
    """

    def __init__(self, chat: Superchat, ws: Connection, visit: Visit) -> None:
        self._chat = chat
        self._ws = ws
        self._visit = visit
        self._name: str | None = None
        self.token = ""
        self.holder = ""
        self.over = trio.Event()
        self._sender = ""
        self._memberships: dict[str, _Membership] = {}
        self._scope = trio.CancelScope()
        self._ending: Close | None = None
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
            self._chat.presence.depart(self)
            self.over.set()
        if self._greeting.cancelled_caught:
            raise Close(1008, f"no hello within {HELLO_SECONDS:g} seconds")
        if self._scope.cancelled_caught and self._ending is not None:
            raise self._ending

    def end(self, close: Close) -> None:
        """End the conversation with a close code, soon; the first one counts."""
        self._ending = self._ending or close
        self._scope.cancel(reason=close.reason)

    def member(self, room: str) -> Member | None:
        """Return the membership of a room, if it has one."""
        membership = self._memberships.get(room)
        return None if membership is None else membership.member

    async def _handle(self, message: str | bytes) -> None:
        wait = self._visit.take(trio.current_time())
        if self._visit.exhausted:
            raise Close(1008, "too many requests")
        try:
            request = self._admit(message, wait)
            try:
                await self._do(request)
            except (HistoryError, RoomUnavailable) as error:
                if isinstance(error, RoomUnavailable) and isinstance(request, protocol.Hello | protocol.Join):
                    raise  # closes with 1013: a client that comes back begins with these
                # The log says why; clients need not know.
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
                self._membership(request)
                self._chat.presence.typing(self, request.room, request.on)
                await self._ws.send(answer(request.id, "ok"))
            case protocol.ListPeople() | protocol.ListRooms():
                await self._list(request)

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
        self.token, self._sender = _token(request.token)
        try:
            await self._chat.presence.claim(self, request.name, request.token)
        except NameTaken as taken:
            raise _name_taken(taken, request.name, request.id) from None
        self._name = request.name
        self._greeting.deadline = math.inf
        await self._ws.send(
            answer(
                request.id,
                "welcome",
                version=protocol.VERSION,
                name=self._name,
                token=self.token,
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
            try:
                await self._chat.presence.rename(self, request.name)
            except NameTaken as taken:
                raise _name_taken(taken, request.name, request.id) from None
            self._name = request.name
            for membership in self._memberships.values():
                membership.member.data = request.name
        await self._ws.send(answer(request.id, "named", name=request.name))

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
        if request.after is not None and request.log == journal.log:
            await journal.reach(request.after)
        with journal.recording(room) as recording:
            missed = await self._missed(request, recording)
            if missed is not None and missed.complete:
                # What is recorded comes behind a gap if there is more: it is in the rest.
                rest, page = missed.more, Page(missed.messages, more=False)
            else:
                rest, page = False, await journal.newest(room, upto=recording.upto)
            people = await self._chat.presence.enter(self, room)
            # From here to the commit of the answer nothing else runs: it ends where the room's events begin.
            if not rest:
                page = attrs.evolve(page, messages=(*page.messages, *recording.messages))
            scope = AsyncExitStack()
            member = await scope.enter_async_context(self._chat.rooms[room].join(self._ws, name))
            self._memberships[room] = _Membership(member, scope)
            await self._ws.send(
                answer(
                    request.id,
                    "joined",
                    room=room,
                    complete=missed is None or missed.complete,
                    rest=rest,
                    last=page.messages[-1].id if rest else journal.last_id,
                    log=journal.log,
                    **_people(people, "people_cursor"),
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
        return await journal.after(request.room, after, upto=recording.upto)

    async def _history(self, request: protocol.History) -> None:
        self._membership(request)
        journal, room, before, after = self._chat.journal, request.room, request.before, request.after
        if after is None:
            page, complete = await journal.newest(room, upto=(before or 0) - 1), True
        else:
            await journal.reach(after)
            missed = await journal.after(room, after, upto=journal.last_id)
            page, complete = Page(missed.messages, more=missed.more), missed.complete
        await self._ws.send(answer(request.id, "history", room=room, complete=complete, **_page(page)))

    async def _list(self, request: protocol.ListPeople | protocol.ListRooms) -> None:
        try:
            if isinstance(request, protocol.ListPeople):
                self._membership(request)
                people = await self._chat.presence.people(request.room, request.cursor)
                reply = answer(request.id, "people", room=request.room, **_people(people))
            else:
                rooms = await self._chat.presence.rooms(request.cursor)
                listed = [{"room": room, "people": people} for room, people in rooms.rooms]
                reply = answer(request.id, "rooms", rooms=listed, cursor=rooms.cursor)
        except BadCursor as error:
            raise Refusal("invalid", str(error), request.id, field="cursor") from None
        await self._ws.send(reply)

    def _membership(self, request: protocol.InRoom) -> Member:
        if request.room not in self._memberships:
            raise Refusal("not_joined", f"you are not in the room {request.room!r}", request.id)
        return self._memberships[request.room].member

    async def _leave(self, room: str) -> None:
        """Leave a room and tell it. Waits for nothing, so no cancellation can come in between."""
        await self._memberships.pop(room).scope.aclose()
        self._chat.presence.leave(self, room)

    async def _say(self, request: protocol.Say, name: str) -> None:
        self._membership(request)
        draft = Draft(request.room, name, request.text, request.key, self._sender, self.holder)
        message = await self._chat.journal.append(draft)
        await self._ws.send(
            answer(request.id, "said", room=message.room, message=message.id, time=message.time)
        )


def messages_event(room: str, messages: Iterable[Message]) -> str:
    """Encode the event that tells a room its new messages."""
    return event("messages", room=room, messages=[_message(message) for message in messages])


def _name_taken(taken: NameTaken, name: str, re: protocol.RequestId) -> Refusal:
    return Refusal("name_taken", f"somebody is called {name!r} already", re, suggestion=taken.suggestion)


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
