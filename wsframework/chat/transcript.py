"""What was said, as conversations see it: stored, told in one order, and read; whatever keeps it.

`journal` keeps it in SQLite or in memory, `redis.journal` in Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import attrs
import trio

from wsframework.chat.messages import Draft, Message, Missed, Page

__all__ = ["Publish", "Recording", "Recordings", "Transcript"]

Publish = Callable[[str, list[Message]], None]
"""Tell a room its new messages, in the order of their ids. Does not wait."""


@attrs.define(eq=False)
class Recording:
    """What a room is told while it is recorded.

    Attributes:
        upto: everything with an id up to this one was published before.
        messages: what was published since.
    """

    upto: int
    messages: list[Message] = attrs.field(factory=list)


class Recordings:
    """The recordings that go on, by room."""

    def __init__(self) -> None:
        self._recordings: dict[str, set[Recording]] = {}

    @contextmanager
    def of(self, room: str, upto: int) -> Iterator[Recording]:
        """Write down what a room is told from now to the end of the block."""
        recording = Recording(upto)
        recordings = self._recordings.setdefault(room, set())
        recordings.add(recording)
        try:
            yield recording
        finally:
            recordings.discard(recording)
            if not recordings:
                self._recordings.pop(room, None)

    def add(self, room: str, messages: list[Message]) -> None:
        """Write down what a room is told now."""
        for recording in self._recordings.get(room, ()):
            recording.messages += messages


class Transcript(Protocol):
    """All messages, in one order.

    Between two steps of the scheduler, all messages up to `last_id` are stored and published in this process,
    and no later ones are. So what is read of a room up to `Recording.upto`, and what is recorded, are all its
    messages, once, in order.
    """

    @property
    def log(self) -> str:
        """The identity of the log that ids belong to."""

    @property
    def last_id(self) -> int:
        """The id up to which everything is stored and published in this process."""

    async def append(self, draft: Draft) -> Message:
        """Store a message and publish it.

        Returns:
            The message, stored. Or, when its key was there already, the earlier one.

        Raises:
            HistoryError: it was not stored, as far as is known.

        Cancellation:
            It may be stored and published all the same.
        """

    def recording(self, room: str) -> AbstractContextManager[Recording]:
        """Write down what a room is told from now to the end of the block."""

    async def reach(self, id: int) -> None:
        """Wait until `last_id` is not less than an id that a client has seen, if it is one of this log.

        Raises:
            RoomUnavailable: it cannot be found out now.

        Cancellation: nothing is left behind.
        """

    async def newest(self, room: str, *, upto: int) -> Page:
        """Return the newest messages of a room among those with ids up to and including `upto`.

        Raises:
            HistoryError, RoomUnavailable: they cannot be read now.

        Cancellation: nothing is left behind.
        """

    async def after(self, room: str, id: int, *, upto: int) -> Missed:
        """Return the messages of a room right behind an id, of those up to and including `upto`.

        Raises:
            HistoryError, RoomUnavailable: they cannot be read now.

        Cancellation: nothing is left behind.
        """

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the log open until `stop`.

        Raises:
            ConfigurationError: it cannot be opened.

        Cancellation:
            Not felt once it is open: a server that stops still has handlers that finish. `stop` ends it.
        """

    def stop(self) -> None:
        """Let `run` write what is queued, and end."""
