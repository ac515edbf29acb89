"""Say it once when rooms that end at a process are used in one of several."""

from __future__ import annotations

import logging

from wsframework.records import record
from wsframework.rooms.local import call_for_local_rooms
from wsframework.workers.page import Slot

__all__ = ["warn_of_local_rooms"]


def warn_of_local_rooms(slot: Slot) -> None:
    """Log one warning, in the first of all workers that uses a room of a `LocalEngine` while others serve.

    Args:
        slot: this worker's, which knows the others.
    """

    def warn() -> None:
        if slot.is_alone():
            return  # for now: this may be the first of several
        call_for_local_rooms(None)
        if not slot.is_first_to_warn():
            return
        record(
            logging.WARNING,
            "rooms.one_process",
            hint="a room of a LocalEngine has the members of one worker only: use a RedisEngine, route all "
            "members of a room to one server, or run one worker",
        )

    call_for_local_rooms(warn)
