"""Say it once when rooms or sessions that end at a process are used in one of several."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

from wsframework.records import record
from wsframework.rooms.local import call_for_local_rooms
from wsframework.sessions.local import call_for_local_sessions
from wsframework.workers.page import Slot

__all__ = ["warn_of_local_rooms", "warn_of_local_sessions"]


def warn_of_local_rooms(slot: Slot) -> None:
    """Log one warning, in the first of all workers that uses a room of a `LocalEngine` while others serve.

    Args:
        slot: this worker's, which knows the others.
    """
    _warn_once(
        slot,
        call_for_local_rooms,
        "rooms",
        "a room of a LocalEngine has the members of one worker only: use a RedisEngine, route all members of "
        "a room to one server, or run one worker",
    )


def warn_of_local_sessions(slot: Slot) -> None:
    """Log one warning, in the first of all workers in which a session of a `LocalSessionStore` begins.

    Args:
        slot: this worker's, which knows the others.
    """
    _warn_once(
        slot,
        call_for_local_sessions,
        "sessions",
        "a session of a LocalSessionStore can be resumed in the same worker only: use a RedisSessionStore, "
        "or run one worker",
    )


def _warn_once(
    slot: Slot,
    call_for: Callable[[Callable[[], None] | None], None],
    what: Literal["rooms", "sessions"],
    hint: str,
) -> None:
    def warn() -> None:
        if slot.is_alone():
            return  # for now: this may be the first of several
        call_for(None)
        if slot.is_first_to_warn(what):
            record(logging.WARNING, f"{what}.one_process", hint=hint)

    call_for(warn)
