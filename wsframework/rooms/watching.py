"""Watching who is present in a room: one `Roster` for all watchers, and a change that waits for each.

Theory of operation
-------------------
There is no task here. The engine reports members that come and go. Whoever waits in `Watch.__anext__` looks
when news is due, and hands it to all others. A watcher that does not wait has its changes merged into one, so
what is kept for it is bounded by the size of the room.

The room is subscribed as long as there is a `Watch`, also without members in this process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from threading import get_ident
from typing import Any, Self
from weakref import WeakSet

import trio

from wsframework.errors import WrongThread
from wsframework.rooms.engine import Engine
from wsframework.rooms.roster import COALESCE_SECONDS, PresenceChange, Roster, merged

__all__ = ["Watch", "Watched"]


class Watched:
    """A room as those see it that watch it with one `linger`.

    Args:
        engine: carries the room.
        name: the name that the engine knows.
        linger: as for `Roster`.
        unused: called when nothing watches it any more.
    """

    def __init__(self, engine: Engine, name: str, linger: float, unused: Callable[[], None]) -> None:
        self._engine = engine
        self._name = name
        self._roster = Roster(linger)
        self._unused = unused
        self._watches: WeakSet[Watch] = WeakSet()
        self._count = 0
        self._known = False
        self._stale = False
        self._stale_changed_at = math.inf
        self._news = trio.Event()
        self._thread = get_ident()
        self.read()

    # What the engine reports

    def read(self) -> None:
        """Take all members anew, if the engine knows them."""
        now, before = trio.current_time(), self.due
        stale = self._engine.presence_stale(self._name)
        if not stale:
            self._roster.reset(self._engine.present(self._name), now)
        if self._known:
            self._stale_changed_at = now if stale != self._stale else math.inf
        elif not stale:
            self._known = True
            self._roster.flush(now, stale=False)
            for watch in self._watches:
                watch.add(self._everybody())
            self._wake()
        self._wake_if_earlier(before)

    def changed(self, entered: Mapping[str, Any], left: Collection[str]) -> None:
        """Take members that entered or have new data, and those that left."""
        if self._known:
            before = self.due
            self._roster.change(entered, left, trio.current_time())
            self._wake_if_earlier(before)

    def _wake_if_earlier(self, before: float) -> None:
        if self.due < before:
            self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    # What watchers ask

    @property
    def due(self) -> float:
        """When `look` will find something; infinity if there is nothing."""
        return min(self._roster.due, self._stale_changed_at + COALESCE_SECONDS)

    def look(self) -> None:
        """Hand what is due to all that watch."""
        now = trio.current_time()
        if now < self.due:
            return
        change = self._roster.flush(now, stale=self._engine.presence_stale(self._name))
        self._stale_changed_at = math.inf
        if change.is_empty and change.stale == self._stale:
            return
        self._stale = change.stale
        for watch in self._watches:
            watch.add(change)
        self._wake()

    async def wait(self) -> None:
        """Wait until `look` may find something.

        Cancellation: nothing is left behind.
        """
        with trio.move_on_at(self.due):
            await self._news.wait()

    def check_thread(self) -> None:
        """Raise `WrongThread` in another thread than that of the members."""
        if get_ident() != self._thread:
            raise WrongThread("room.watch")

    def add(self, watch: Watch) -> None:
        """Hand changes to one more, beginning with everybody who is present."""
        self._count += 1
        self._watches.add(watch)
        if self._known:
            watch.add(self._everybody())

    def remove(self) -> None:
        """Take note that one of them is gone."""
        self._count -= 1
        if self._count == 0:
            self._unused()

    def _everybody(self) -> PresenceChange:
        return PresenceChange(dict(self._roster.told), {}, {}, self._stale)


class Watch:
    """The changes of a room, for one `async for`. It ends when nothing refers to it any more.

    Args:
        watched: the room.
    """

    def __init__(self, watched: Watched) -> None:
        self._change: PresenceChange | None = None
        self._stale: bool | None = None
        self._watched = watched
        watched.add(self)

    def __del__(self) -> None:
        if hasattr(self, "_watched"):
            self._watched.remove()

    def add(self, change: PresenceChange) -> None:
        """Keep a change until it is asked for."""
        self._change = change if self._change is None else merged(self._change, change)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PresenceChange:
        """Wait for the next change.

        Cancellation: nothing is lost, the next call returns it.
        """
        self._watched.check_thread()
        try:
            await trio.lowlevel.checkpoint()
            while (change := self._take()) is None:
                await self._watched.wait()
        except BaseException:
            # Whoever keeps the exception would keep this frame, and with it the room's subscription.
            del self
            raise
        return change

    def _take(self) -> PresenceChange | None:
        self._watched.look()
        change, self._change = self._change, None
        if change is None or (change.is_empty and change.stale == self._stale):
            return None
        self._stale = change.stale
        return change
