"""A connection's counters."""

from __future__ import annotations

import attrs

__all__ = ["ConnectionStatistics"]


@attrs.frozen
class ConnectionStatistics:
    """A connection's counters at one moment.

    Attributes:
        messages_sent: messages committed to the outbox.
        messages_received: messages that arrived, received by the handler or not.
        unread_messages: messages that wait in the inbox.
        unread_bytes: the memory they take.
        outbox_bytes: encoded bytes that the socket has not taken yet.
        waiting_senders: tasks that wait for room in the outbox.
        opened_at: `trio.current_time()` when the connection opened.
        round_trip: the round-trip time of our last answered ping, in seconds, or None.
    """

    messages_sent: int
    messages_received: int
    unread_messages: int
    unread_bytes: int
    outbox_bytes: int
    waiting_senders: int
    opened_at: float
    round_trip: float | None
