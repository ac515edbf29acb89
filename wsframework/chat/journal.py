"""The one order of all messages: stored in groups, then published, then acknowledged.

Theory of operation
-------------------
    append(draft)  ->  queue  ->  one transaction for all that is queued  ->  publish in the order of ids
                                                                           ->  append returns the message

While one transaction runs in its thread, the next batch is collected, so all messages of a batch share the
time of one commit (group commit). Publishing is one synchronous step after the commit. So between two steps
of the scheduler, all messages up to `last_id` are stored and published, and no later ones are.

`recording` depends on that. While a client's missed messages are read from the database, it collects the
messages that are published. Both together are all messages, once, in order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeVar

import attrs
import trio

from wsframework.chat.history import HistoryStore
from wsframework.chat.messages import Draft, HistoryError, Message, Missed, Page
from wsframework.chat.transcript import Publish, Recording, Recordings

__all__ = ["Journal"]

logger = logging.getLogger("wsframework.chat")

ResultT = TypeVar("ResultT")

_BATCH_MESSAGES = 1000
_PRUNE_SECONDS = 3600.0


@attrs.define(eq=False)
class _Entry:
    draft: Draft
    settled: trio.Event = attrs.field(factory=trio.Event)
    outcome: Message | HistoryError | None = None


class Journal:
    """Messages in, in any order; out in one: a `Transcript`.

    Args:
        store: where they are kept.
        publish: called for each room with its new messages of a batch.

    Attributes:
        last_id: the id up to which everything is stored and published.
    """

    def __init__(self, store: HistoryStore, publish: Publish) -> None:
        self._store = store
        self._publish = publish
        self.last_id = 0
        self._queue: list[_Entry] = []
        self._work = trio.Event()
        self._prune_due = False
        self._stopping = False
        self._recordings = Recordings()
        # The writer and a few readers at once: more would only wait for the store's locks.
        self._threads = trio.CapacityLimiter(4)

    @property
    def log(self) -> str:
        """The identity of the log that ids belong to."""
        return self._store.log

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open the history, and write what is appended until `stop`.

        Raises:
            ConfigurationError: the history cannot be opened.

        Cancellation:
            Not felt once it is open: a server that stops still has handlers that finish. `stop` ends it.
        """
        self._stopping = False
        try:
            await self._in_thread(self._store.open)
            self.last_id = self._store.last_id
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._prune_by_age)
                    task_status.started()
                    await self._write_all()
                    nursery.cancel_scope.cancel(reason="the journal is complete")
        finally:
            with trio.CancelScope(shield=True):
                await self._in_thread(self._store.close)

    def stop(self) -> None:
        """Let `run` write what is queued, and end."""
        self._stopping = True
        self._work.set()

    async def append(self, draft: Draft) -> Message:
        """Store a message and publish it.

        Returns:
            The message; it is safe. Or, when its key was there already, the earlier one.

        Raises:
            HistoryError: it was not stored.

        Cancellation:
            It may be stored and published all the same.
        """
        if self._stopping:
            raise HistoryError("the chat history is closing")
        entry = _Entry(draft)
        self._queue.append(entry)
        self._work.set()
        await entry.settled.wait()
        if isinstance(entry.outcome, Message):
            return entry.outcome
        raise entry.outcome or HistoryError("the chat history is closed")

    async def read(self, query: Callable[[HistoryStore], ResultT]) -> ResultT:
        """Ask the store something in a thread.

        Raises:
            HistoryError: the history cannot be read.

        Cancellation:
            Felt once the thread is done.
        """
        try:
            return await self._in_thread(partial(query, self._store))
        except HistoryError as error:
            logger.error("%s", error)
            raise

    async def newest(self, room: str, *, upto: int) -> Page:
        """Return the newest messages of a room, as `HistoryStore.newest`.

        Cancellation: felt once the thread is done.
        """
        return await self.read(lambda store: store.newest(room, upto=upto))

    async def after(self, room: str, id: int, *, upto: int) -> Missed:
        """Return the messages of a room right behind an id, as `HistoryStore.after`.

        Cancellation: felt once the thread is done.
        """
        return await self.read(lambda store: store.after(room, id, upto=upto))

    async def reach(self, id: int) -> None:
        """Do nothing: what clients of this process have seen was published here."""

    def recording(self, room: str) -> AbstractContextManager[Recording]:
        """Write down what a room is told from now to the end of the block."""
        return self._recordings.of(room, self.last_id)

    async def _in_thread(self, function: Callable[[], ResultT]) -> ResultT:
        return await trio.to_thread.run_sync(function, limiter=self._threads)

    async def _write_all(self) -> None:
        """Do all the writing there is: one batch, then a bit of forgetting if that is due, and so on."""
        while True:
            if not self._queue and not self._prune_due:
                if self._stopping:
                    return
                self._work = trio.Event()
                await self._work.wait()
                continue
            if self._queue:
                await self._write_batch()
            if self._prune_due or self._store.prune_is_due:
                await self._prune()

    async def _write_batch(self) -> None:
        batch, self._queue = self._queue[:_BATCH_MESSAGES], self._queue[_BATCH_MESSAGES:]
        drafts = [entry.draft for entry in batch]
        try:
            stored = await self._in_thread(partial(self._store.append, drafts))
        except HistoryError as error:
            logger.error("%s; %d messages were refused", error, len(batch))
            for entry in batch:
                entry.outcome = HistoryError(str(error))
                entry.settled.set()
        else:
            self._settle(batch, stored)

    def _settle(self, batch: list[_Entry], stored: list[tuple[Message, bool]]) -> None:
        """Publish a batch and wake the waiting tasks, in one step without a checkpoint."""
        rooms: dict[str, list[Message]] = {}
        for message, new in stored:
            if new:
                rooms.setdefault(message.room, []).append(message)
                self.last_id = message.id
        for room, messages in rooms.items():
            self._recordings.add(room, messages)
            self._publish(room, messages)
        for entry, (message, _) in zip(batch, stored, strict=True):
            entry.outcome = message
            entry.settled.set()

    async def _prune_by_age(self) -> None:
        while True:
            await trio.sleep(_PRUNE_SECONDS)
            self._prune_due = True
            self._work.set()

    async def _prune(self) -> None:
        try:
            self._prune_due = await self._in_thread(self._store.prune)
        except HistoryError as error:
            self._prune_due = False
            logger.error("%s", error)
