"""The engine of a single process: it delivers at once, and keeps presence and history in memory."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any

from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from wsframework.rooms.engine import Engine, History, Position, Replay, RoomMessage, Subscriber
from wsframework.rooms.history import Histories

__all__ = ["LocalEngine", "call_for_local_rooms"]

_KEY_SECONDS = 600.0
"""How long the key of a published message is remembered, as `Engine.publish` says."""

_MOST_KEYS = 16 * 1024
"""The maximum number of remembered keys, which take about 5 MB."""


_on_room: Callable[[], None] | None = None


def call_for_local_rooms(callback: Callable[[], None] | None) -> None:
    """Set what is called whenever a room of any `LocalEngine` of this process gets its first member.

    Args:
        callback: for a process that is one of several; must not raise. None for nothing, as at the start.
    """
    global _on_room
    _on_room = callback


class LocalEngine(Engine):
    """The engine of a single process. It need not be installed, and may be shared by many `Rooms`.

    It keeps everything in memory: a position from an earlier process is answered as too old.

    Args:
        total: the bounds of the history of all rooms together, whatever each room keeps. They are applied
            when a message is stored. 100,000 messages, one hour and 64 MiB by default.
        clock: returns monotonic seconds, for the age of messages.
        warn: whether one warning is logged when its rooms are used in one of several workers. False if they
            are meant to have the members of one process only.
    """

    def __init__(
        self,
        *,
        total: History | None = None,
        clock: Callable[[], float] = time.monotonic,
        warn: bool = True,
    ) -> None:
        self.node = secrets.token_hex(4)
        self._clock = clock
        self._warn = warn
        self._subscribers: dict[str, Subscriber] = {}
        self._present: dict[str, dict[str, Any]] = {}
        self._histories = Histories(
            self.node, total or History(messages=100_000, seconds=3600.0, bytes=64 * 1024 * 1024), clock
        )
        self._keys: OrderedDict[tuple[str, str], tuple[float, Position]] = OrderedDict()

    def subscribe(self, room: str, subscriber: Subscriber) -> None:
        """Remember where the room's members are."""
        self._subscribers[room] = subscriber
        if self._warn and _on_room is not None:
            _on_room()

    def unsubscribe(self, room: str) -> None:
        """Forget the room's members; its history stays."""
        self._subscribers.pop(room, None)
        self._present.pop(room, None)

    def broadcast(
        self, room: str, message: RoomMessage, exclude: Collection[str], history: History | None
    ) -> int:
        """Deliver at once."""
        position = None
        if history is not None or room in self._histories:
            position = self._histories.add(room, message, history)
        subscriber = self._subscribers.get(room)
        return 0 if subscriber is None else subscriber.deliver(message, position, exclude)

    async def publish(
        self,
        room: str,
        message: RoomMessage,
        exclude: Collection[str],
        history: History | None,
        key: str | None,
    ) -> Position:
        """Deliver at once, and return the position.

        Cancellation: cancelled means not published.
        """
        await checkpoint_if_cancelled()
        position = None if key is None else self._published(room, key)
        if position is None:
            position = self._histories.add(room, message, history)
            if key is not None:
                self._keys[room, key] = self._clock(), position
            subscriber = self._subscribers.get(room)
            if subscriber is not None:
                subscriber.deliver(message, position, exclude)
        await cancel_shielded_checkpoint()
        return position

    def _published(self, room: str, key: str) -> Position | None:
        """Return the position of the message with that key, if there is one; forget keys that are too old."""
        keys, oldest = self._keys, self._clock() - _KEY_SECONDS
        while keys and (len(keys) >= _MOST_KEYS or next(iter(keys.values()))[0] < oldest):
            keys.popitem(last=False)
        _, position = keys.get((room, key), (0.0, None))
        return position

    async def history(self, room: str, after: Position, history: History | None) -> Replay:
        """Return the messages after a position.

        Cancellation: nothing is left behind.
        """
        await checkpoint()
        return self._histories.replay(room, after, history)

    def position(self, room: str) -> Position:
        """Return the position of the engine's newest message: no message of the room is newer."""
        return self._histories.position()

    def enter(self, room: str, member: str, data: Any) -> None:
        """Remember the member's data."""
        self._present.setdefault(room, {})[member] = data
        subscriber = self._subscribers.get(room)
        if subscriber is not None:
            subscriber.presence_changed({member: data}, ())

    def leave(self, room: str, member: str) -> None:
        """Forget the member's data."""
        self._present.get(room, {}).pop(member, None)
        subscriber = self._subscribers.get(room)
        if subscriber is not None:
            subscriber.presence_changed({}, (member,))

    def present(self, room: str) -> Mapping[str, Any]:
        """Return the data of all members."""
        return dict(self._present.get(room, {}))
