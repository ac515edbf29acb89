"""Who is present: our own members, and a copy of everybody in the rooms that have members here.

Theory of operation
-------------------
A member's data are in the room's hash in Redis. Every change there has the room's next version and is
published, so the copies of all nodes follow. A copy that misses a version reads the whole hash again.

Each node has a lease, and extends it. When it is over, another node removes the members of that node, so that
they are gone even if it was killed. A node that finds its lease gone enters all its members again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wsframework.engines.redis.codec import RedisError
from wsframework.engines.redis.places import Malformed
from wsframework.records import record

__all__ = ["Copy", "Own"]

_CHANGES_AT_ONCE = 256
"""Members that one call of the script changes."""


class Own:
    """The members of this node, and which of them Redis has yet to be told.

    Args:
        wake: called when there is something to tell.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._rooms: dict[str, dict[str, bytes]] = {}
        # What changed, by room and member; what it changed to is in `_rooms`.
        self._changed: dict[str, dict[str, None]] = {}

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
        self._rooms.setdefault(room, {})[member] = json.dumps(data, separators=(",", ":")).encode()
        self._note(room, member)

    def leave(self, room: str, member: str) -> None:
        """Remove a member."""
        members = self._rooms.get(room)
        if members is None or members.pop(member, None) is None:
            return
        if not members:
            del self._rooms[room]
        self._note(room, member)

    def _note(self, room: str, member: str) -> None:
        self._changed.setdefault(room, {})[member] = None
        self._wake()

    def told(self) -> None:
        """Take note that Redis can take more."""
        if self._changed:
            self._wake()

    def all_again(self) -> None:
        """Tell Redis of every member again: its copy is gone."""
        for room, members in self._rooms.items():
            self._changed.setdefault(room, {}).update(dict.fromkeys(members))

    def again(self, room: str, members: Iterable[str]) -> None:
        """Tell Redis of these again: it is not known whether it heard."""
        self._changed.setdefault(room, {}).update(dict.fromkeys(members))

    def changes(self) -> tuple[str, dict[str, bytes | None]] | None:
        """Take the changes of one room: the data of each member, or None if it has left."""
        if not self._changed:
            return None
        room, changed = next(iter(self._changed.items()))
        now = self._rooms.get(room, {})
        taken = list(changed)[:_CHANGES_AT_ONCE]
        for member in taken:
            del changed[member]
        if not changed:
            del self._changed[room]
        return room, {member: now.get(member) for member in taken}


class Copy:
    """The members of one room at all nodes.

    Args:
        room: the room's name.
        read: asks Redis for the room's hash; its reply goes to the object given.
    """

    def __init__(self, room: str, read: Callable[[Copy], None]) -> None:
        self._room = room
        self._read = read
        self._reading = True
        self._version: tuple[str, int] = ("", 0)
        self._data: dict[str, Any] = {}

    @property
    def members(self) -> Mapping[str, Any]:
        """Their data by their ids, in the order in which they entered."""
        return self._data

    def begin(self) -> None:
        """Read the members, because there is a new connection, or a hole."""
        self._reading = True
        self._read(self)

    def replied(self, reply: Any) -> None:
        """Take the room's hash."""
        if isinstance(reply, RedisError) and reply.is_of_connection:
            raise reply
        found: list[tuple[int, str, Any]] = []
        self._version = ("", 0)
        try:
            for field, value in reply.items():
                if field == b"v":
                    epoch, version, _ = value.decode("ascii").split(" ")
                    self._version = epoch, int(version)
                    continue
                place, _, data = value.partition(b" ")
                found.append((int(place), field.decode(), json.loads(data)))
        except (ValueError, AttributeError) as error:
            record(logging.ERROR, "room.malformed", room=self._room, error=f"presence: {error}")
        found.sort(key=lambda entry: entry[0])
        self._data = {member: data for _, member, data in found}
        self._reading = False

    def lost(self) -> None:
        """Wait for the next connection, which begins again."""

    def changed(self, head: bytes, body: bytes) -> None:
        """Take changes that were published just now.

        Args:
            head: "epoch version count": the version before them.
            body: for each "E" or "L", two lengths, an id and its data.

        Raises:
            Malformed: a program sent something else on the room's channel.
        """
        if self._reading:
            return  # the reply has them
        try:
            epoch, version, count = head.decode("ascii").split(" ")
            before = int(version)
            # A hash that was empty begins a new epoch.
            if (epoch, before) != self._version and not (before == 0 and not self._data):
                self.begin()
                return
            at = 0
            for _ in range(int(count)):
                colon = body.index(b":", at)
                kind, id_bytes, data_bytes = body[at:colon].split(b" ")
                middle = colon + 1 + int(id_bytes)
                at = middle + int(data_bytes)
                member = body[colon + 1 : middle].decode()
                if kind == b"E":
                    self._data[member] = json.loads(body[middle:at])
                else:
                    self._data.pop(member, None)
            self._version = epoch, before + int(count)
        except ValueError as error:
            self.begin()
            raise Malformed(f"not a change of presence: {error}") from None
