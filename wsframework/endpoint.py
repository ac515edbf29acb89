"""One end of a WebSocket: what a connection's handler and its transport must agree on.

Theory of operation
-------------------
An `Endpoint` moves no bytes. A host makes it for a `Transport`, sessions and rooms hold it, and handlers see
it through their `Connection`. It owns:

- the **inbox**: messages that arrived and were not received yet, counted in bytes. Over the budget it asks
  the transport to stop reading, so TCP holds the peer back; control frames already read are unaffected.
- the **backlog**: a send that finds room in the outbox is committed at once, in one synchronous step. One
  that does not waits in line *with its message*, as do the broadcasts of the connection's rooms, and what
  makes room commits it on its behalf. So there is no moment between "has room" and "is in the outbox" at
  which a cancellation or another task could come in, and the order of calls is the order on the wire.
- the **end**, in steps that never go back:
      open      -> closing  we started the closing handshake; sends and receives raise
      open      -> ended    the peer closed, failed or was lost; sends raise, unread messages can be received
      (either)  -> closed   the transport has released the socket; `aclose` and `wait_closed` return
  `end` is the only function that ends a connection, and it wakes every waiter.

The attributes are public for `Connection`, whose methods read them without a call, because they are the path
of every message. Everything else calls the methods.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from sys import getsizeof
from threading import get_ident
from typing import Protocol

import outcome
import trio
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled

from wsframework.backlog import Backlog, WaitingBroadcast, WaitingSend
from wsframework.closes import Closed, CloseFrame
from wsframework.config import Limits
from wsframework.crashes import need_stack
from wsframework.errors import ConnectionClosed
from wsframework.memberships import Memberships
from wsframework.parking import ENDED, NEVER_PARKED, TAKE, Handed, Parked
from wsframework.pings import Pings
from wsframework.request import Request
from wsframework.statistics import ConnectionStatistics
from wsframework.transport import GONE, EncodedMessage, Transport
from wsframework.wire import PING

__all__ = ["HEADER_BYTES", "Endpoint", "SessionHooks"]

HEADER_BYTES = getsizeof("")
"""Python's overhead for a message, in bytes."""

_threads: dict[int, int] = {}
"""Numbers of threads: the connections of a thread share one object, because a new one takes 32 bytes."""


class SessionHooks(Protocol):
    """The session that runs the connection's handler."""

    def nursery(self) -> trio.Nursery:
        """Return the nursery of the connection's own tasks."""

    def connection_ended(self) -> None:
        """Cancel those tasks, and the handler after its grace."""

    def connection_closed(self) -> None:
        """Take note that the transport has released its socket."""

    def cancel(self) -> None:
        """Cancel the handler now."""


class Endpoint:
    """The state of one connection, and what its host, its session and its rooms do with it.

    Args:
        transport: what carries its frames.
        request: its opening handshake.
        limits: sizes of inbox and outbox.

    Attributes:
        thread: the number of the thread that it belongs to.
        transport: as given; `GONE` once the socket is released.
        request: as given.
        closed: how the connection ended, or None while it is open.
        closing: whether our side has started the closing handshake.
        ended: whether the connection is over for its handler.
        inbox: messages to be received, or None.
        unread_bytes: the memory they take.
        paused: whether the transport has stopped reading because of them.
        receiver: the task that waits for a message.
        parked: the object that it awaits.
        handed: the message for a task that was woken for it and has not run since, or None.
        on_idle: called when the handler asks for a message and there is none.
        outbox_limit: bytes in the outbox from which on sends wait.
        waiting: the backlog while something is in line, else None.
        backlog: the same until its timer has run out.
        messages_sent: messages committed to the outbox.
        messages_received: messages that arrived.
        pings: pings of ours in flight, or None.
        draining: True once the server is about to close it; before that False, or the event of waiting tasks.
        memberships: of rooms, or None if it never had any.
        session: runs the handler.
    """

    __slots__ = (
        "_closed_event",
        "_limits",
        "_opened_at",
        "_round_trip",
        "backlog",
        "closed",
        "closing",
        "draining",
        "ended",
        "handed",
        "inbox",
        "memberships",
        "messages_received",
        "messages_sent",
        "on_idle",
        "outbox_limit",
        "parked",
        "paused",
        "pings",
        "receiver",
        "request",
        "session",
        "thread",
        "transport",
        "unread_bytes",
        "waiting",
    )

    def __init__(self, transport: Transport, request: Request, limits: Limits) -> None:
        self.transport = transport
        self.request = request
        self._limits = limits
        self.outbox_limit = limits.outbox_bytes
        self._opened_at = trio.current_time()
        thread = get_ident()
        self.thread = _threads.setdefault(thread, thread)
        self.session: SessionHooks | None = None
        # Empty containers are not free (a deque is 760 bytes), so an idle connection has none.
        self.inbox: deque[str | bytes] | None = None
        self.waiting: Backlog | None = None
        self.backlog: Backlog | None = None
        self.pings: Pings | None = None
        self.memberships: Memberships | None = None
        self.receiver: Task | None = None
        self.parked = Parked(self._stop_receiving)
        self.handed: str | bytes | None = None
        self.unread_bytes = 0
        self.paused = False
        self.messages_sent = 0
        self.messages_received = 0
        self._round_trip: float | None = None
        self.closing = False
        self.ended = False
        self.closed: Closed | None = None
        self._closed_event: trio.Event | None = None
        self.draining: trio.Event | bool = False
        self.on_idle: Callable[[], None] | None = None

    def statistics(self) -> ConnectionStatistics:
        """Return the connection's counters."""
        return ConnectionStatistics(
            messages_sent=self.messages_sent,
            messages_received=self.messages_received,
            unread_messages=len(self.inbox) if self.inbox else 0,
            unread_bytes=self.unread_bytes,
            outbox_bytes=self.transport.outbox_bytes,
            waiting_senders=0 if self.waiting is None else self.waiting.senders,
            opened_at=self._opened_at,
            round_trip=self._round_trip,
        )

    # The handler's life

    def begin(self, session: SessionHooks) -> None:
        """Take the session that runs the handler."""
        self.session = session
        if self.ended:
            session.connection_ended()

    def cancel_handler(self) -> None:
        """Cancel the handler without its grace, at the server's hard deadline."""
        if self.session is not None:
            self.session.cancel()

    def drain(self) -> None:
        """Tell the handler that the server is going to end the connection."""
        event, self.draining = self.draining, True
        if isinstance(event, trio.Event):
            event.set()

    # Messages in

    def deliver(self, message: str | bytes) -> None:
        """Take a message that arrived: to the waiting receiver, or to the inbox."""
        self.messages_received += 1
        receiver = self.receiver
        if receiver is not None:
            self.receiver = None
            if self.handed is None:
                self.handed = message
                reschedule(receiver, TAKE)
            else:  # for another task, which has not run since
                reschedule(receiver, Handed(message))
            return
        if self.closing:
            return  # "an endpoint [that sent Close] MAY discard any further data received" (RFC 6455 §1.4)
        if self.inbox is None:
            self.inbox = deque()
        self.inbox.append(message)
        # `_memory_of`, without the call: this is the path of every message.
        self.unread_bytes += (
            len(message) + HEADER_BYTES if type(message) is bytes or message.isascii() else getsizeof(message)
        )
        if self.unread_bytes > self._limits.unread_bytes and not self.paused:
            self.paused = True
            self.transport.pause_reading()

    def take(self) -> str | bytes:
        """Take the first message out of the inbox, which is not empty."""
        assert self.inbox is not None
        message = self.inbox.popleft()
        self.unread_bytes -= _memory_of(message)
        if self.paused:
            self.resume_reading()
        return message

    def resume_reading(self) -> None:
        """Resume reading once half of the budget is free, not for every message of a slow handler."""
        if self.unread_bytes <= self._limits.unread_bytes // 2:
            self.paused = False
            self.transport.resume_reading()

    def received_all(self) -> None:
        """Call `on_idle`: the handler has received everything and asks for more."""
        on_idle, self.on_idle = self.on_idle, None
        if on_idle is not None:
            on_idle()

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        """Call back once every message that arrived was received and the handler asks for another."""
        if self.receiver is not None:
            callback()
        else:
            self.on_idle = callback

    @property
    def has_unread(self) -> bool:
        """Whether messages wait to be received."""
        # A message that was handed over counts until its task has run: it cannot have been answered yet.
        return self.handed is not None or bool(self.inbox)

    @property
    def messages_taken(self) -> int:
        """How many messages were received."""
        return self.messages_received - (len(self.inbox) if self.inbox else 0)

    def deliver_pong(self, payload: bytes) -> None:
        """Wake the ping that this pong answers, and all before it (RFC 6455 §5.5.3)."""
        round_trip = None if self.pings is None else self.pings.answer(payload)
        if round_trip is not None:
            self._round_trip = round_trip

    def _stop_receiving(self, _: object) -> Abort:
        self.receiver = None
        return Abort.SUCCEEDED

    # Messages out

    def has_room(self, size: int) -> bool:
        """Whether `size` bytes may be committed now; more than the limit needs an empty outbox."""
        outbox = self.transport.outbox_bytes
        return self.waiting is None and (outbox == 0 or outbox + size <= self.outbox_limit)

    def offer(self, message: EncodedMessage, size: int) -> bool:
        """Commit a broadcast message of `size` payload bytes if the outbox has room for it now."""
        # `has_room`, without the call: this is the path of every delivery.
        transport = self.transport
        outbox = transport.outbox_bytes
        if (
            (outbox and outbox + size > self.outbox_limit)
            or self.waiting is not None
            or self.closed is not None
        ):
            return False
        self.messages_sent += 1
        transport.send_encoded(message)
        return True

    async def send_in_line(self, opcode: int, payload: bytes) -> None:
        """Wait in line until the message or ping is committed.

        Raises:
            ConnectionClosed: the connection ended before that.

        Cancellation: the message has left the line and was not sent.
        """
        waiting = WaitingSend(current_task(), opcode, payload)
        self.open_backlog().add_send(waiting)

        def abort(_: object) -> Abort:
            # Trio can abort again what was left as it was, and not what was done by half.
            need_stack()
            if self.waiting is not None:
                self.waiting.remove_send(waiting)
                # What waited behind a message too large for the room there is may fit now.
                self.made_room()
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    def open_backlog(self) -> Backlog:
        """Return the backlog for an entry that is added now; create it if necessary."""
        if self.waiting is None:
            if self.backlog is None:
                self.backlog = Backlog(self)
            self.waiting = self.backlog
            self.transport.room_wanted = True
        return self.waiting

    def made_room(self) -> None:
        """Commit what waits, first come first served, while the outbox has room."""
        backlog = self.waiting
        if backlog is None:
            return
        transport = self.transport
        while (first := backlog.first()) is not None:
            outbox = transport.outbox_bytes
            if outbox and outbox + first.size > self.outbox_limit:
                transport.room_wanted = True
                return
            backlog.pop()
            if type(first) is WaitingSend:
                if first.opcode != PING:
                    self.messages_sent += 1
                transport.send(first.opcode, first.payload)
                reschedule(first.task)
            else:
                assert type(first) is WaitingBroadcast
                self.messages_sent += 1
                transport.send_encoded(first.message)
        self.waiting = None
        if not backlog.is_timed:
            self.backlog = None

    # Rooms

    def begin_membership(self) -> Memberships:
        """Count one more membership, and return all.

        Raises:
            TooManyRooms: the connection has as many as it may have.
        """
        if self.memberships is None:
            self.memberships = Memberships(self._limits.memberships)
        self.memberships.begin()
        return self.memberships

    # The end

    def start_close(self, frame: CloseFrame, cause: str = "") -> None:
        """Start the closing handshake, unless the connection is already closing or over."""
        if self.closing or self.ended:
            return
        need_stack()
        self.closing = True
        self.closed = Closed(sent=frame, received=None, sent_first=True, cause=cause)
        if self.inbox is not None:
            self.inbox = None
            self.unread_bytes = 0
        if self.paused:
            # The peer's Close frame is behind the messages that will not be received.
            self.paused = False
            self.transport.resume_reading()
        self._wake_waiters()
        self.transport.close(frame)
        if self.memberships is not None:
            self.memberships.end_all()

    def end(self, closed: Closed) -> None:
        """End the connection for its handler: the peer closed it, broke the protocol or was lost."""
        self.closed = closed
        if self.ended:
            return
        self.ended = True
        self.on_idle = None
        self._wake_waiters()
        if self.session is not None:
            self.session.connection_ended()
        if self.memberships is not None:
            self.memberships.end_all()

    def finish(self, closed: Closed) -> None:
        """Wake what waits for the end, because the transport has released its socket."""
        self.end(closed)
        # This breaks the reference cycles, so that the connection's memory is free at once. Under a reconnect
        # storm the garbage collector would otherwise stop the server for tens of milliseconds at a time.
        self.transport = GONE
        self.parked = NEVER_PARKED
        if self._closed_event is not None:
            self._closed_event.set()
        if self.session is not None:
            self.session.connection_closed()

    @property
    def is_finished(self) -> bool:
        """Whether the transport has released its socket."""
        return self.transport is GONE

    async def wait_finished(self) -> None:
        """Wait until the transport has released its socket.

        Cancellation: nothing is left behind.
        """
        if self.transport is GONE:
            await trio.lowlevel.checkpoint()
            return
        if self._closed_event is None:
            self._closed_event = trio.Event()
        await self._closed_event.wait()

    def _wake_waiters(self) -> None:
        closed = self.closed
        assert closed is not None
        if self.receiver is not None:
            receiver, self.receiver = self.receiver, None
            # Not an exception: `async for`, which nearly every handler uses, would only discard it.
            reschedule(receiver, Handed(ENDED))
        backlog, self.backlog, self.waiting = self.backlog, None, None
        if backlog is not None:
            for task in backlog.end():
                reschedule(task, outcome.Error(ConnectionClosed(closed)))
        # A pong may still come while only our side is closing.
        if self.ended and self.pings is not None:
            self.pings.fail(lambda: ConnectionClosed(closed))


def _memory_of(message: str | bytes) -> int:
    """Return the memory that a message takes, at half the cost of `getsizeof` where that is simple."""
    if type(message) is bytes or message.isascii():
        return len(message) + HEADER_BYTES
    return getsizeof(message)
