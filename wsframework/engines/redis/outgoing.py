"""Messages on their way to Redis: a bounded queue, sent in order, and again after a lost connection.

Theory of operation
-------------------
Each message gets a number when it enters the queue, and keeps it. The script `publish` takes only numbers
above the newest one that it has of this node in the room, so a message that is sent again is stored once, and
nothing that an earlier connection still delivers can change the order.

A message leaves the queue with the reply, with an error that says it was not done, or when its time is over.
It is *unknown* then if it had been sent.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import attrs
import trio

from wsframework.engines.redis.codec import Command, LinkLost, RedisError, pack
from wsframework.engines.redis.names import Names, Script
from wsframework.engines.redis.places import Place
from wsframework.errors import RoomUnavailable
from wsframework.rooms import History

__all__ = ["PUBLISH", "Batch", "Expiries", "Outgoing", "Publication", "publish_command"]

PUBLISH = Script.load("publish")

_IN_FLIGHT = 256
"""Messages that are sent and not answered."""

_SMOOTHING = 1 / 8
"""The weight of a new sample (RFC 6298, section 2)."""

_OVERHEAD_BYTES = 256
"""What a message takes besides its envelope."""

_MOST_EXPIRIES = 64 * 1024
"""Rooms to which we published whose expiry is remembered."""

_MOST_EXPIRY_SECONDS = 600
"""How rarely an expiry is set, at the most: then the script notes the time too."""

_UNKEPT_SECONDS = 300
"""How long the state of a room lives that keeps no messages; twice that, see the script."""


@attrs.define(eq=False)
class Publication:
    """A message for Redis.

    Attributes:
        room: its name.
        key: what the names of its keys begin with.
        number: ascending at this node.
        tag: random.
        envelope: the message.
        keep: how much the room keeps, or None.
        name: the key for its place, if its publisher gave it one.
        due: when its time is over.
        sent: whether it may have reached Redis.
        done: set when it is settled; None for a broadcast.
        outcome: where it is, or why it is not; None before that.
    """

    room: str
    key: bytes
    number: int
    tag: str
    envelope: bytes
    keep: History | None
    name: bytes | None
    due: float
    sent: bool = False
    done: trio.Event | None = None
    outcome: Place | RoomUnavailable | None = None

    @property
    def size(self) -> int:
        """The memory that it takes, about."""
        return len(self.envelope) + _OVERHEAD_BYTES


class Batch:
    """Messages of one room that one call of the script stores."""

    def __init__(self, outgoing: Outgoing, first: Publication) -> None:
        self.publications = [first]
        self._outgoing = outgoing

    def takes(self, other: Publication) -> bool:
        """Whether the same call can store this one too."""
        first = self.publications[0]
        return first.name is None and other.name is None and first.keep == other.keep

    def command(self, names: Names, node: str, expiries: Expiries) -> bytes:
        """Return the call of the script."""
        first = self.publications[0]
        stored = [(each.number, each.tag, each.envelope) for each in self.publications]
        now = trio.current_time()
        return pack(publish_command(names, node, first.key, first.name, first.keep, expiries, stored, now))

    def replied(self, reply: Any) -> None:
        """Take the script's answer."""
        if isinstance(reply, RedisError):
            if reply.is_of_connection:
                raise LinkLost(str(reply))
            self._outgoing.refused(self, f"Redis cannot store it: {reply}", unknown=not reply.is_refusal)
            return
        self._outgoing.stored(self, reply[0].decode("ascii"), reply[1], reply[2:])

    def lost(self) -> None:
        """Wait for the next connection, over which it is sent again."""


class Outgoing:
    """The queue.

    Args:
        messages: the maximum number of messages.
        bytes: the maximum memory that they take.
        wake: called when there is room in flight for more.
        lost: called when a broadcast is given up.

    Attributes:
        deduplicated: messages that were sent again and were there already.
        bytes: the memory that the messages take.
        early: seconds that are left of a message's time when it is stored, smoothed; None before the first.
    """

    def __init__(self, messages: int, bytes: int, wake: Callable[[], None], lost: Callable[[], None]) -> None:
        self._most_messages = messages
        self._most_bytes = bytes
        self._wake = wake
        self._lost = lost
        self._waiting: deque[Publication] = deque()
        self._sent: deque[Batch] = deque()
        self._in_flight = 0
        self._count = 0
        self.deduplicated = 0
        self.bytes = 0
        self.early: float | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def oldest_due(self) -> float:
        """When the time of the oldest message is over; infinity if there is none."""
        return min((publication.due for publication in self._oldest()), default=float("inf"))

    def _oldest(self) -> Iterator[Publication]:
        for batch in self._sent:
            for publication in batch.publications:
                if publication.outcome is None:
                    yield publication
                    return
        for publication in self._waiting:
            if publication.outcome is None:
                yield publication
                return

    def add(self, publication: Publication) -> None:
        """Put a message into the queue.

        Raises:
            RoomUnavailable: it is full.
        """
        if publication.size > self._most_bytes:
            raise RoomUnavailable(
                f"a message of {len(publication.envelope) - 1} bytes is more than the queue takes"
            )
        if self._count >= self._most_messages or self.bytes + publication.size > self._most_bytes:
            raise RoomUnavailable(
                f"{self._count} messages of {self.bytes} bytes wait for Redis, and the queue takes no more"
            )
        self._count += 1
        self.bytes += publication.size
        self._waiting.append(publication)

    def give_up(self, publication: Publication) -> None:
        """Let go of a message whose publisher waits no longer; if it was sent, it may still be stored."""
        if publication.outcome is None and not publication.sent:
            self._settle(publication, RoomUnavailable("its publisher was cancelled"))

    def batches(self) -> list[Batch]:
        """Take messages to be sent now, at most as many as may be in flight."""
        batches: list[Batch] = []
        newest: dict[bytes, Batch] = {}
        while self._waiting and self._in_flight < _IN_FLIGHT:
            publication = self._waiting.popleft()
            if publication.outcome is not None:
                continue
            publication.sent = True
            self._in_flight += 1
            batch = newest.get(publication.key)
            if batch is not None and batch.takes(publication):
                batch.publications.append(publication)
            else:
                newest[publication.key] = batch = Batch(self, publication)
                batches.append(batch)
        self._sent += batches
        return batches

    def begin_again(self) -> None:
        """Send everything again that has no reply, because there is a new connection."""
        unanswered = [each for batch in self._sent for each in batch.publications if each.outcome is None]
        unanswered.sort(key=lambda publication: publication.number)
        self._waiting.extendleft(reversed(unanswered))
        self._sent.clear()
        self._in_flight = 0

    # What becomes of a message

    def stored(self, batch: Batch, epoch: str, known: int, places: list[Any]) -> None:
        """Settle the messages of a batch."""
        pairs = zip(places[::2], places[1::2], strict=True)
        found = [Place(epoch, int(offset), tag.decode("ascii")) for offset, tag in pairs]
        if len(found) != len(batch.publications):
            raise LinkLost(f"the server answered {len(batch.publications)} messages with {len(found)} places")
        # After an answer that makes no sense, the batch is sent again over another connection.
        self._answered(batch)
        early = batch.publications[0].due - trio.current_time()
        self.early = early if self.early is None else self.early + (early - self.early) * _SMOOTHING
        self.deduplicated += known
        for publication, place in zip(batch.publications, found, strict=True):
            self._settle(publication, place)

    def refused(self, batch: Batch, why: str, *, unknown: bool) -> None:
        """Settle them: they were not stored, or it is not known."""
        self._answered(batch)
        for publication in batch.publications:
            self._settle(publication, RoomUnavailable(why, unknown=unknown))

    def expire(self, now: float, why: str) -> None:
        """Settle the messages whose time is over."""
        for batch in self._sent:
            for publication in batch.publications:
                self._expire(publication, now, why)
        for publication in self._waiting:
            if publication.due > now and not publication.sent:
                break
            self._expire(publication, now, why)

    def _expire(self, publication: Publication, now: float, why: str) -> None:
        if publication.outcome is None and publication.due <= now:
            self._settle(publication, RoomUnavailable(why, unknown=publication.sent))

    def end(self, why: str) -> None:
        """Settle all: the engine ends."""
        self.expire(float("inf"), why)
        self._waiting.clear()

    def _answered(self, batch: Batch) -> None:
        # Replies come in the order of the commands.
        first = self._sent.popleft()
        assert first is batch
        self._in_flight -= len(batch.publications)
        if self._waiting:
            self._wake()

    def _settle(self, publication: Publication, outcome: Place | RoomUnavailable) -> None:
        if publication.outcome is not None:
            return
        publication.outcome = outcome
        self._count -= 1
        self.bytes -= publication.size
        if publication.done is not None:
            publication.done.set()
        elif isinstance(outcome, RoomUnavailable):
            self._lost()


class Expiries:
    """When each room's keys got their expiry: rarely, because setting it costs Redis as much as a message."""

    def __init__(self) -> None:
        self._set_at: dict[bytes, float] = {}

    def clear(self) -> None:
        """Set all of them again: the server may be another one."""
        self._set_at.clear()

    def due(self, key: bytes, keep: History | None, now: float) -> int:
        """Return the seconds for which to keep a room's history, or 0 if that need not be said again."""
        seconds = _UNKEPT_SECONDS if keep is None else max(1, round(keep.seconds * 1.1))
        if now - self._set_at.get(key, -seconds) <= min(seconds / 10, _MOST_EXPIRY_SECONDS):
            return 0
        if len(self._set_at) >= _MOST_EXPIRIES:
            self._set_at.clear()
        self._set_at[key] = now
        return seconds


def publish_command(
    names: Names,
    node: str,
    room: bytes,
    name: bytes | None,
    keep: History | Literal["room"] | None,
    expiries: Expiries,
    stored: Sequence[tuple[int, str, bytes]],
    now: float,
) -> Command:
    """Return the call of the script that stores messages of one room.

    Args:
        names: of keys.
        node: the publisher.
        room: what the names of the room's keys begin with.
        name: the key for the place of a message that has one of its own.
        keep: how much the room keeps; "room" if the publisher does not know.
        expiries: when they were set last.
        stored: number, tag and envelope of each message.
        now: monotonic seconds.
    """
    keys = [names.state(room), names.history(room)]
    if name is not None:
        keys.append(name)
    known = History() if keep == "room" else keep
    most = (0, 0) if known is None else (known.messages, known.bytes)
    if keep == "room":
        most = (-most[0], most[1])
    expire = expiries.due(room, known, now)
    messages: list[bytes | str | int] = [part for message in stored for part in message]
    head: Command = (b"EVALSHA", PUBLISH.digest, len(keys), *keys, node, secrets.token_hex(8), room)
    return (*head, *most, expire, *messages)
