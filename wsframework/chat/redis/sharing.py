"""Make the two parts of a chat that keep it in Redis, and connect them to what is told there."""

from __future__ import annotations

from collections.abc import Iterable

from wsframework import Engine, Rooms
from wsframework.chat.messages import Retention
from wsframework.chat.redis.attendance import SharedAttendance
from wsframework.chat.redis.store import store_of
from wsframework.chat.redis.transcript import SharedTranscript
from wsframework.chat.transcript import Publish

__all__ = ["share"]


def share(
    engine: Engine, rooms: Rooms, reserved: Iterable[str], retention: Retention, publish: Publish
) -> tuple[SharedAttendance, SharedTranscript]:
    """Return the names and rooms, and the messages, of a chat on an engine's Redis.

    Args:
        engine: a `RedisEngine`, which the App runs before the chat.
        rooms: who hears whom in this process.
        reserved: names that no guest can have.
        retention: how many messages are kept.
        publish: called for each room with its new messages.

    Raises:
        ConfigurationError: the engine is none that can store a chat.
    """
    store = store_of(engine)
    attendance = SharedAttendance(store, rooms, reserved, lost=lambda: transcript.follow())
    transcript = SharedTranscript(
        store, retention, publish, reset=attendance.end_all, forgotten=attendance.forgotten
    )

    def begin() -> None:
        attendance.begin()
        transcript.follow()

    def heard(kind: bytes, value: bytes) -> None:
        if kind == b"said":
            transcript.said(value)
        elif kind == b"log":
            transcript.follow()
        else:
            attendance.heard(kind, value)

    store.listen(begin, heard)
    return attendance, transcript
