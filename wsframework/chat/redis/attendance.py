"""Names and rooms of a chat in Redis, so that they are the same in all processes.

Theory of operation
-------------------
Redis knows each guest by its *holder*: the node of its process and a number. The scripts change names and
rooms, and tell all processes what has changed; each process tells its own members of it.

A node has a lease. When it is over, because the process was killed or cut off, its guests depart: at once if
somebody wants one of their names, else by another node. With each new connection, and when it finds its lease
gone, a node puts its guests back as it knows them. One whose name was given to somebody else meanwhile has to
come back under another one; until then it can say nothing.
"""

from __future__ import annotations

import itertools
import json
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import attrs
import trio

from wsframework import Close, Rooms, RoomUnavailable
from wsframework.chat.attendance import Guest
from wsframework.chat.house import PAGE_PEOPLE, PAGE_ROOMS, People, RoomList, number_of
from wsframework.chat.names import NameTaken, name_keys, suggestions
from wsframework.chat.presence import CROWD, Announcer, taken_over
from wsframework.chat.redis.store import Argument, Store

__all__ = ["SharedAttendance"]

logger = logging.getLogger("wsframework.chat")

_SUGGESTIONS = 4
_GHOST_TRIES = 20
_ASK_AGAIN_SECONDS = 0.05
"""An earlier connection of the same guest has a second to end; one of a killed process does not."""

_ROOMS_AT_ONCE = 500
_GUESTS_AT_ONCE = 50

_LOST_NAME = "your name was given to somebody else while the server could not reach its storage"
_NEW_LOG = "the server has lost a part of its history"


@attrs.define(eq=False)
class _Place:
    """What this process knows of one of its guests."""

    guest: Guest
    number: int
    digest: str
    name: str = ""
    seats: dict[str, int] = attrs.field(factory=dict)


class SharedAttendance:
    """The names and rooms of a chat in Redis: an `Attendance`.

    Args:
        store: where they are kept.
        rooms: who hears whom in this process.
        reserved: names that no guest can have. All processes should agree.
        lost: called when Redis does not know this process any more, so that other things may be lost too.
    """

    def __init__(self, store: Store, rooms: Rooms, reserved: Iterable[str], lost: Callable[[], None]) -> None:
        self._store = store
        self._lost = lost
        self._rooms = rooms
        self._announcer = Announcer(rooms)
        self._reserved = frozenset(key for name in reserved for key in name_keys(name))
        self._node = store.engine.node
        self._lease_ms = round(store.engine.lease * 1000)
        self._places: dict[Guest, _Place] = {}
        self._guests: dict[int, _Place] = {}
        self._numbers = itertools.count(1)
        self._entrances: dict[str, list[_Entrance]] = {}
        self._count_again = trio.Event()
        self._stopped = trio.Event()

    # Its life

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the lease and tell crowds how many they are, until `stop`.

        Raises:
            ConfigurationError: the engine does not run, or Redis does not answer.

        Cancellation: not felt once the chat has begun; `stop` ends it.
        """
        self._stopped = trio.Event()
        await self._store.ready()
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                await nursery.start(self._announcer.run)
                nursery.start_soon(self._extend_lease)
                nursery.start_soon(self._count)
                task_status.started()
                await self._stopped.wait()
                nursery.cancel_scope.cancel(reason="the chat has ended")

    def stop(self) -> None:
        """End `run`, and the lease: this process has no guests any more."""
        self._store.soon("lease", self._node, 0)
        self._announcer.stop()
        self._stopped.set()

    def begin(self) -> None:
        """Continue over a new connection: put the guests back, and count those of the rooms again."""
        self._store.soon("lease", self._node, self._lease_ms)
        self._restore()

    def end_all(self) -> None:
        """Let all guests of this process come back, because their log has ended."""
        for place in list(self._guests.values()):
            place.guest.end(Close(1013, _NEW_LOG))

    def forgotten(self, holder: str) -> None:
        """Put a guest back whom Redis does not know, or only by another name."""
        place = self._place_of(holder)
        if place is not None and place.name:
            self._put_back(place)

    def _restore(self) -> None:
        named = [place for place in self._guests.values() if place.name]
        self._store.soon("depart", self._node, "others", *(place.number for place in named))
        for place in named:
            self._put_back(place)
        self._count_again.set()

    def _put_back(self, place: _Place) -> None:
        """Let Redis know a guest as this process knows it."""
        seats: list[Argument] = []
        for room, seat in place.seats.items():
            seats += [room, seat]
        keys = name_keys(place.name)
        holder = self._holder(place.number)
        self._store.soon("restore", holder, place.name, place.digest, len(keys), *keys, *seats)

    async def _extend_lease(self) -> None:
        while True:
            try:
                had, gone = await self._store.run("lease", self._node, self._lease_ms)
                if not had:
                    logger.warning("Redis has forgotten this process; its guests are put back into the chat")
                    self._restore()
                    self._lost()
                for node in gone:
                    if node.decode() != self._node:
                        await self._reap(node)
            except RoomUnavailable:
                pass  # the store has logged it
            await trio.sleep(self._lease_ms / 3000 * random.uniform(0.8, 1))

    async def _reap(self, node: bytes) -> None:
        while await self._store.run("reap", node, _GUESTS_AT_ONCE):
            pass
        logger.info("the guests of a process that is gone have left the chat")

    async def _count(self) -> None:
        """Tell rooms how many they are, after a time in which changes may not have been heard."""
        while True:
            await self._count_again.wait()
            self._count_again = trio.Event()
            names = [room.name for room in self._rooms]
            for at in range(0, len(names), _ROOMS_AT_ONCE):
                some = names[at : at + _ROOMS_AT_ONCE]
                try:
                    for room, count in zip(some, await self._store.run("counts", *some), strict=True):
                        self._announcer.changed(room, count)
                except RoomUnavailable:
                    break  # the next connection begins again

    # What is told

    def heard(self, kind: bytes, value: bytes) -> None:
        """Take what a script has told."""
        told = json.loads(value)
        match kind:
            case b"entered":
                self._note(told["room"], kind, told)
                self._announcer.entered(told["room"], told["name"], told["count"])
            case b"left":
                self._note(told["room"], kind, told)
                self._announcer.left(told["room"], told["name"], told["count"])
            case b"renamed":
                for room, _, seat in told["rooms"]:
                    self._note(room, kind, {"seat": seat, "name": told["to"]})
                rooms = [(room, count) for room, count, _ in told["rooms"]]
                self._announcer.renamed(rooms, told["name"], told["to"])
            case b"changed":
                self._announcer.changed(told["room"], told["count"])
            case b"typing":
                place, room = self._place_of(told["holder"]), told["room"]
                member = None if place is None else place.guest.member(room)
                self._announcer.typing(room, told["name"], told["on"], told["count"], member)
            case b"end":
                place = self._place_of(told["holder"])
                if place is not None:
                    back = told["why"] == "back"
                    place.guest.end(taken_over() if back else Close(1013, _LOST_NAME))

    def _note(self, room: str, kind: bytes, told: dict[str, Any]) -> None:
        for entrance in self._entrances.get(room, ()):
            entrance.note(kind, told)

    def _place_of(self, holder: str) -> _Place | None:
        node, _, number = holder.partition(" ")
        return self._guests.get(int(number)) if node == self._node else None

    def _holder(self, number: int) -> str:
        return f"{self._node} {number}"

    # What conversations call

    async def claim(self, guest: Guest, name: str, token: str | None) -> None:
        """Give a name to a guest, as `Attendance.claim` says.

        Cancellation: the guest may have the name; `depart` frees it.
        """
        place = self._places.get(guest)
        if place is None:
            place = _Place(guest, next(self._numbers), "")
            self._places[guest] = self._guests[place.number] = place
            guest.holder = self._holder(place.number)
        place.digest = _digest(guest.token)
        shown = "" if token is None else _digest(token)
        for tries in itertools.count(1):
            if await self._name(place, "hello", name, shown, force=tries > _GHOST_TRIES):
                return
            await trio.sleep(_ASK_AGAIN_SECONDS)

    async def rename(self, guest: Guest, name: str) -> None:
        """Give a guest another name, as `Attendance.rename` says.

        Cancellation: the guest may have either name; a new connection to Redis gives it the old one.
        """
        place = self._places[guest]
        try:
            await self._name(place, "name", name, "", force=False)
        except NameTaken:
            raise
        except BaseException:
            self._put_back(place)  # it may have the new name nevertheless, or get it yet
            raise

    async def _name(self, place: _Place, kind: str, name: str, shown: str, *, force: bool) -> bool:
        """Give a name to a guest; return False if an earlier connection of theirs still has it."""
        keys = name_keys(name)
        reserved = not self._reserved.isdisjoint(keys)
        offers = [
            offer
            for offer in itertools.islice(suggestions(name), _SUGGESTIONS)
            if self._reserved.isdisjoint(name_keys(offer))
        ]
        arguments: list[Argument] = [kind, self._holder(place.number), name, place.digest, shown]
        arguments += [int(force), int(reserved)]
        for each in (keys, *map(name_keys, offers)):
            arguments += [len(each), *each]
        reply = await self._store.run("claim", *arguments)
        match reply[0]:
            case b"ok":
                place.name = name
                return True
            case b"taken":
                raise NameTaken(name, (offers or [name])[int(reply[1]) - 1])
            case b"gone":
                raise RoomUnavailable("the guest's process was away for too long")
        return False

    async def enter(self, guest: Guest, room: str) -> People:
        """Let a guest into a room, as `Attendance.enter` says.

        Cancellation: the guest may be in the room; `depart` ends it.
        """
        place = self._places[guest]
        holder = self._holder(place.number)
        with self._entering(room, holder) as entrance:
            reply = await self._store.run("enter", holder, room, PAGE_PEOPLE)
            if reply[0] == b"gone":
                self._put_back(place)
                raise RoomUnavailable("the guest's process was away for too long")
            place.seats[room] = int(reply[1])
            return entrance.people(int(reply[2]), reply[3])

    @contextmanager
    def _entering(self, room: str, holder: str) -> Iterator[_Entrance]:
        entrance = _Entrance(holder)
        entrances = self._entrances.setdefault(room, [])
        entrances.append(entrance)
        try:
            yield entrance
        finally:
            entrances.remove(entrance)
            if not entrances and self._entrances.get(room) is entrances:
                del self._entrances[room]

    def leave(self, guest: Guest, room: str) -> None:
        """Let a guest out of a room. If Redis is away, it is told later."""
        place = self._places[guest]
        place.seats.pop(room, None)
        self._store.soon("leave", self._holder(place.number), room)

    def depart(self, guest: Guest) -> None:
        """Free the guest's name, after it has left all rooms. If Redis is away, it is told later."""
        place = self._places.pop(guest, None)
        if place is not None:
            del self._guests[place.number]
            self._store.soon("depart", self._node, "these", place.number)

    def typing(self, guest: Guest, room: str, on: bool) -> None:
        """Tell the others in the room of somebody who types, or types no longer."""
        place = self._places[guest]
        self._store.soon("typing", room, self._holder(place.number), place.name, int(on), CROWD)

    async def people(self, room: str, cursor: str | None) -> People:
        """Return a page of a room's people, as `Attendance.people` says.

        Cancellation: nothing is left behind.
        """
        behind = "-inf" if cursor is None else f"({number_of(cursor)}"
        count, flat, more = await self._store.run("people", room, behind, PAGE_PEOPLE)
        return People(
            [flat[at + 1].decode() for at in range(0, len(flat), 2)], str(flat[-2]) if more else None, count
        )

    async def rooms(self, cursor: str | None) -> RoomList:
        """Return a page of the rooms, as `Attendance.rooms` says.

        Cancellation: nothing is left behind.
        """
        people, room = "", ""
        if cursor is not None:
            people, _, room = cursor.partition("/")
            number_of(people)
        flat, more = await self._store.run("rooms", people, room, PAGE_ROOMS)
        rooms = [(flat[at].decode(), int(flat[at + 1])) for at in range(0, len(flat), 2)]
        return RoomList(rooms, f"{rooms[-1][1]}/{rooms[-1][0]}" if more else None)


class _Entrance:
    """What happens in a room after somebody has entered it, and before that one's process goes on."""

    def __init__(self, holder: str) -> None:
        self._holder = holder
        self._changes: list[tuple[bytes, dict[str, Any]]] = []

    def note(self, kind: bytes, told: dict[str, Any]) -> None:
        """Take note of a change."""
        if kind == b"entered" and told["holder"] == self._holder:
            self._changes.clear()  # the list that comes with the answer has what was before
        else:
            self._changes.append((kind, told))

    def people(self, count: int, flat: list[Any]) -> People:
        """Return the room's people as they are now.

        Args:
            count: how many they were when the guest entered.
            flat: seats and names of the first ones.
        """
        page: OrderedDict[int, str] = OrderedDict()
        for at in range(0, len(flat), 2):
            page[int(flat[at])] = flat[at + 1].decode()
        last, partial = max(page, default=0), count > len(page)
        for kind, told in self._changes:
            seat = told["seat"]
            match kind:
                case b"entered":
                    count += 1
                    if not partial:
                        page[seat] = told["name"]
                        partial, last = len(page) >= PAGE_PEOPLE, seat
                case b"left":
                    count -= 1
                    page.pop(seat, None)
                case b"renamed" if seat in page:
                    page[seat] = told["name"]
        return People(list(page.values()), str(last) if count > len(page) else None, count)


def _digest(token: str) -> str:
    """Return what Redis knows of a token, from which nobody can make it."""
    return blake2b(token.encode(), digest_size=16).hexdigest()
