"""Names and rooms of a chat in one process, and what rooms are told of who comes, goes and types.

In a small room each change is an event of its own. In a crowd that would cost each such request a delivery to
everybody, so there the people are told how many they are, some time after a change.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable

import trio
from trio.lowlevel import checkpoint

from wsframework import Close, Member, Rooms
from wsframework.chat.attendance import Guest
from wsframework.chat.house import House, People, RoomList, Seat
from wsframework.chat.names import Names
from wsframework.chat.protocol import event

__all__ = ["CROWD", "TAKEN_OVER", "Announcer", "Presence", "taken_over"]

CROWD = 100
"""People in a room. In one with more, changes are not told one by one."""

TAKEN_OVER = 4409
"""The close code of a connection whose name has come back on another one; clients do not reconnect."""

_MOST_TOLD = 250
"""So many people are told a new name, in all rooms together: with 20 rooms it would be 2,000."""

_CROWD_SECONDS = 2.0


def taken_over() -> Close:
    """Return how a conversation ends whose name has come back on another connection."""
    return Close(TAKEN_OVER, "your name has come back on another connection")


class Announcer:
    """What the rooms of this process are told of their people.

    Args:
        rooms: who hears whom.
    """

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._changed: dict[str, int] = {}
        self._change = trio.Event()
        self._running = trio.CancelScope()

    def entered(self, room: str, name: str, count: int) -> None:
        """Tell the others in the room of somebody who comes in, before they are a member."""
        self._tell(room, event("entered", room=room, name=name), count, CROWD)

    def left(self, room: str, name: str, count: int) -> None:
        """Tell a room of somebody who has left it."""
        self._tell(room, event("left", room=room, name=name), count, CROWD)

    def renamed(self, rooms: Iterable[tuple[str, int]], name: str, to: str) -> None:
        """Tell the rooms of a person, and the person, of a new name.

        Args:
            rooms: each with its number of people.
        """
        left = _MOST_TOLD
        for room, count in rooms:
            text = event("renamed", room=room, name=name, to=to)
            if self._tell(room, text, count, min(left, CROWD)):
                left -= count

    def typing(self, room: str, name: str, on: bool, count: int, member: Member | None) -> None:
        """Tell the others in the room of somebody who types, or types no longer."""
        if count <= CROWD and room in self._rooms:
            exclude = () if member is None else member
            self._rooms[room].broadcast(event("typing", room=room, name=name, on=on), exclude=exclude)

    def changed(self, room: str, count: int) -> None:
        """Tell a room soon that its people have changed, and how many they are."""
        self._changed[room] = count
        self._change.set()

    def _tell(self, room: str, text: str, count: int, most: int) -> bool:
        """Tell a room of a change if so many people are in it at most; return whether it was told."""
        # At the limit both: people who have heard of a crowd hear that it is none any more.
        if count >= most:
            self.changed(room, count)
        if count > most:
            return False
        if room in self._rooms:
            self._rooms[room].broadcast(text)
        return True

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell crowds how many they are, each at most once in two seconds, until `stop`.

        Cancellation: nothing is left behind.
        """
        with trio.CancelScope() as self._running:
            task_status.started()
            while True:
                await self._change.wait()
                self._change = trio.Event()
                changed, self._changed = self._changed, {}
                for room, count in changed.items():
                    if room in self._rooms:
                        self._rooms[room].broadcast(event("people", room=room, count=count))
                    await checkpoint()
                await trio.sleep(_CROWD_SECONDS)

    def stop(self) -> None:
        """End `run`."""
        self._running.cancel(reason="the chat has ended")


class Presence:
    """The names and rooms of a chat that has one process: an `Attendance`.

    Args:
        rooms: who hears whom.
        reserved: names that no guest can have.

    Attributes:
        names: who is called what.
        house: who is in which room.
    """

    def __init__(self, rooms: Rooms, reserved: Iterable[str] = ()) -> None:
        self.names: Names[Guest] = Names(reserved)
        self.house = House()
        self._announcer = Announcer(rooms)
        self._called: dict[Guest, str] = {}
        self._seats: dict[Guest, dict[str, Seat]] = {}

    async def claim(self, guest: Guest, name: str, token: str | None) -> None:
        """Give a name to a guest, as `Attendance.claim` says.

        Cancellation: the guest has no name; an earlier connection may have ended.
        """
        while (ghost := self.names.holder(name)) is not None and _shows(token, ghost):
            # The same person, back before we noticed that they had left.
            ghost.end(taken_over())
            await ghost.over.wait()
        self.names.claim(name, guest)
        self._called[guest] = name
        self._seats[guest] = {}

    async def rename(self, guest: Guest, name: str) -> None:
        """Give a guest another name. Waits for nothing."""
        self.names.claim(name, guest)
        before, self._called[guest] = self._called[guest], name
        seats = self._seats[guest].values()
        for seat in seats:
            self.house.rename(seat, name)
        self._announcer.renamed([(seat.room, self.house.count(seat.room)) for seat in seats], before, name)

    async def enter(self, guest: Guest, room: str) -> People:
        """Let a guest into a room. Waits for nothing."""
        name = self._called[guest]
        self._seats[guest][room] = self.house.enter(room, name)
        self._announcer.entered(room, name, self.house.count(room))
        return self.house.people(room)

    def leave(self, guest: Guest, room: str) -> None:
        """Let a guest out of a room."""
        self.house.leave(self._seats[guest].pop(room))
        self._announcer.left(room, self._called[guest], self.house.count(room))

    def depart(self, guest: Guest) -> None:
        """Free the guest's name, after it has left all rooms."""
        for room in list(self._seats.get(guest, ())):
            self.leave(guest, room)
        self._seats.pop(guest, None)
        self._called.pop(guest, None)
        self.names.release(guest)

    def typing(self, guest: Guest, room: str, on: bool) -> None:
        """Tell the others in the room of somebody who types, or types no longer."""
        self._announcer.typing(room, self._called[guest], on, self.house.count(room), guest.member(room))

    async def people(self, room: str, cursor: str | None) -> People:
        """Return a page of a room's people. Waits for nothing."""
        return self.house.people(room, cursor)

    async def rooms(self, cursor: str | None) -> RoomList:
        """Return a page of the rooms. Waits for nothing."""
        return self.house.rooms(cursor)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell crowds how many they are, until `stop`.

        Cancellation: nothing is left behind.
        """
        await self._announcer.run(task_status)

    def stop(self) -> None:
        """End `run`."""
        self._announcer.stop()


def _shows(token: str | None, ghost: Guest) -> bool:
    return token is not None and hmac.compare_digest(token.encode(), ghost.token.encode())
