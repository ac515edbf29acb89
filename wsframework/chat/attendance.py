"""Who is called what and who is in which room, as conversations see it, whatever keeps it.

`presence` keeps it in this process, `redis.presence` for all processes that share a Redis.
"""

from __future__ import annotations

from typing import Protocol

import trio

from wsframework import Close, Member
from wsframework.chat.house import People, RoomList

__all__ = ["Attendance", "Guest"]


class Guest(Protocol):
    """One connection in the chat. It has one name at a time.

    Attributes:
        token: what it was given to show that it is the same person, when it comes back.
        holder: what the attendance calls it; set by `claim` where that is not only in this process, else "".
        over: set when it has departed.
    """

    token: str
    holder: str
    over: trio.Event

    def __hash__(self) -> int:
        """Guests are keys: each is itself only."""

    def end(self, close: Close) -> None:
        """End the conversation with a close code, soon."""

    def member(self, room: str) -> Member | None:
        """Return its membership of a room, if it has one in this process."""


class Attendance(Protocol):
    """The names and the rooms of all guests. It also tells the rooms of this process what changes.

    Methods that are not async wait for nothing, so they may be called when a connection ends.
    """

    async def claim(self, guest: Guest, name: str, token: str | None) -> None:
        """Give a name to a guest who has none.

        Args:
            token: what the guest shows. The earlier connection that was given it, if it still has the name,
                is closed, and has left its rooms when this returns.

        Raises:
            NameTaken: another guest has it.
            RoomUnavailable: it cannot be found out now.

        Cancellation: the guest may have the name; `depart` frees it.
        """

    async def rename(self, guest: Guest, name: str) -> None:
        """Give a guest another name, and tell the rooms, the guest too.

        Raises:
            NameTaken: another guest has it; nothing has changed.
            RoomUnavailable: it cannot be found out now.

        Cancellation: the guest may have either name.
        """

    async def enter(self, guest: Guest, room: str) -> People:
        """Let a guest into a room, and tell the others.

        Returns:
            The first page of the room's people, at the moment of the return: what changes after it is told
            to the members of this process.

        Raises:
            RoomUnavailable: it cannot be done now.

        Cancellation: the guest may be in the room; `leave` and `depart` end it.
        """

    def leave(self, guest: Guest, room: str) -> None:
        """Let a guest out of a room, and tell the others. It is no member in this process any more."""

    def depart(self, guest: Guest) -> None:
        """Free the guest's name, after it has left all rooms. Without effect for one that has no name."""

    def typing(self, guest: Guest, room: str, on: bool) -> None:
        """Tell the others in the room of somebody who types, or types no longer."""

    async def people(self, room: str, cursor: str | None) -> People:
        """Return the first people of a room, or those behind a cursor.

        Raises:
            BadCursor: it is not from a page of people.
            RoomUnavailable: it cannot be found out now.

        Cancellation: nothing is left behind.
        """

    async def rooms(self, cursor: str | None) -> RoomList:
        """Return the busiest rooms, or those behind a cursor.

        Raises:
            BadCursor: it is not from a page of rooms.
            RoomUnavailable: it cannot be found out now.

        Cancellation: nothing is left behind.
        """

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do what goes on beside the requests, until `stop`.

        Cancellation: nothing is left behind.
        """

    def stop(self) -> None:
        """End `run`."""
