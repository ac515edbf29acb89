"""Who is present: our own members, and a copy of everybody in the rooms that have members here.

Theory of operation
-------------------
A member's data are in the room's hash in Redis. Every change there has the room's next version and is
published, so the copies of all nodes follow. A copy that misses a version reads the whole hash again, in
parts: a room may have more members than a reply should. What is published meanwhile is applied to the result.

Each node has a lease, and extends it. When it is over, another node removes the members of that node, so that
they are gone even if it was killed. A node that finds its lease gone enters all its members again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from wsframework.engines.redis.codec import RedisError
from wsframework.engines.redis.counters import Counters
from wsframework.engines.redis.places import Malformed
from wsframework.records import record
from wsframework.rooms import Subscriber

__all__ = ["Copy", "Own", "Scan"]

_CHANGES_AT_ONCE = 256
_BYTES_AT_ONCE = 256 * 1024
"""Members that one call of the script changes, and their data. It tells all nodes of them in one message, and
Redis cuts each node for which more than some megabytes wait, which would tell of them again."""


class Own:
    """The members of this node, and which of them Redis has yet to be told.

    Args:
        wake: called when there is something to tell.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._rooms: dict[str, dict[str, bytes]] = {}
        # What changed, by room and member, and whether Redis has never been told of the member; what it
        # changed to is in `_rooms`.
        self._changed: dict[str, dict[str, bool]] = {}
        self._refused: dict[str, dict[str, None]] = {}

    @property
    def unsaid(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._changed)

    @property
    def rooms(self) -> Iterable[str]:
        """The rooms in which this node has members."""
        return self._rooms

    def enter(self, room: str, member: str, data: Any) -> None:
        """Add a member or change its data."""
        # `json` writes lone surrogates as escapes.
        encoded = json.dumps(data, separators=(",", ":")).encode()
        members, changed = self._rooms.setdefault(room, {}), self._changed.setdefault(room, {})
        changed.setdefault(member, member not in members)
        members[member] = encoded
        self._wake()

    def leave(self, room: str, member: str) -> None:
        """Remove a member."""
        members = self._rooms.get(room)
        if members is None or members.pop(member, None) is None:
            return
        if not members:
            del self._rooms[room]
        changed = self._changed.setdefault(room, {})
        if not changed.get(member):
            changed[member] = False
            self._wake()
            return
        # A client that subscribes and unsubscribes while Redis is away must not fill the memory.
        del changed[member]
        if not changed:
            del self._changed[room]

    def told(self) -> None:
        """Take note that Redis can take more."""
        if self._changed:
            self._wake()

    def all_again(self) -> None:
        """Tell Redis of every member again: its copy is gone."""
        for room, members in self._rooms.items():
            self.again(room, members)

    def again(self, room: str, members: Iterable[str]) -> None:
        """Tell Redis of these again: it is not known whether it heard."""
        self._changed.setdefault(room, {}).update(dict.fromkeys(members, False))

    def restore(self, room: str, members: Iterable[str]) -> None:
        """Tell Redis of these again: it has lost them."""
        present = self._rooms.get(room, {})
        if lost := [member for member in members if member in present]:
            self.again(room, lost)
            self._wake()

    def refused(self, room: str, members: Iterable[str], why: str) -> None:
        """Take note that Redis cannot store these now: it has no memory, say."""
        if not self._refused:
            record(logging.ERROR, "redis.presence_refused", room=room, error=why)
        self._refused.setdefault(room, {}).update(dict.fromkeys(members))

    def try_again(self) -> None:
        """Tell Redis again of those that it could not store."""
        refused, self._refused = self._refused, {}
        for room, members in refused.items():
            self.again(room, members)
        self.told()

    def changes(self) -> tuple[str, dict[str, bytes | None]] | None:
        """Take the changes of one room: the data of each member, or None if it has left."""
        if not self._changed:
            return None
        room, changed = next(iter(self._changed.items()))
        now = self._rooms.get(room, {})
        taken, size = list[str](), 0
        for member in changed:
            taken.append(member)
            size += len(now.get(member, b""))
            if len(taken) == _CHANGES_AT_ONCE or size >= _BYTES_AT_ONCE:
                break
        for member in taken:
            del changed[member]
        if not changed:
            del self._changed[room]
        return room, {member: now.get(member) for member in taken}


class Copy:
    """The members of one room at all nodes.

    Args:
        room: the room's name.
        subscriber: is told of changes.
        read: asks Redis for a part of the room's hash, from a cursor on; the reply goes to the object given.
        missing: called with members that a hash does not have any more, though nobody said that they left.
        counters: are added to.

    Attributes:
        known: whether all of it was read over the present connection.
    """

    def __init__(
        self,
        room: str,
        subscriber: Subscriber,
        read: Callable[[bytes, Scan], None],
        missing: Callable[[Iterable[str]], None],
        counters: Counters,
    ) -> None:
        self.room = room
        self.counters = counters
        self.known = False
        self._subscriber = subscriber
        self._read = read
        self._missing = missing
        self._scan: Scan | None = None
        self._version: tuple[str, int] = ("", 0)
        self._data: dict[str, Any] = {}

    @property
    def members(self) -> Mapping[str, Any]:
        """Their data by their ids, in the order in which they entered."""
        return self._data

    @property
    def is_settled(self) -> bool:
        """Whether they are known, and nothing is being read."""
        return self._scan is None

    def begin(self) -> None:
        """Read the members, because there is a new connection."""
        self._begin(lambda _: None)

    def end(self) -> None:
        """Take note that the connection is lost."""
        self.known = False
        self._subscriber.presence_read()

    def _begin(self, missing: Callable[[Iterable[str]], None]) -> None:
        self._scan = scan = Scan(self, missing)
        self._read(b"0", scan)

    def read(self, cursor: bytes, scan: Scan) -> None:
        """Take note that one part was read; read the next one, or use what was read."""
        if scan is not self._scan:
            return  # another one has begun
        if cursor != b"0":
            self._read(cursor, scan)
            return
        before, self._data = self._data, scan.result()
        self._version = scan.version
        self._scan = None
        self.known = True
        self._subscriber.presence_read()
        if missing := before.keys() - self._data.keys():
            scan.missing(missing)

    def changed(self, head: bytes, body: bytes) -> None:
        """Take changes that were published just now.

        Args:
            head: "epoch version count": the version before them.
            body: for each "E" or "L", two lengths, an id and its data.

        Raises:
            Malformed: a program sent something else on the room's channel.
        """
        try:
            epoch, version, changes = _decode_changes(head, body)
        except (ValueError, RecursionError) as error:
            if self._scan is None:
                self._begin(self._missing)
            raise Malformed(f"not a change of presence: {error}") from None
        if self._scan is not None:
            self._scan.changed(epoch, version, changes)
        # A hash that was empty begins a new epoch.
        elif (epoch, version) != self._version and not (version == 0 and not self._data):
            self._begin(self._missing)
        else:
            _apply(changes, self._data)
            self._version = epoch, version + len(changes)
            self._report(changes)

    def _report(self, changes: Sequence[_Change]) -> None:
        members = dict.fromkeys(change if isinstance(change, str) else change[0] for change in changes)
        entered = {member: self._data[member] for member in members if member in self._data}
        self._subscriber.presence_changed(entered, members.keys() - entered.keys())


class Scan:
    """The hash of a room that is read in parts.

    Args:
        copy: what it is for.
        missing: called with members that are not there any more.

    Attributes:
        version: the newest one that was seen.
    """

    def __init__(self, copy: Copy, missing: Callable[[Iterable[str]], None]) -> None:
        self.version: tuple[str, int] = ("", 0)
        self.missing = missing
        self._copy = copy
        # Members with a higher place have entered since.
        self._places: int | None = None
        self._found: dict[str, tuple[int, Any]] = {}
        self._changes: list[_Change] = []

    def replied(self, reply: Any) -> None:
        """Take a part of the hash: its version, the next cursor, and fields and values."""
        if isinstance(reply, RedisError) and reply.is_of_connection:
            raise reply
        cursor = b"0"
        try:
            version, cursor, flat = reply
            if version:
                self._take_version(version)
            for at in range(0, len(flat), 2):
                if flat[at] != b"v":
                    self._take(flat[at], flat[at + 1])
        except (ValueError, TypeError, RecursionError) as error:
            self._copy.counters.skipped(self._copy.room, f"presence: {error}")
        self._copy.read(cursor, self)

    def _take_version(self, text: bytes) -> None:
        epoch, version, places = text.decode("ascii").split(" ")
        self.version = epoch, int(version)
        if self._places is None:
            self._places = int(places)

    def _take(self, field: bytes, value: bytes) -> None:
        place, _, data = value.partition(b" ")
        self._found[field.decode()] = int(place), json.loads(data)

    def lost(self) -> None:
        """Wait for the next connection, which begins again."""

    def changed(self, epoch: str, version: int, changes: Sequence[_Change]) -> None:
        """Take changes that were published while it is read."""
        if version == 0:  # the hash is a new one
            self._found.clear()
            self._changes.clear()
            self._places = 0
        self._changes += changes
        self.version = epoch, version + len(changes)

    def result(self) -> dict[str, Any]:
        """Return the members in the order in which they entered."""
        most = float("inf") if self._places is None else self._places
        found = sorted((place, member) for member, (place, _) in self._found.items() if place <= most)
        members = {member: self._found[member][1] for _, member in found}
        _apply(self._changes, members)
        return members


_Change = tuple[str, Any] | str
"""A member and its data, or one that has left."""


def _apply(changes: Iterable[_Change], members: dict[str, Any]) -> None:
    for change in changes:
        if isinstance(change, str):
            members.pop(change, None)
        else:
            members[change[0]] = change[1]


def _decode_changes(head: bytes, body: bytes) -> tuple[str, int, list[_Change]]:
    epoch, version, count = head.decode("ascii").split(" ")
    changes: list[_Change] = []
    at = 0
    for _ in range(int(count)):
        colon = body.index(b":", at)
        kind, id_bytes, data_bytes = body[at:colon].split(b" ")
        middle = colon + 1 + int(id_bytes)
        at = middle + int(data_bytes)
        if not colon < middle <= at <= len(body):
            raise ValueError("a change is cut")
        member = body[colon + 1 : middle].decode()
        changes.append((member, json.loads(body[middle:at])) if kind == b"E" else member)
    return epoch, int(version), changes
