"""Tells rooms who comes, goes, types and changes names.

In a small room each change is an event of its own. In a crowd that would cost each such request a delivery to
everybody, so there the people are told how many they are, some time after a change.
"""

from __future__ import annotations

import trio

from wsframework import Member, Rooms
from wsframework.chat.house import House
from wsframework.chat.protocol import event

__all__ = ["CROWD", "Presence"]

CROWD = 100
"""People in a room. In one with more, changes are not told one by one."""

_MOST_TOLD = 250
"""So many people are told a new name, in all rooms together: with 20 rooms it would be 2,000."""

_CROWD_SECONDS = 2.0


class Presence:
    """What rooms are told of their people.

    Args:
        rooms: who hears whom.

    Attributes:
        house: who is in which room.
    """

    def __init__(self, rooms: Rooms) -> None:
        self.house = House()
        self._rooms = rooms
        self._changed: dict[str, None] = {}
        self._change = trio.Event()
        self._running = trio.CancelScope()

    def entered(self, member: Member, name: str) -> None:
        """Tell the others in the room of somebody who has come in."""
        self._tell(member, event("entered", room=member.room.name, name=name), CROWD)

    def left(self, member: Member, name: str) -> None:
        """Tell a room of somebody who has left it."""
        self._tell(member, event("left", room=member.room.name, name=name), CROWD)

    def renamed(self, members: list[Member], name: str, to: str) -> None:
        """Tell the rooms of a person, and the person, of a new name."""
        left = _MOST_TOLD
        for member in members:
            text = event("renamed", room=member.room.name, name=name, to=to)
            left -= self._tell(member, text, min(left, CROWD), exclude=False)

    def typing(self, member: Member, name: str, on: bool) -> None:
        """Tell the others in the room of somebody who types, or types no longer."""
        room = member.room
        if self.house.count(room.name) <= CROWD:
            room.broadcast(event("typing", room=room.name, name=name, on=on), exclude=member)

    def _tell(self, member: Member, text: str, most: int, *, exclude: bool = True) -> int:
        """Tell a room of a change if so many people are in it at most; return how many were told."""
        room = member.room
        count = self.house.count(room.name)
        # At the limit both: people who have heard of a crowd hear that it is none any more.
        if count >= most:
            self._changed[room.name] = None
            self._change.set()
        if count > most:
            return 0
        return room.broadcast(text, exclude=member if exclude else ())

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell crowds how many they are, each at most once in two seconds, until `stop`."""
        with trio.CancelScope() as self._running:
            task_status.started()
            while True:
                await self._change.wait()
                self._change = trio.Event()
                changed, self._changed = self._changed, {}
                for room in changed:
                    if room in self._rooms:
                        count = self.house.count(room)
                        self._rooms[room].broadcast(event("people", room=room, count=count))
                    await trio.lowlevel.checkpoint()
                await trio.sleep(_CROWD_SECONDS)

    def stop(self) -> None:
        """End `run`."""
        self._running.cancel(reason="the chat has ended")
