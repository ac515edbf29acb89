"""What happens to members of a room that do not keep up, and a room's counters."""

from __future__ import annotations

from typing import Literal

import attrs

__all__ = ["RoomStatistics", "SlowPolicy"]


@attrs.frozen(kw_only=True)
class SlowPolicy:
    """When a room's member counts as slow, and what happens to it then.

    The messages that wait for one connection are counted together, from all its rooms; each room compares
    the sum with its own limits.

    Attributes:
        action: `"close"` ends the member's connection with 1013; `"drop_newest"` skips the message that does
            not fit; `"drop_oldest"` makes room for it by dropping the room's oldest that wait. Both drop
            messages that have waited for too long.
        max_bytes: payload bytes that may wait in a connection's backlog, besides `Limits.outbox_bytes`; a
            larger message may wait alone. 1 MiB.
        max_seconds: how long a message may wait, not counting time in which the server did not run. 10 s: a
            page that comes back from the background has caught up by then.
        max_messages: how many may wait. Each takes about 250 bytes besides its payload, so without this
            limit small ones would use many times `max_bytes`, and empty ones any amount. 16,384. NATS clients
            limit both, too.
    """

    action: Literal["close", "drop_newest", "drop_oldest"] = attrs.field(
        default="close", validator=attrs.validators.in_(("close", "drop_newest", "drop_oldest"))
    )
    max_bytes: int = attrs.field(default=1024 * 1024, validator=attrs.validators.gt(0))
    max_seconds: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    max_messages: int = attrs.field(default=16 * 1024, validator=attrs.validators.gt(0))


@attrs.frozen
class RoomStatistics:
    """A room's counters at one moment.

    Attributes:
        members: members now, of this `Room`.
        broadcasts: messages that this `Room` published since it was made.
        deliveries: copies handed to members' outboxes or backlogs.
        dropped: copies that a slow member did not get, or that were dropped after it had left.
        closed: connections closed because they were slow, because messages were lost, or by `room.close`.
    """

    members: int
    broadcasts: int
    deliveries: int
    dropped: int
    closed: int
