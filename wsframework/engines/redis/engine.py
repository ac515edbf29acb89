"""Rooms across processes and machines, carried by Redis or Valkey.

Theory of operation
-------------------
    Carrier     connects, again and again; each connection is a `Link`
    watch       looks for messages whose time is over, and for rooms whose keys need to live longer
    lease       extends the node's lease, and removes the members of nodes that are gone

Messages go out through `Outgoing` and come back through the `Feed` of their room, also to the members of this
process, so all nodes have Redis' order. `Own` and `Copy` do the same for presence.

Everything goes over one connection, so that the order of what is sent and of what arrives needs no further
care: a room is subscribed before a message of its new member is stored, and a history contains whatever was
published before it was read.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import ssl as ssl_module
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from threading import get_ident
from typing import Any

import trio

from wsframework.engines.redis.address import parse_address
from wsframework.engines.redis.carrier import Carrier
from wsframework.engines.redis.codec import Command, LinkLost, RedisError
from wsframework.engines.redis.commands import Commands
from wsframework.engines.redis.counters import Counters, RedisStatistics
from wsframework.engines.redis.leases import Leases
from wsframework.engines.redis.link import Link
from wsframework.engines.redis.names import Names, Script
from wsframework.engines.redis.outgoing import PUBLISH, Expiries, Outgoing, Publication
from wsframework.engines.redis.places import Place, encode_envelope, new_tag
from wsframework.engines.redis.presence import Own
from wsframework.engines.redis.subscriptions import HISTORY, MEMBERS, Subscriptions
from wsframework.engines.running import shown
from wsframework.errors import ConfigurationError, RoomUnavailable, WrongThread
from wsframework.records import record, record_failure
from wsframework.rooms import Engine, History, Position, Replay, RoomMessage, Subscriber

__all__ = ["RedisEngine"]

_LOOK_SECONDS = 0.1
"""How often what is due is looked for."""

_PRESENCE, _REAP, _LEASE = (Script.load(name) for name in ("presence", "reap", "lease"))
_SCRIPTS = (PUBLISH, HISTORY, MEMBERS, _PRESENCE, _REAP, _LEASE)


class RedisEngine(Engine):
    """Rooms that are the same in all processes that use one Redis (6.2 or newer) or Valkey.

        engine = RedisEngine("redis://localhost")
        rooms = Rooms(engine=engine)
        app.install(engine)

    All members of a room get its messages in one order, that of Redis. Each message comes once, or its loss
    is reported before any later message (`Room(gap=…)`): after a lost connection, the engine reads what was
    missed from the room's history.

    Args:
        url: `redis://[user:password@]host[:port][/database]`, `rediss://` for TLS, `unix:///path`, or
            `redis+sentinel://[user:password@]host[:port][,host[:port]…]/master[/database]` for a server that
            sentinels know by the name `master`; `rediss+sentinel://` if it and they speak TLS. The parameters
            `?sentinel_username=…&sentinel_password=…` are for logging in at the sentinels.
        prefix: what all keys and channels begin with. Programs with different prefixes do not meet.
        history: what is kept of a room that has no `History` of its own; it is also what a lost connection
            can be mended with. None keeps nothing of these rooms. Messages may be kept longer than this
            says, up to twice the time and 100 messages more.
        outage: seconds for which messages wait for a server that is not there.
        timeout: seconds after which a server that owes an answer counts as gone.
        queue_messages: how many messages wait for Redis at most.
        queue_bytes: how much memory they take at most.
        lease: seconds after which the members of a killed process are no longer present.
        ssl: the context for TLS; the system's certificates by default.

    Raises:
        ConfigurationError: the URL or a number is none.
    """

    def __init__(
        self,
        url: str = "redis://127.0.0.1",
        *,
        prefix: str = "ws",
        history: History | None = History(),  # noqa: B008 - it is frozen
        outage: float = 5.0,
        timeout: float = 2.0,
        queue_messages: int = 4096,
        queue_bytes: int = 8 * 1024 * 1024,
        lease: float = 15.0,
        ssl: ssl_module.SSLContext | None = None,
    ) -> None:
        times = {"outage": outage, "timeout": timeout, "lease": lease}
        for name, value in {**times, "queue_messages": queue_messages, "queue_bytes": queue_bytes}.items():
            if not 0 < value < float("inf"):
                raise ConfigurationError(f"RedisEngine({name}={value}): it must be more than 0, and finite")
        self.node = secrets.token_hex(8)
        self.address = parse_address(url, ssl)
        self._names = Names(prefix)
        self._keep = history
        self.outage = outage
        self.lease = lease
        self._timeout = timeout
        self._counters = Counters()
        self._expiries = Expiries()
        self._outgoing = Outgoing(queue_messages, queue_bytes, self._wake, self._counters.gave_up)
        self._own = Own(self._wake)
        self._leases = Leases(self.node, self._names, lease, self._own, (_LEASE, _REAP))
        scripts = [script.text for script in _SCRIPTS]
        self._carrier = Carrier(
            self.address,
            timeout,
            scripts,
            self._trials(prefix),
            begin=self._begin,
            end=lambda: self._rooms.end(),
            fill=self._fill,
            pushed=self._pushed,
        )
        self.commands = Commands(prefix, self._carrier, scripts, outage, self._check, self._counters)
        self._rooms = Subscriptions(
            self._names, self._carrier, self._counters, history, self._own, self.commands.pushed
        )
        self._process = os.getpid()
        self._thread: int | None = None
        self._clock: trio.abc.Clock | None = None
        self._numbers = 0
        self._lost_told = 0

    def _trials(self, prefix: str) -> list[Command]:
        probe = f"{prefix}:probe"
        return [self._leases.command, ("SUBSCRIBE", probe), ("UNSUBSCRIBE", probe), ("PUBLISH", probe, "")]

    def __repr__(self) -> str:
        return f"<RedisEngine {self.address}, {'up' if self._carrier.link else 'down'}>"

    def statistics(self) -> RedisStatistics:
        """Return the engine's counters; also in another thread."""
        waited = 0.0
        if self._clock is not None:
            waited = self._clock.current_time() + self.outage - self._outgoing.oldest_due
        return RedisStatistics(
            up=self._carrier.link is not None,
            generation=self._carrier.generation,
            queued=len(self._outgoing),
            queued_bytes=self._outgoing.bytes,
            queued_seconds=max(0.0, waited),
            lag_seconds=None if self._outgoing.early is None else self.outage - self._outgoing.early,
            lost=self._counters.lost,
            deduplicated=self._outgoing.deduplicated,
            replayed=self._counters.replayed,
            duplicates=self._counters.duplicates,
            gaps=dict(self._counters.gaps),
            malformed=self._counters.malformed,
            rooms=len(self._rooms),
        )

    # Its life

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Carry rooms within the context.

        Raises:
            ConfigurationError: the server cannot be reached, refuses the login, or is none that it can use;
                or the process is a fork of the one that made the engine.

        Cancellation: what is queued is still sent, for at most `timeout`.
        """
        if self._thread is not None:
            raise RuntimeError("this RedisEngine runs already; each program needs one of its own")
        if self._process != os.getpid():
            # Redis would take the messages of two processes for one another.
            raise ConfigurationError("this RedisEngine was made before a fork: make it in the new process")
        try:
            link = await self._carrier.open()
        except LinkLost as error:
            raise ConfigurationError(str(error)) from None
        self._thread = get_ident()
        self._clock = trio.lowlevel.current_clock()
        try:
            async with trio.open_nursery() as nursery:
                ending = trio.Event()
                nursery.start_soon(self._carry, link, ending)
                try:
                    with shown(self.statistics):
                        yield
                finally:
                    ending.set()
        finally:
            self._thread = None
            self._outgoing.end("the engine has ended")
            self._rooms.clear()

    async def _carry(self, link: Link, ending: trio.Event) -> None:
        """Work until the context ends, and send what is queued then.

        Cancellation: shielded from it, because handlers send their last words while a server drains.
        """
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._carrier.run, link)
                nursery.start_soon(self._watch)
                nursery.start_soon(self._extend_lease)
                await ending.wait()
                await self._finish()
                nursery.cancel_scope.cancel(reason="the engine ends")

    async def _finish(self) -> None:
        """Send what is queued, and end the lease; bounded by the timeout."""
        with trio.move_on_after(self._timeout):
            while self._outgoing or self._own.unsaid or self._carrier.unanswered:  # noqa: ASYNC110
                await trio.sleep(0.005)
            if self._carrier.link is not None:
                await self._leases.end(self._carrier.link)

    def _begin(self, link: Link) -> None:
        """Continue over a new connection."""
        self._expiries.clear()
        self._rooms.begin(link)
        self._leases.begin(link)
        self._outgoing.begin_again()
        self.commands.begin(link)

    async def _watch(self) -> None:
        """Do what is due."""
        look = 0
        while True:
            await trio.sleep(_LOOK_SECONDS)
            now, look = trio.current_time(), look + 1
            if self._outgoing.oldest_due <= now:
                self._outgoing.expire(now, f"{self.address} did not take it within {self.outage:g} s")
            if look % 10 == 0:
                self._counters.go_on()
            if look % 10 == 0 and self._counters.lost != self._lost_told:
                count, self._lost_told = self._counters.lost - self._lost_told, self._counters.lost
                record(logging.ERROR, "redis.lost", messages=count)
            if look % 50 == 0 and self._carrier.link is not None:
                self._rooms.touch(self._carrier.link, now)

    async def _extend_lease(self) -> None:
        while True:
            await trio.sleep(self._leases.seconds / 3 * random.uniform(0.9, 1))
            if self._carrier.link is not None:
                try:
                    await self._leases.extend(self._carrier.link)
                except Exception as error:  # a stranger's node: the rooms go on
                    record_failure(error)

    # What goes out

    def _wake(self) -> None:
        self._carrier.wake()

    def _fill(self, link: Link) -> None:
        """Hand messages and changes of presence to a connection."""
        while link.has_room and (change := self._own.changes()) is not None:
            self._leases.tell(link, self._rooms.key(change[0]), *change, _PRESENCE)
        for batch in self._outgoing.batches():
            link.ask(batch.command(self._names, self.node, self._expiries), batch)
        # The replies to what is in flight make room for the rest, and wake the task.

    def _queue(self, publication: Publication, exclude: Collection[str]) -> None:
        self._check("room.broadcast")
        self._outgoing.add(publication)
        if exclude:
            feed = self._rooms.feed(publication.room)
            if feed is not None:
                feed.exclude(publication.tag, exclude)
        self._carrier.wake()

    def _publication(
        self, room: str, message: RoomMessage, history: History | None, key: str | None
    ) -> Publication:
        room_key = self._rooms.key(room)
        self._numbers += 1
        return Publication(
            room=room,
            key=room_key,
            number=self._numbers,
            tag=new_tag(),
            envelope=encode_envelope(message),
            keep=history or self._keep,
            name=None if key is None else self._names.publication(room_key, key),
            due=trio.current_time() + self.outage,
        )

    def _pushed(self, push: Sequence[Any]) -> None:
        self._rooms.pushed(push)

    # What rooms call

    def _check(self, what: str) -> None:
        if self._thread is None:
            raise ConfigurationError(
                "the RedisEngine of this room does not run: write app.install(engine) before the app serves"
            )
        if get_ident() != self._thread:
            raise WrongThread(what)

    def subscribe(self, room: str, subscriber: Subscriber) -> None:
        """Start to deliver a room's messages, those from the moment on at which Redis has confirmed it.

        Raises:
            ConfigurationError: the engine does not run.
        """
        self._check("room.join")
        self._rooms.add(room, subscriber)

    async def wait_subscribed(self, room: str) -> None:
        """Wait until Redis has confirmed the subscription.

        Raises:
            RoomUnavailable: it did not within `outage`.

        Cancellation: nothing is left behind.
        """
        with trio.move_on_after(self.outage):
            while (feed := self._rooms.feed(room)) is not None:
                await feed.settled()
                if self._rooms.feed(room) is feed:
                    await trio.lowlevel.checkpoint()
                    return
        await trio.lowlevel.checkpoint_if_cancelled()
        raise RoomUnavailable(f"{self.address} did not subscribe within {self.outage:g} s")

    def unsubscribe(self, room: str) -> None:
        """Stop to deliver them."""
        self._rooms.remove(room)

    def broadcast(
        self, room: str, message: RoomMessage, exclude: Collection[str], history: History | None
    ) -> int:
        """Queue a message; return 0."""
        self._queue(self._publication(room, message, history, None), exclude)
        return 0

    async def publish(
        self,
        room: str,
        message: RoomMessage,
        exclude: Collection[str],
        history: History | None,
        key: str | None,
    ) -> Position:
        """Store a message; return its position when Redis has confirmed it.

        Raises:
            RoomUnavailable: it was not stored within `outage`, or Redis refuses it.

        Cancellation: a message that was sent may be stored nevertheless.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        publication = self._publication(room, message, history, key)
        publication.done = trio.Event()
        self._queue(publication, exclude)
        try:
            await publication.done.wait()
        finally:
            self._outgoing.give_up(publication)
        if isinstance(publication.outcome, RoomUnavailable):
            raise publication.outcome
        assert publication.outcome is not None
        return str(publication.outcome)

    async def history(self, room: str, after: Position, history: History | None) -> Replay:
        """Return the messages after a position.

        Raises:
            RoomUnavailable: Redis did not answer within `outage`.

        Cancellation: nothing is left behind.
        """
        place = Place.parse(after)
        with trio.move_on_after(self.outage):
            while (feed := self._rooms.feed(room)) is not None:
                await feed.settled()
                tail = feed.begin_tail()
                try:
                    page = await self._rooms.page(feed, place)
                    # From here to the return there is no checkpoint.
                    if page is not None and feed.is_settled and self._rooms.feed(room) is feed:
                        return feed.replay(place, page, tail)
                finally:
                    feed.end_tail(tail)
        await trio.lowlevel.checkpoint_if_cancelled()
        raise RoomUnavailable(f"{self.address} did not return the history within {self.outage:g} s")

    def position(self, room: str) -> Position | None:
        """Return the position of the newest message that was delivered here; None while it is not known."""
        feed = self._rooms.feed(room)
        return None if feed is None or feed.place is None else str(feed.place)

    def enter(self, room: str, member: str, data: Any) -> None:
        """Tell all nodes of a member, or of its new data."""
        self._check("room.join")
        self._own.enter(room, member, data)

    def leave(self, room: str, member: str) -> None:
        """Tell them that it has left."""
        self._own.leave(room, member)

    def present(self, room: str) -> Mapping[str, Any]:
        """Return the data of all members everywhere, as far as this process has heard of them.

        Empty for a room without members in this process.
        """
        copy = self._rooms.copy(room)
        return {} if copy is None else dict(copy.members)

    def presence_stale(self, room: str) -> bool:
        """Return whether Redis is away, or the members were not read yet."""
        copy = self._rooms.copy(room)
        return copy is None or not copy.known

    async def count(self, room: str) -> int:
        """Ask Redis how many members a room has.

        Raises:
            RoomUnavailable: it does not answer within `outage`, or refuses.

        Cancellation: nothing is left behind.
        """
        self._check("room.count")
        try:
            fields = await self.commands.call("HLEN", self._names.members(self._rooms.key(room)))
        except RedisError as error:
            raise RoomUnavailable(f"{self.address} cannot count: {error}") from None
        return max(0, int(fields) - 1)  # one field is the version
