"""One room's messages as they come from Redis: in order, once, or with a word about what is lost.

Theory of operation
-------------------
A `Feed` knows the place of the newest message that it delivered. What is published arrives with its place:

    the next offset of the epoch    it is delivered
    an offset that was delivered    it is dropped: a history brought it before
    anything else                   the feed reads the history from its place on

While it reads, it ignores what is published: all of that comes before the reply on the same connection, so
the history has it. The history is the same one if its entry at our offset has our tag. Then what follows is
delivered, and nothing was lost. Otherwise the loss is reported, and the feed continues after the newest one.

A new connection to Redis begins with reading the history of every feed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

import trio

from wsframework.crashes import interrupt_in
from wsframework.engines.redis.codec import RedisError
from wsframework.engines.redis.counters import Counters
from wsframework.engines.redis.places import (
    Entry,
    Malformed,
    Page,
    Place,
    decode_envelope,
    decode_page,
)
from wsframework.records import record, record_failure
from wsframework.rooms import Replay, RoomMessage, Subscriber

__all__ = ["NONE_YET", "Feed", "Reading", "contain"]

_MOST_EXCLUDED = 4096
"""Messages of ours on their way whose excluded members are remembered."""

NONE_YET = "-"
"""The epoch of a room whose state could not be stored, because Redis is out of memory."""


class Feed:
    """The messages of one room.

    Args:
        room: its name.
        key: what the names of its keys begin with.
        subscriber: gets its messages.
        read: asks Redis for the history from a place on (None: for the newest place only); its reply goes to
            the object given.
        counters: are added to.

    Attributes:
        place: of the newest message that was delivered; None until it is known.
        excluded: ids of members that do not get a message of ours, by its tag, until it is delivered.
        touched_at: when Redis was last told that the room is in use.
    """

    def __init__(
        self,
        room: str,
        key: bytes,
        subscriber: Subscriber,
        read: Callable[[Feed, Place | None, Any], object],
        counters: Counters,
    ) -> None:
        self.room = room
        self.key = key
        self.place: Place | None = None
        self.excluded: dict[str, Collection[str]] = {}
        self.touched_at = 0.0
        self._subscriber = subscriber
        self._read = read
        self._counters = counters
        self._reading = True
        self._settled = trio.Event()
        self._tails: list[list[Entry]] = []

    # Reading the history

    def begin(self) -> None:
        """Read what was missed, because there is a new connection, or a hole."""
        if not self._reading:
            self._settled = trio.Event()
        self._reading = True
        self._read(self, self.place, self)

    def replied(self, reply: Any) -> None:
        """Take a page of the history."""
        page = _page_of(self.room, reply, self._counters)
        place = self.place
        if place is None:
            self.place = page.newest
            self._settle()
            return
        reason = loss(place, page)
        if reason is None:
            for entry in page.entries:
                if entry.offset > place.offset:
                    self._counters.replayed += 1
                    self._deliver(page.newest.epoch, entry)
            if not page.ends:
                self._read(self, self.place, self)
                return
            if place.epoch == NONE_YET:
                self.place = page.newest
        else:
            self.place = page.newest
            self._lost(reason)
        self._settle()

    def lost(self) -> None:
        """Wait for the next connection, which begins again."""

    def _settle(self) -> None:
        self._reading = False
        self._settled.set()

    # What is published

    def published(self, epoch: str, entries: Sequence[Entry]) -> None:
        """Take messages that were published just now."""
        for entry in entries:
            place = self.place
            if self._reading or place is None:
                return
            if (entry.offset == place.offset + 1 and epoch == place.epoch) or (
                place.epoch == NONE_YET and entry.offset == 1
            ):
                self._deliver(epoch, entry)
            elif (
                epoch == place.epoch
                and entry.offset <= place.offset
                and (entry.offset < place.offset or entry.tag == place.tag)
            ):
                self._counters.duplicates += 1
            else:
                self.begin()

    def _deliver(self, epoch: str, entry: Entry) -> None:
        self.place = place = Place(epoch, entry.offset, entry.tag)
        for tail in self._tails:
            tail.append(entry)
        exclude = self.excluded.pop(entry.tag, ()) if self.excluded else ()
        try:
            self._subscriber.deliver(decode_envelope(entry.envelope), str(place), exclude)
        except Malformed as error:
            self._counters.skipped(self.room, error, position=str(place))
        except BaseException as error:  # a program's `stamp`, say: the other rooms go on
            contain(error, self._counters.failed)

    def exclude(self, tag: str, ids: Collection[str]) -> None:
        """Remember who does not get a message of ours."""
        if len(self.excluded) >= _MOST_EXCLUDED:
            self.excluded.pop(next(iter(self.excluded)))
        self.excluded[tag] = ids

    def _lost(self, reason: str) -> None:
        gaps = self._counters.gaps
        gaps[reason] = gaps.get(reason, 0) + 1
        self.excluded.clear()
        record(logging.WARNING, "room.gap", room=self.room, reason=reason)
        try:
            self._subscriber.lost(reason)
        except BaseException as error:  # a program's `gap` function
            contain(error)

    # For members that come back

    async def settled(self) -> None:
        """Wait until the place is known and no history is being read.

        Cancellation: nothing is left behind.
        """
        while self._reading:
            await self._settled.wait()

    @property
    def is_settled(self) -> bool:
        """Whether that is so."""
        return not self._reading

    def begin_tail(self) -> list[Entry]:
        """Return a list to which every message is added that is delivered from now on."""
        tail: list[Entry] = []
        self._tails.append(tail)
        return tail

    def end_tail(self, tail: list[Entry]) -> None:
        """Add no more to it."""
        self._tails = [other for other in self._tails if other is not tail]

    def replay(self, after: Place | None, page: Page, tail: Sequence[Entry]) -> Replay:
        """Return what followed a place, up to the newest message that was delivered.

        Args:
            after: the place.
            page: the history from it on.
            tail: what was delivered since it was asked for.
        """
        here = self.place
        assert here is not None
        if after is None or loss(after, page) is not None or here.epoch != after.epoch:
            return Replay([], str(here), complete=False)
        entries = [entry for entry in page.entries if after.offset < entry.offset <= here.offset]
        more = not page.ends
        if not more:
            newest = entries[-1].offset if entries else max(after.offset, page.newest.offset)
            entries += [entry for entry in tail if entry.offset > newest]
        messages: list[tuple[str, RoomMessage]] = []
        for entry in entries:
            try:
                messages.append(
                    (str(Place(here.epoch, entry.offset, entry.tag)), decode_envelope(entry.envelope))
                )
            except Malformed as error:
                self._counters.skipped(self.room, error)
        if more and entries:
            last = entries[-1]
            return Replay(messages, str(Place(here.epoch, last.offset, last.tag)), complete=True, more=True)
        return Replay(messages, str(here), complete=True)


def contain(error: BaseException, log: Callable[[BaseException], None] = record_failure) -> None:
    """Log what a program's function raised, SystemExit too, which must not end the engine of all rooms."""
    if interrupt_in(error) is not None:
        raise error  # it is about the whole program
    log(error)


def loss(place: Place, page: Page) -> str | None:
    """Return why a history does not contain everything after a place, or None if it does.

    Args:
        place: of the last message that is known.
        page: the history from its offset on.
    """
    newest, entries = page.newest, page.entries
    if place.epoch == NONE_YET:
        place = Place(newest.epoch, 0, "")
    if newest.epoch != place.epoch:
        return "epoch"
    if newest.offset < place.offset:
        return "regressed"
    if newest.offset == place.offset:
        return None if newest.tag == place.tag else "forked"
    if place.offset == 0:
        if place.tag:
            return "forked"
        return None if entries and entries[0].offset <= 1 and _contiguous(entries) else "trimmed"
    if not entries or entries[0].offset != place.offset:
        return "trimmed"
    if entries[0].tag != place.tag:
        return "forked"
    return None if _contiguous(entries) and len(entries) > 1 else "trimmed"


def _contiguous(entries: Sequence[Entry]) -> bool:
    return entries[-1].offset - entries[0].offset == len(entries) - 1


class Reading:
    """A history that a member reads which comes back.

    Args:
        room: the room's name.
        counters: are added to.

    Attributes:
        page: what came, or None: not yet, or the connection was lost.
        arrived: set when nothing more will come.
    """

    def __init__(self, room: str, counters: Counters) -> None:
        self._room = room
        self._counters = counters
        self.page: Page | None = None
        self.arrived = trio.Event()

    def replied(self, reply: Any) -> None:
        """Take the page."""
        self.page = _page_of(self._room, reply, self._counters)
        self.arrived.set()

    def lost(self) -> None:
        """Take note that there is none."""
        self.arrived.set()


def _page_of(room: str, reply: Any, counters: Counters) -> Page:
    """Return a page of a room's history; without anything, if an engine has not written what is there.

    Raises:
        RedisError: another connection may get it.
    """
    if isinstance(reply, RedisError) and reply.is_of_connection:
        raise reply
    try:
        return decode_page(reply)
    except Malformed as error:
        # Also when a key of this room holds something else: the other rooms go on.
        counters.skipped(room, error)
        return Page(Place(NONE_YET, 0, ""), ())
