"""Pings of ours that wait for their pongs (RFC 6455 §5.5.2, §5.5.3)."""

from __future__ import annotations

from collections.abc import Callable

import outcome
import trio
from trio.lowlevel import Abort, current_task, reschedule, wait_task_rescheduled

from wsframework.wire import MAX_CONTROL_PAYLOAD

__all__ = ["Ping", "Pings"]


class Ping:
    """One ping in flight."""

    __slots__ = ("_task", "payload", "round_trip", "sent_at")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.sent_at = trio.current_time()
        self.round_trip: float | None = None
        self._task: trio.lowlevel.Task | None = None


class Pings:
    """The pings in flight of one connection, oldest first."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending: dict[bytes, Ping] = {}

    def begin(self, payload: bytes) -> Ping:
        """Register a ping before it is sent, because its pong may come at once.

        Raises:
            ValueError: the payload is too long for a control frame, or in flight already.
        """
        if len(payload) > MAX_CONTROL_PAYLOAD:
            raise ValueError(
                f"a ping's payload has at most {MAX_CONTROL_PAYLOAD} bytes; this one has {len(payload)}"
            )
        if payload in self._pending:
            raise ValueError(f"a ping with the payload {payload!r} is already in flight")
        ping = self._pending[payload] = Ping(payload)
        return ping

    def forget(self, ping: Ping) -> None:
        """Ignore the pong that may come."""
        # A stray pong may have answered it already and made its payload free for another one.
        if self._pending.get(ping.payload) is ping:
            del self._pending[ping.payload]

    async def wait(self, ping: Ping) -> float:
        """Wait for the pong and return the round-trip time in seconds.

        Raises:
            Exception: what `fail` makes.

        Cancellation: the ping is forgotten.
        """
        if ping.round_trip is not None:
            return ping.round_trip
        ping._task = current_task()

        def abort(_: object) -> Abort:
            self.forget(ping)
            return Abort.SUCCEEDED

        round_trip: float = await wait_task_rescheduled(abort)
        return round_trip

    def answer(self, payload: bytes) -> float | None:
        """Wake the ping that this pong answers, and all before it; return the round-trip time of that ping.

        A peer "MAY elect to send a Pong frame for only the most recently processed Ping frame".
        """
        if payload not in self._pending:
            return None  # "A Pong frame MAY be sent unsolicited."
        now = trio.current_time()
        for key in list(self._pending):
            ping = self._pending.pop(key)
            ping.round_trip = now - ping.sent_at
            if ping._task is not None:
                reschedule(ping._task, outcome.Value(ping.round_trip))
            if key == payload:
                return ping.round_trip
        raise AssertionError("the payload is among the keys")

    def fail(self, make_error: Callable[[], Exception]) -> None:
        """Wake every waiting ping with an exception of its own."""
        pending, self._pending = self._pending, {}
        for ping in pending.values():
            if ping._task is not None:
                reschedule(ping._task, outcome.Error(make_error()))
