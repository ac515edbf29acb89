"""Rooms: membership as a scope, broadcasts that do not wait, and the engines that carry them.

    lobby = Room("lobby")

    @app.websocket("/lobby")
    async def talk(ws: Connection) -> None:
        async with lobby.join(ws):
            async for message in ws:
                lobby.broadcast(message, exclude=ws)

`room` has the public classes, `seats` delivers messages to members, and `policy` says what happens to slow
members. An `Engine` carries messages from a room to its members; `local` is the engine of a single process,
and `history` its history.
"""

from wsframework.rooms.engine import Engine, History, Position, Replay, RoomMessage, Subscriber
from wsframework.rooms.local import LocalEngine
from wsframework.rooms.policy import RoomStatistics, SlowPolicy
from wsframework.rooms.room import Member, Room
from wsframework.rooms.rooms import Rooms
from wsframework.rooms.roster import PresenceChange
from wsframework.rooms.seats import GapPolicy, Stamp

__all__ = [
    "Engine",
    "GapPolicy",
    "History",
    "LocalEngine",
    "Member",
    "Position",
    "PresenceChange",
    "Replay",
    "Room",
    "RoomMessage",
    "RoomStatistics",
    "Rooms",
    "SlowPolicy",
    "Stamp",
    "Subscriber",
]
