"""The rooms that have members in this process: what arrives for them, and what is read for them."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import trio

from wsframework.engines.redis.carrier import Carrier, Ignored
from wsframework.engines.redis.codec import Command, pack
from wsframework.engines.redis.counters import Counters
from wsframework.engines.redis.feed import NONE_YET, Feed, Reading
from wsframework.engines.redis.link import Link, Replied
from wsframework.engines.redis.names import Names, Script
from wsframework.engines.redis.places import Malformed, Page, Place, decode_messages
from wsframework.engines.redis.presence import Copy, Own, Scan
from wsframework.rooms import History, Subscriber

__all__ = ["HISTORY", "MEMBERS", "Subscriptions"]

HISTORY, MEMBERS = Script.load("history"), Script.load("members")

_PAGE_MESSAGES = 500
_PAGE_BYTES = 256 * 1024
"""One reply's part of a history."""

_PAGE_MEMBERS = 200
"""The same of the members present, about."""

_FEW_MEMBERS = 10
"""The same when the data of some may be long."""

_PAGES_AT_ONCE = 16
"""Parts that are asked for and not read. Redis cuts a subscriber for which more than some megabytes wait
(`client-output-buffer-limit`); after a lost connection the histories and members of all rooms are more.
If the connection is lost while they are read, they are read one by one over the next one: the parts are
longer where a single message is."""

_PAUSE_SECONDS = 0.1
"""How soon a member that comes back asks again while there is no connection."""


class Subscriptions:
    """The feed and the copy of each room.

    Args:
        names: of keys.
        carrier: has the connection.
        counters: are added to.
        keep: what is kept of a room that has no history of its own.
        own: the members of this node.
        other: called with the channel and the message of a channel that is no room's.
    """

    def __init__(
        self,
        names: Names,
        carrier: Carrier,
        counters: Counters,
        keep: History | None,
        own: Own,
        other: Callable[[bytes, bytes], None],
    ) -> None:
        self._names = names
        self._carrier = carrier
        self._counters = counters
        self._own = own
        self._other = other
        # As long as the script `publish` keeps it.
        self._seconds = 660 if keep is None else max(660, round(2.2 * keep.seconds) + 60)
        self._keys: dict[str, bytes] = {}
        self._feeds: dict[bytes, Feed] = {}
        self._copies: dict[bytes, Copy] = {}
        self._unread: deque[_Page] = deque()
        self._reading = 0
        self._at_once = _PAGES_AT_ONCE

    def __len__(self) -> int:
        return len(self._feeds)

    def key(self, room: str) -> bytes:
        """Return what the names of a room's keys begin with."""
        return self._keys.get(room) or self._names.room(room)

    def feed(self, room: str) -> Feed | None:
        """Return the feed of a room, if it has members here."""
        return self._feeds.get(self.key(room))

    def copy(self, room: str) -> Copy | None:
        """Return the copy of who is present there."""
        return self._copies.get(self.key(room))

    def add(self, room: str, subscriber: Subscriber) -> None:
        """Subscribe to a room."""
        key = self._keys[room] = self._names.room(room)
        self._feeds[key] = feed = Feed(room, key, subscriber, self._read, self._counters)
        self._copies[key] = Copy(
            room,
            subscriber,
            lambda cursor, scan: self._read_members(key, cursor, scan),
            lambda missing: self._own.restore(room, missing),
            self._counters,
        )
        if self._carrier.link is not None:
            self._follow(self._carrier.link, feed)

    def remove(self, room: str) -> None:
        """End the subscription."""
        key = self._keys.pop(room, None)
        if key is None:
            return  # the engine has ended
        del self._feeds[key], self._copies[key]
        if self._carrier.link is not None:
            self._carrier.link.unsubscribe(key)

    def clear(self) -> None:
        """Forget all rooms."""
        self._feeds.clear()
        self._copies.clear()
        self._keys.clear()

    def begin(self, link: Link) -> None:
        """Subscribe to all rooms over a new connection, and read what was missed."""
        # If a part was longer than others, they may have been too much for Redis.
        self._at_once = 1 if self._reading else _PAGES_AT_ONCE
        unread, self._unread, self._reading = self._unread, deque(), 0
        for page in unread:
            page.lost()
        for feed in self._feeds.values():
            self._follow(link, feed)

    def end(self) -> None:
        """Take note that the connection is lost: what is known of members may be out of date."""
        for copy in list(self._copies.values()):
            copy.end()

    def _follow(self, link: Link, feed: Feed) -> None:
        link.subscribe(feed.key)
        feed.begin()
        self._copies[feed.key].begin()

    def touch(self, link: Link, now: float) -> None:
        """Keep the state of the rooms: a new one would look like a loss."""
        for feed in self._feeds.values():
            if now - feed.touched_at > self._seconds / 3:
                feed.touched_at = now
                link.ask(pack(self._history(feed, -1, "", "")), Ignored())

    def pushed(self, push: Sequence[Any]) -> None:
        """Take what arrived on a channel."""
        key, payload = push[1], push[2]
        feed = self._feeds.get(key)
        if feed is None:
            self._other(key, payload)
            return
        head, _, body = payload.partition(b"\n")
        try:
            if head[:2] == b"m ":
                feed.published(*decode_messages(head[2:], body))
            elif head[:2] == b"p ":
                self._copies[key].changed(head[2:], body)
            else:
                raise Malformed(f"a message of an unknown kind: {head[:40]!r}")
        except Malformed as error:
            self._counters.skipped(feed.room, error)

    async def page(self, feed: Feed, place: Place | None) -> Page | None:
        """Read the history from a place on, or a part of it; None if the connection was lost.

        Cancellation: nothing is left behind.
        """
        if self._carrier.link is None:
            await trio.sleep(_PAUSE_SECONDS)
            return None
        reading = Reading(feed.room, self._counters)
        has_gone = trio.Event()
        self._read(feed, place, reading, has_gone.is_set)
        try:
            await reading.arrived.wait()
        finally:
            has_gone.set()
        return reading.page

    def _read(
        self,
        feed: Feed,
        place: Place | None,
        waiting: Replied,
        has_gone: Callable[[], bool] = lambda: False,
    ) -> None:
        def command() -> Command:
            feed.touched_at = trio.current_time()
            if place is None:
                return self._history(feed, -1, "", "")
            return self._history(
                feed, place.offset, "" if place.epoch == NONE_YET else place.epoch, place.tag
            )

        def wanted() -> bool:
            return self._feeds.get(feed.key) is feed and not has_gone()

        self._unread.append(_Page(self, command, waiting, wanted))
        self._read_more()

    def _history(self, feed: Feed, offset: int, epoch: str, tag: str) -> Command:
        keys = (self._names.state(feed.key), self._names.history(feed.key))
        most = (_PAGE_MESSAGES, _PAGE_BYTES, self._seconds)
        return HISTORY.call(keys, secrets.token_hex(8), offset, *most, epoch, tag)

    def _read_members(self, key: bytes, cursor: bytes, scan: Scan) -> None:
        def command() -> Command:
            count = _PAGE_MEMBERS if self._at_once > 1 else _FEW_MEMBERS
            return (b"EVALSHA", MEMBERS.digest, 1, self._names.members(key), cursor, count)

        copy = self._copies.get(key)
        self._unread.append(_Page(self, command, scan, lambda: self._copies.get(key) is copy))
        self._read_more()

    def _read_more(self) -> None:
        """Ask for the next parts, if there is a connection; a new one begins with all of them."""
        link = self._carrier.link
        while link is not None and self._unread and self._reading < self._at_once:
            page = self._unread.popleft()
            if not page.wanted():
                page.lost()  # of a room that was left before its turn, or for a client that has gone
                continue
            self._reading += 1
            link.ask(pack(page.command()), page)

    def page_read(self) -> None:
        """Take note that a part was read."""
        self._reading -= 1
        self._read_more()
        if not self._reading:
            self._at_once = _PAGES_AT_ONCE


class _Page:
    """A part of a history, or of the members present, that is to be read."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        command: Callable[[], Command],
        waiting: Replied,
        wanted: Callable[[], bool],
    ) -> None:
        self.command = command
        self.wanted = wanted
        self._waiting = waiting
        self._subscriptions = subscriptions

    def replied(self, reply: Any) -> None:
        self._waiting.replied(reply)
        self._subscriptions.page_read()

    def lost(self) -> None:
        self._waiting.lost()
