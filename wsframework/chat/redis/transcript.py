"""What was said, in Redis: one order for all processes.

Theory of operation
-------------------
Ids are contiguous, and every process publishes all messages of all rooms, in the order of ids:

    the next id         it is published in this process
    one that was        it is dropped
    anything else       the process reads what follows the last one, until there is nothing more

So does a new connection. If the log in Redis is no longer the one that was followed, because Redis has lost
it or a part of it, nothing can follow: `reset` lets all clients come back, and they learn it when they join.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import trio

from wsframework import RoomUnavailable
from wsframework.chat.history import MISSED_MESSAGES, PAGE_CHARS, PAGE_MESSAGES
from wsframework.chat.messages import Draft, HistoryError, Message, Missed, Page, Retention
from wsframework.chat.redis.store import Store
from wsframework.chat.transcript import Publish, Recording, Recordings

__all__ = ["SharedTranscript"]

logger = logging.getLogger("wsframework.chat")

_MESSAGES_AT_ONCE = 500
_BYTES_AT_ONCE = 256 * 1024
_PAGE_BYTES = 4 * PAGE_CHARS
_PRUNE_SECONDS = 3600.0
_PAUSE_SECONDS = 0.1
_DAY_MS = 86400 * 1000


class SharedTranscript:
    """The messages of a chat in Redis: a `Transcript`.

    Args:
        store: where they are kept.
        retention: how much is kept. All processes should agree.
        publish: called for each room with its new messages.
        reset: called when messages are lost that this process had published, or should have.
        forgotten: called with the holder of a message whom Redis does not know by its name.

    Attributes:
        log: the log's identity.
        last_id: the id up to which everything is published in this process.
    """

    def __init__(
        self,
        store: Store,
        retention: Retention,
        publish: Publish,
        *,
        reset: Callable[[], None],
        forgotten: Callable[[str], None],
    ) -> None:
        self.log = ""
        self.last_id = 0
        self._store = store
        self._publish = publish
        self._reset = reset
        self._forgotten = forgotten
        self._tag = ""
        self._asked = 1
        self._answered = 0
        self._follow = trio.Event()
        self._caught_up = trio.Event()
        self._stopped = trio.Event()
        self._recordings = Recordings()
        days = "" if retention.days is None else int(retention.days * _DAY_MS)
        self._most = (retention.messages, retention.bytes, days)
        self._keep = (retention.messages, retention.messages_per_room, retention.bytes, days)

    # What is told

    def follow(self) -> None:
        """Read what was said meanwhile, because it may not have been heard."""
        self._asked += 1
        self._follow.set()

    def said(self, value: bytes) -> None:
        """Take a message that was stored just now."""
        log, id, tag, stamp, room, body = value.split(b" ", 5)
        number = int(id)
        if log.decode() != self.log:
            self.follow()
        elif number == self.last_id + 1:
            message = _message(number, room.decode(), int(stamp), body)
            self._told(message, tag.decode())
        elif number > self.last_id:
            self.follow()

    def _told(self, message: Message, tag: str) -> None:
        self.last_id, self._tag = message.id, tag
        self._recordings.add(message.room, [message])
        self._publish(message.room, [message])

    # Its life

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the log until `stop`.

        Raises:
            RoomUnavailable: Redis does not answer.

        Cancellation: not felt once it follows. `stop` ends it.
        """
        self._stopped = trio.Event()
        self._take(await self._read())
        if shortcomings := await self._store.shortcomings():
            logger.warning(
                "a crash of Redis may lose messages that it has acknowledged: %s", " and ".join(shortcomings)
            )
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_up)
                nursery.start_soon(self._prune_by_age)
                task_status.started()
                await self._stopped.wait()
                nursery.cancel_scope.cancel(reason="the chat has ended")

    def stop(self) -> None:
        """Let `run` end."""
        self._stopped.set()

    async def _read(self) -> Any:
        return await self._store.run(
            "follow", self.log, self.last_id, self._tag, _identity(), _MESSAGES_AT_ONCE, _BYTES_AT_ONCE
        )

    def _take(self, reply: Any) -> bool:
        """Publish what follows the last message, or start anew; return whether there is nothing more."""
        log, newest, tag, flat = reply[0].decode(), int(reply[1]), reply[2].decode(), reply[3]
        if log != self.log:
            lost, self.log = bool(self.log), log
            self._begin_at(newest, tag)
            if lost:
                logger.error("Redis has lost messages of the chat; clients load it anew")
                self._reset()
            return True
        for at in range(0, len(flat), 5):
            id, its_tag, stamp, room, body = flat[at : at + 5]
            if id != self.last_id + 1:
                continue  # it was heard meanwhile
            if not body:
                logger.error("messages were forgotten before they were read here; clients load the chat anew")
                self._begin_at(newest, tag)
                self._reset()
                return True
            self._told(_message(id, room.decode(), int(stamp), body), its_tag.decode())
        return self.last_id >= newest

    def _begin_at(self, newest: int, tag: str) -> None:
        self.last_id, self._tag = newest, tag

    async def _keep_up(self) -> None:
        while True:
            while self._asked != self._answered:
                asked = self._asked
                try:
                    if self._take(await self._read()):
                        self._answered = asked
                except RoomUnavailable:
                    await trio.sleep(_PAUSE_SECONDS)  # the store has logged it
            caught_up, self._caught_up = self._caught_up, trio.Event()
            caught_up.set()
            await self._follow.wait()
            self._follow = trio.Event()

    async def _prune_by_age(self) -> None:
        while True:
            try:
                while not await self._store.run("prune", _identity(), *self._most):
                    pass
            except RoomUnavailable:
                pass  # the store has said so; an hour is soon enough
            await trio.sleep(_PRUNE_SECONDS)

    # What conversations call

    async def append(self, draft: Draft) -> Message:
        """Store a message and have it published in all processes.

        Raises:
            HistoryError: it was not stored, or it is not known whether it was.

        Cancellation: it may be stored and published all the same.
        """
        body = json.dumps({"name": draft.name, "text": draft.text}, ensure_ascii=False, separators=(",", ":"))
        key = "" if draft.key is None else f"{draft.room} {draft.sender} {draft.key}"
        sent = (draft.room, body, key, secrets.token_hex(6), draft.holder, draft.name)
        try:
            reply = await self._store.run("append", *sent, _identity(), *self._keep)
        except RoomUnavailable as error:
            raise HistoryError(str(error)) from None
        if reply[0] == b"gone":
            self._forgotten(draft.holder)
            raise HistoryError("the name of the sender is not known; its process was away for too long")
        return _message(int(reply[1]), draft.room, int(reply[2]), reply[3])

    def recording(self, room: str) -> AbstractContextManager[Recording]:
        """Write down what a room is told from now to the end of the block."""
        return self._recordings.of(room, self.last_id)

    async def reach(self, id: int) -> None:
        """Wait until `last_id` is not less than an id, if there is such a message.

        Raises:
            RoomUnavailable: Redis does not answer.

        Cancellation: nothing is left behind.
        """
        if id <= self.last_id:
            return
        # What was said before this is answered has been heard, unless something was missed before.
        await self._store.run("counts")
        with trio.move_on_after(self._store.engine.outage):
            while self._asked != self._answered:
                await self._caught_up.wait()

    async def newest(self, room: str, *, upto: int) -> Page:
        """Return the newest messages of a room among those with ids up to and including `upto`.

        Raises:
            RoomUnavailable: they cannot be read now.

        Cancellation: nothing is left behind.
        """
        if upto < 0:
            return Page((), more=False)
        more, flat = await self._read_room("newest", room, upto, PAGE_MESSAGES, _PAGE_BYTES)
        messages, cut = _cut(room, flat)
        return Page(tuple(reversed(messages)), bool(more) or cut)

    async def after(self, room: str, id: int, *, upto: int) -> Missed:
        """Return the messages of a room right behind an id, of those up to and including `upto`.

        Raises:
            RoomUnavailable: they cannot be read now.

        Cancellation: nothing is left behind.
        """
        if id > upto:
            return Missed((), complete=False, more=False)
        limits = (MISSED_MESSAGES, PAGE_MESSAGES, _PAGE_BYTES)
        floor, behind, more, flat = await self._read_room("after", room, id, upto, *limits)
        if id < floor or behind > MISSED_MESSAGES:
            return Missed((), complete=False, more=False)
        messages, cut = _cut(room, flat)
        return Missed(tuple(messages), complete=True, more=bool(more) or cut)

    async def _read_room(self, script: str, room: str, *arguments: int) -> Any:
        reply = await self._store.run(script, self.log, room, *arguments)
        if reply[0] == b"other":
            self.follow()
            raise RoomUnavailable("the chat's log is another one now")
        return reply


def _identity() -> str:
    """Return the identity of a log that may begin."""
    return f"{int(time.time()):x}{secrets.token_urlsafe(6)}"


def _message(id: int, room: str, stamp: int, body: bytes) -> Message:
    value = json.loads(body)
    return Message(id, room, value["name"], value["text"], stamp)


def _cut(room: str, flat: list[Any]) -> tuple[list[Message], bool]:
    """Return the first messages, as many as fit into a page but at least one, and if some do not."""
    messages: list[Message] = []
    chars = 0
    for at in range(0, len(flat), 3):
        message = _message(int(flat[at]), room, int(flat[at + 1]), flat[at + 2])
        chars += len(message.text)
        if messages and chars > PAGE_CHARS:
            return messages, True
        messages.append(message)
    return messages, False
