"""A session as a handler uses it: from `async with sessions.open(…) as session`.

Theory of operation
-------------------
A session is a record in a store, and at any time at most one connection has claimed it. A new connection that
shows the session's token takes it: the store gives the claim a higher generation, and refuses what the former
claim still writes. So of two connections that resume at once one holds the session in the end, and the other
one is closed, as is a connection whose client has left without a word.

What the record holds is written when it changes, and returned from there when a client resumes. Nothing is
written when a connection ends: a process may be killed before.
"""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager
from threading import get_ident
from types import TracebackType
from typing import Any

import attrs
import trio

from wsframework.closes import CloseFrame
from wsframework.connection import Connection
from wsframework.errors import Close, ConnectionClosed, TooManyRooms, WrongThread
from wsframework.records import record
from wsframework.rooms import Member, Position, Room
from wsframework.rooms.addresses import name_of_room
from wsframework.sessions.record import decode_body, encode_body
from wsframework.sessions.statistics import SessionCounters
from wsframework.sessions.store import SessionClaim, SessionStore
from wsframework.sessions.tokens import Token, digest_of_user

__all__ = ["Session", "SessionTerms"]


@attrs.frozen(kw_only=True)
class SessionTerms:
    """What all sessions of a program have in common; see `Sessions`."""

    store: SessionStore
    window: float
    overlap: float
    record_bytes: int
    rooms: int
    counters: SessionCounters = attrs.field(factory=SessionCounters)


class Session:
    """A session that a connection holds.

    Attributes:
        ws: the connection.
        resumed: whether the client's token was good: `data` and `rooms` are those of before.
    """

    def __init__(
        self, terms: SessionTerms, ws: Connection, token: Any, user: str | int | None, data: Any
    ) -> None:
        self.ws = ws
        self.resumed = False
        self._terms = terms
        self._shown = Token.parse(token)
        self._user = digest_of_user(user)
        self._data = data
        # By their addresses.
        self._rooms: tuple[str, ...] = ()
        # Rooms of before that were not joined again.
        self._absent: set[str] = set()
        self._gap = False
        # Whether no token but the newest is valid.
        self._confirmed = True
        self._token: Token | None = None
        self._claim: SessionClaim | None = None
        # One change of the record at a time.
        self._writing = trio.Lock()

    def __repr__(self) -> str:
        return f"<Session {self.id if self._token else 'not open'} of {self.ws!r}>"

    @property
    def id(self) -> str:
        """A random text that stays the same when the session is resumed. It is no secret."""
        return self._opened().id

    @property
    def token(self) -> str:
        """What the client resumes with: send it to the client. It is another one after each resume."""
        return str(self._opened())

    @property
    def data(self) -> Any:
        """The program's data, as they were saved; JSON. To change them, call `save`."""
        return self._data

    @property
    def rooms(self) -> tuple[str, ...]:
        """The names of the rooms that were joined with `join` and not left; on a resume, those of before.

        The rooms of users are not listed.
        """
        names = map(name_of_room, self._rooms)
        return tuple(name for name in names if name is not None)

    @property
    def recovered(self) -> bool:
        """Whether the client has lost nothing: read it after joining the rooms.

        True if the session was resumed, each of its rooms of before was joined again (or left with `leave`),
        and none of them has lost messages that the client missed. What was sent with `ws.send` does not
        count: the session does not know it. Nor does what a store has lost of `data` and cannot know: see
        its documentation.
        """
        return self.resumed and not self._absent and not self._gap

    def _opened(self) -> Token:
        if self._token is None:
            raise RuntimeError("the session is not open: write async with sessions.open(…) as session")
        return self._token

    # Its life

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Session:
        if self._token is not None:
            raise RuntimeError("a session is opened once: call sessions.open again")
        self._check("sessions.open")
        if self.ws.closed is not None:
            # It may be an attempt that the client has given up, and its next one may have the session.
            raise ConnectionClosed(self.ws.closed)
        counters = self._terms.counters
        if self._shown is not None and await self._resume(self._shown):
            counters.resumed += 1
        else:
            await self._create()
            counters.created += 1
            counters.refused += self._shown is not None
        counters.open += 1
        return self

    async def _create(self) -> None:
        token = Token.new()
        claim = self._claim_for(token)
        claim.body = encode_body(self._data, (), self._terms.record_bytes)
        await self._terms.store.create(claim)
        self._token, self._claim = token, claim
        self._data, _ = decode_body(claim.body)

    async def _resume(self, shown: Token) -> bool:
        token = Token.new(shown.id)
        claim = self._claim_for(token)
        if not await self._terms.store.resume(claim, shown.digest):
            return False
        try:
            data, rooms = decode_body(claim.body)
        except ValueError as error:
            # Who can write to a database can write anything.
            self._terms.store.release(claim)
            record(logging.ERROR, "session.malformed", session=shown.id, error=str(error))
            return False
        self._token, self._claim = token, claim
        self._data, self._rooms, self._absent = data, tuple(rooms), set(rooms)
        self.resumed, self._confirmed = True, False
        return True

    def _claim_for(self, token: Token) -> SessionClaim:
        terms = self._terms
        claim = SessionClaim(token.id, self._user, token.digest, window=terms.window, overlap=terms.overlap)
        claim.on_taken = self._taken
        return claim

    def _taken(self) -> None:
        self._terms.counters.taken += 1
        frame = CloseFrame(4409, "another connection has resumed the session")
        self.ws.endpoint.start_close(frame, "another connection has resumed its session")

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, *_: object) -> None:
        self._terms.counters.open -= 1
        claim, self._claim = self._claim, None
        if claim is not None:
            # The record may stay for long, and must not keep the connection.
            claim.on_taken = None
            self._terms.store.release(claim)

    def _check(self, verb: str) -> None:
        if get_ident() != self.ws.endpoint.thread:
            raise WrongThread(verb)

    def _held(self) -> SessionClaim:
        """Return the claim, if it still holds.

        Raises:
            RuntimeError: the block was left, or the session was ended.
            ConnectionClosed: another connection has resumed the session.
        """
        if self._claim is None:
            raise RuntimeError("the session has ended, or its block was left")
        if self._claim.taken:
            assert self.ws.closed is not None
            raise ConnectionClosed(self.ws.closed)
        return self._claim

    # Changes

    async def save(self, data: Any) -> None:
        """Store the session's data; they are stored when this returns.

        Args:
            data: JSON: None, bool, int, float, str, list and dict. They are copied.

        Raises:
            TypeError: the data are not JSON.
            ValueError: the record would be larger than `Sessions(record_bytes=…)`.
            ConnectionClosed: another connection has resumed the session, and this one is closed.
            SessionUnavailable: they were not stored, or it is not known whether they were.
            WrongThread: this is not the server's thread.

        Cancellation: they may have been stored.
        """
        self._check("session.save")
        async with self._writing:
            await self._write(data, self._rooms)

    async def confirm(self) -> None:
        """Let the token that the client has resumed with be valid no longer.

        It stays valid for `Sessions(overlap=…)` seconds, because the new one may be lost with the connection.
        Call this when the client has shown that it has the new token, for example after each message: only
        the first call asks the store. Then an older attempt to connect, which the client has given up and
        which arrives late, cannot take the session from this connection.

        Raises:
            ConnectionClosed, SessionUnavailable, WrongThread: as for `save`.

        Cancellation: it may have been done.
        """
        self._check("session.confirm")
        claim = self._held()
        if self._confirmed:
            await trio.lowlevel.checkpoint_if_cancelled()
            return
        await self._terms.store.confirm(claim)
        self._held()
        self._confirmed = True

    async def end(self) -> None:
        """Remove the session, for example when its user logs out: its tokens are valid no longer.

        The connection stays open. `save`, `confirm` and `join` raise `RuntimeError` afterwards.

        Raises:
            ConnectionClosed, SessionUnavailable, WrongThread: as for `save`.

        Cancellation: it may have been done.
        """
        self._check("session.end")
        async with self._writing:
            await self._terms.store.end(self._held())
            self._held()
            self._claim = None

    def join(
        self, room: Room, data: Any = None, *, after: Position | None = None
    ) -> AbstractAsyncContextManager[Member]:
        """Join a room as `room.join(ws, data, after=after)` does, and keep its name in the session's record.

        When the block is left while the connection is open, the room's name is removed from the record, which
        may raise `SessionUnavailable`. It stays there if the connection has ended, the server stops, or an
        exception leaves the block, so that the client can come back.

        Args:
            room: the room.
            data: what others may know of this member.
            after: the client's last position, which the client has to send. Without it, a room in which the
                client was before counts as one that lost messages.

        Raises:
            TooManyRooms: the session is in as many rooms as `Sessions(rooms=…)` allows.
            Close: the record has no place for the room's name. A handler that lets it through ends its
                connection with 1008.
            ConnectionClosed, SessionUnavailable: as for `save`.
            RuntimeError, TypeError, WrongThread, RoomUnavailable: as for `room.join`.

        Cancellation:
            Cancelled means not a member; the record may have the room.
        """
        return _SessionMember(self, room, data, after)

    async def enter(self, room: Room, data: Any = None, *, after: Position | None = None) -> Member:
        """Become a member as `room.enter(ws, data, after=after)` does, until `leave` or the connection's end.

        It is for programs in which messages of the client say what it subscribes to.

        Args:
            room: as for `join`.
            data: as for `join`.
            after: as for `join`.

        Raises:
            Exception: as for `join`.

        Cancellation:
            Cancelled means not a member; the record may have the room.
        """
        was_there = await self._add(room.address)
        member = await room.enter(self.ws, data, after=after)
        self._joined(member, was_there)
        return member

    async def leave(self, member: Member | Room) -> None:
        """Leave a room, and remove its name from the session's record.

        Args:
            member: from `enter`; or a room in which the client was before and is not to be any more. It does
                not count for `recovered` then.

        Raises:
            ConnectionClosed, SessionUnavailable, WrongThread: as for `save`. It has left nevertheless.

        Cancellation:
            It has left; the record may still have the room.
        """
        if isinstance(member, Member):
            member.leave()
            room = member.room
        else:
            self._check("session.leave")
            room = member
        await self._remove(room.address)
        self._absent.discard(room.address)

    async def _write(self, data: Any, rooms: tuple[str, ...]) -> None:
        claim = self._held()
        body = encode_body(data, rooms, self._terms.record_bytes)
        await self._terms.store.save(claim, body)
        self._held()
        self._data, self._rooms = decode_body(body)[0], rooms

    async def _add(self, room: str) -> bool:
        """Put a room into the record; return whether the client was there before."""
        self._check("session.join")
        async with self._writing:
            self._held()
            if room not in self._rooms:
                if len(self._rooms) >= self._terms.rooms:
                    raise TooManyRooms(self._terms.rooms)
                try:
                    await self._write(self._data, (*self._rooms, room))
                except ValueError:
                    # Clients choose their rooms, nearly always.
                    raise Close(1008, "the session's record has no place for another room") from None
        return room in self._absent

    async def _remove(self, room: str) -> None:
        async with self._writing:
            if self._claim is not None:
                await self._write(self._data, tuple(name for name in self._rooms if name != room))

    def _joined(self, member: Member, was_there: bool) -> None:
        # None: the client has not said what it had.
        complete = not was_there if member.missed is None else not member.missed
        self._absent.discard(member.room.address)
        self._gap = self._gap or not complete


class _SessionMember:
    """A membership of which the session's record knows."""

    def __init__(self, session: Session, room: Room, data: Any, after: Position | None) -> None:
        self._session = session
        self._room = room
        self._join = room.join(session.ws, data, after=after)

    async def __aenter__(self) -> Member:
        was_there = await self._session._add(self._room.address)
        member = await self._join.__aenter__()
        self._session._joined(member, was_there)
        return member

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._join.__aexit__(kind, error, trace)
        ws = self._session.ws
        if error is None and ws.closed is None and not ws.draining:
            await self._session._remove(self._room.address)
