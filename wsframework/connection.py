"""What a handler holds: one WebSocket connection, with sends and closes that may be cancelled anywhere.

Theory of operation
-------------------
A `Connection` moves no bytes. It stands between the handler's tasks and a `Transport`, which a host made for
it, and owns what both must agree on:

- the **inbox**: messages that arrived and were not received yet, counted in bytes. Over the budget it asks
  the transport to stop reading, so TCP holds the peer back; control frames already read are unaffected.
- the **backlog**: a send that finds room in the outbox is committed at once, in one synchronous step. One
  that does not waits in line *with its message*, as do the broadcasts of the connection's rooms, and whoever
  makes room commits it on its behalf. So there is no moment between "has room" and "is in the outbox" at
  which a cancellation or another task could come in, and the order of calls is the order on the wire.
- the **end**, in three steps that never go back:
      open      -> closing  we started the closing handshake; sends and receives raise
      open      -> ended    the peer closed, failed or was lost; sends raise, unread messages can be received
      (either)  -> closed   the transport has released the socket; `aclose` and `wait_closed` return
  `_end` is the only function that ends a connection, and it wakes every waiter.

Methods with a leading underscore are the host's side of the connection; handlers use the others. Those look
first whether they are called in the connection's own thread: in another one, even `reschedule` would wake the
task in the wrong run. They compare threads and not tasks, so host code of that thread may call them as well.
And Ctrl-C is held back in them, which costs nothing: it comes between two messages, and tears none.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from sys import getsizeof
from threading import get_ident
from typing import Protocol, Self

import attrs
import outcome
import trio
from trio.lowlevel import (
    Abort,
    Task,
    checkpoint_if_cancelled,
    current_task,
    reschedule,
    wait_task_rescheduled,
)

from wsframework.backlog import Backlog, WaitingBroadcast, WaitingSend
from wsframework.config import Limits
from wsframework.errors import Closed, CloseFrame, ConnectionClosed, WrongThread, check_close
from wsframework.parking import NEVER_PARKED, Handed, Parked
from wsframework.pings import Pings
from wsframework.request import Request
from wsframework.transport import GONE, BytesLike, EncodedMessage, Transport, to_bytes, to_payload
from wsframework.wire import Opcode

__all__ = ["Connection", "ConnectionStatistics", "SessionHooks"]

_TEXT = int(Opcode.TEXT)
_PING = int(Opcode.PING)


class SessionHooks(Protocol):
    """What runs the connection's handler."""

    def nursery(self) -> trio.Nursery:
        """Return the nursery of the connection's own tasks."""

    def connection_ended(self) -> None:
        """Cancel those tasks, and the handler after its grace."""

    def connection_closed(self) -> None:
        """Take note that the transport has released its socket."""

    def cancel(self) -> None:
        """Cancel the handler now."""


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
        round_trip: seconds the last ping of ours took to be answered, or None.
    """

    messages_sent: int
    messages_received: int
    unread_messages: int
    unread_bytes: int
    outbox_bytes: int
    waiting_senders: int
    opened_at: float
    round_trip: float | None


_HEADER_BYTES = getsizeof("")


def _memory_of(message: str | bytes) -> int:
    """Return the memory that a message takes, at half the price of `getsizeof` where that is simple."""
    if type(message) is bytes or message.isascii():
        return len(message) + _HEADER_BYTES
    return getsizeof(message)


_ping_numbers = itertools.count(1)

_threads: dict[int, int] = {}
"""The numbers of threads that have connections, so that those share one object: a new one has 32 bytes."""


class Connection:
    """One open WebSocket connection, as its handler sees it.

    All methods may be called from any number of tasks of the connection, except that only one task at a
    time may receive. In any other thread than the server's they raise `WrongThread` and change nothing;
    only reading `request`, `subprotocol`, `closed`, `draining` and `statistics()` is allowed there.
    """

    __slots__ = (
        "__weakref__",
        "_backlog",
        "_closed",
        "_closed_event",
        "_closing",
        "_draining",
        "_ended",
        "_handed",
        "_inbox",
        "_limits",
        "_messages_received",
        "_messages_sent",
        "_on_idle",
        "_opened_at",
        "_outbox_limit",
        "_parked",
        "_paused",
        "_pings",
        "_receiver",
        "_request",
        "_round_trip",
        "_session",
        "_subprotocol",
        "_thread",
        "_transport",
        "_unread_bytes",
        "_waiting",
    )

    def __init__(
        self, transport: Transport, request: Request, *, subprotocol: str | None = None, limits: Limits
    ) -> None:
        self._transport = transport
        self._request = request
        self._subprotocol = subprotocol
        self._limits = limits
        self._outbox_limit = limits.outbox_bytes
        self._opened_at = trio.current_time()
        thread = get_ident()
        self._thread = _threads.setdefault(thread, thread)
        self._session: SessionHooks | None = None
        # Empty containers are not free (a deque is 760 bytes), so an idle connection has none.
        self._inbox: deque[str | bytes] | None = None
        # `_waiting` is the backlog while something is in line, and what every send looks at. The backlog
        # itself stays until its timer has run out.
        self._waiting: Backlog | None = None
        self._backlog: Backlog | None = None
        self._pings: Pings | None = None
        self._receiver: Task | None = None
        self._parked = Parked(self._stop_receiving)
        self._handed = False
        self._unread_bytes = 0
        self._paused = False
        self._messages_sent = 0
        self._messages_received = 0
        self._round_trip: float | None = None
        self._closing = False
        self._ended = False
        self._closed: Closed | None = None
        self._closed_event: trio.Event | None = None
        self._draining: trio.Event | bool = False
        self._on_idle: Callable[[], None] | None = None

    def __repr__(self) -> str:
        state = "closed" if self._ended else "closing" if self._closing else "open"
        return f"<Connection {self._request.path} from {self._request.remote}, {state}>"

    @property
    def request(self) -> Request:
        """The opening handshake."""
        return self._request

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that both sides agreed on, or None."""
        return self._subprotocol

    @property
    def nursery(self) -> trio.Nursery:
        """The nursery for tasks that belong to this connection; cancelled the moment the connection ends.

        An exception in one of them ends the connection as an exception in the handler would: Close 1011.

        Raises:
            RuntimeError: the handler has not begun, or is over.
            WrongThread: this is not the server's thread.
        """
        if get_ident() != self._thread:
            raise WrongThread("ws.nursery")
        if self._session is None:
            raise RuntimeError("ws.nursery is there only while the connection's handler runs")
        return self._session.nursery()

    @property
    def closed(self) -> Closed | None:
        """How the connection ended: both Close frames and their order. None while it is open.

        While the closing handshake is under way it says what is known so far.
        """
        return self._closed

    @property
    def draining(self) -> bool:
        """True once the server has begun to stop: finish what matters, a Close 1001 is coming."""
        return self._draining is True

    async def wait_draining(self) -> None:
        """Wait until the server begins to stop.

        Raises:
            WrongThread: this is not the server's thread.

        Cancellation: nothing is left behind.
        """
        if get_ident() != self._thread:
            raise WrongThread("ws.wait_draining")
        if self._draining is True:
            await trio.lowlevel.checkpoint()
            return
        if not isinstance(self._draining, trio.Event):
            self._draining = trio.Event()
        await self._draining.wait()

    def statistics(self) -> ConnectionStatistics:
        """Return the connection's counters."""
        return ConnectionStatistics(
            messages_sent=self._messages_sent,
            messages_received=self._messages_received,
            unread_messages=len(self._inbox) if self._inbox else 0,
            unread_bytes=self._unread_bytes,
            outbox_bytes=self._transport.outbox_bytes,
            waiting_senders=0 if self._waiting is None else self._waiting.senders,
            opened_at=self._opened_at,
            round_trip=self._round_trip,
        )

    # Receiving

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> str | bytes:
        """Receive the next message: `str` for Text, `bytes` for Binary.

        Raises:
            ConnectionClosed: the connection is closed and every message that came before was received; or
                our side has started to close it.
            trio.BusyResourceError: another task is already receiving.
            WrongThread: this is not the server's thread.

        Cancellation:
            Cancelled means nothing was taken: the message stays for the next call.

        Source: RFC 6455 §6.2.
        """
        if get_ident() != self._thread:
            raise WrongThread("ws.receive")
        # No task switch when a message is at hand. That is fair to other tasks: one read brings in a bounded
        # number of bytes, so the inbox runs dry and the task parks.
        if self._inbox:
            await checkpoint_if_cancelled()
            return self._take()
        if self._on_idle is not None:
            self._received_all()
        # Only now, because that may have ended the connection.
        if self._closed is not None:
            raise ConnectionClosed(self._closed)
        if self._receiver is not None:
            raise trio.BusyResourceError("another task is already receiving from this connection")
        self._receiver = current_task()
        message: str | bytes | None = await self._parked
        if message is None:
            assert self._closed is not None
            raise ConnectionClosed(self._closed)
        self._handed = False
        return message

    def __aiter__(self) -> Self:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> str | bytes:
        # `receive` again, without the coroutine: this is the loop nearly every handler is.
        if get_ident() != self._thread:
            raise WrongThread("ws.receive")
        if self._inbox:
            await checkpoint_if_cancelled()
            # `_take` and `_memory_of`, without the calls.
            message = self._inbox.popleft()
            self._unread_bytes -= (
                len(message) + _HEADER_BYTES
                if type(message) is bytes or message.isascii()
                else getsizeof(message)
            )
            if self._paused:
                self._resume_reading()
            return message
        if self._on_idle is not None:
            self._received_all()
        if self._closed is not None:
            raise StopAsyncIteration
        if self._receiver is not None:
            raise trio.BusyResourceError("another task is already receiving from this connection")
        self._receiver = current_task()
        parked: str | bytes | None = await self._parked
        if parked is None:
            raise StopAsyncIteration
        self._handed = False
        return parked

    def _take(self) -> str | bytes:
        assert self._inbox is not None
        message = self._inbox.popleft()
        self._unread_bytes -= _memory_of(message)
        if self._paused:
            self._resume_reading()
        return message

    def _resume_reading(self) -> None:
        # Half the budget, so that a slow handler does not switch reading on and off for every message.
        if self._unread_bytes <= self._limits.unread_bytes // 2:
            self._paused = False
            self._transport.resume_reading()

    def _received_all(self) -> None:
        on_idle, self._on_idle = self._on_idle, None
        if on_idle is not None:
            on_idle()

    def _stop_receiving(self, _: object) -> Abort:
        self._receiver = None
        return Abort.SUCCEEDED

    # Sending

    @trio.lowlevel.enable_ki_protection
    async def send(self, message: str | BytesLike) -> None:
        """Send one message as a single Text or Binary frame.

        Returns as soon as the whole frame is in the outbox, in the order of calls; it waits only while the
        outbox is full, which is when the peer or the network is slower than we are. Broadcasts that wait for
        the connection go first.

        Args:
            message: `str` goes out as Text (UTF-8), bytes-like as Binary.

        Raises:
            ConnectionClosed: the closing handshake has started or the transport is gone.
            TypeError: the message is neither `str` nor bytes-like.
            UnicodeEncodeError: the text holds a lone surrogate, which no UTF-8 can carry.
            WrongThread: this is not the server's thread.

        Cancellation:
            Cancelled means not sent; the connection stays usable.

        Source: RFC 6455 §5.6, §6.1.
        """
        if get_ident() != self._thread:
            raise WrongThread("ws.send")
        await checkpoint_if_cancelled()
        if type(message) is str:
            opcode, payload = _TEXT, message.encode()
        else:
            opcode, payload = to_payload(message)
        if self._closed is not None:
            raise ConnectionClosed(self._closed)
        # `_has_room`, without the call: this is the path of every message.
        transport = self._transport
        outbox = transport.outbox_bytes
        if self._waiting is None and (outbox == 0 or outbox + len(payload) <= self._outbox_limit):
            self._messages_sent += 1
            transport.send(opcode, payload)
        else:
            await self._send_in_line(opcode, payload)

    @trio.lowlevel.enable_ki_protection
    def send_nowait(self, message: str | BytesLike) -> None:
        """Send one message if the outbox has room for it now.

        Raises:
            trio.WouldBlock: there is no room, or a task or a broadcast is already waiting for some; nothing
                was sent.
            ConnectionClosed, TypeError, UnicodeEncodeError, WrongThread: as `send`.
        """
        if get_ident() != self._thread:
            raise WrongThread("ws.send_nowait")
        opcode, payload = to_payload(message)
        if self._closed is not None:
            raise ConnectionClosed(self._closed)
        if not self._has_room(len(payload)):
            raise trio.WouldBlock
        self._messages_sent += 1
        self._transport.send(opcode, payload)

    @trio.lowlevel.enable_ki_protection
    async def ping(self, payload: BytesLike | None = None) -> float:
        """Ask the peer for a sign of life and wait for its pong.

        Args:
            payload: at most 125 bytes, not the payload of a ping still in flight; None makes a unique one.

        Returns:
            The round-trip time in seconds.

        Raises:
            ConnectionClosed: the connection is closed, or ended before the pong came.
            ValueError: the payload is too long or in flight already.
            WrongThread: this is not the server's thread.

        Cancellation:
            The ping may have been sent; its pong is then ignored.

        Source: RFC 6455 §5.5.2, §5.5.3.
        """
        if get_ident() != self._thread:
            raise WrongThread("ws.ping")
        await checkpoint_if_cancelled()
        data = next(_ping_numbers).to_bytes(8) if payload is None else to_bytes(payload)
        if self._pings is None:
            self._pings = Pings()
        ping = self._pings.begin(data)
        try:
            if self._closed is not None:
                raise ConnectionClosed(self._closed)
            if self._has_room(len(data)):
                self._transport.send(_PING, data)
            else:
                await self._send_in_line(_PING, data)
                ping.sent_at = trio.current_time()
            if self._ended and ping.round_trip is None and self._closed is not None:
                raise ConnectionClosed(self._closed)
        except BaseException:
            self._pings.forget(ping)
            raise
        return await self._pings.wait(ping)

    def _has_room(self, size: int) -> bool:
        """Whether `size` bytes may be committed now; more than the limit needs an empty outbox."""
        outbox = self._transport.outbox_bytes
        return self._waiting is None and (outbox == 0 or outbox + size <= self._outbox_limit)

    async def _send_in_line(self, opcode: int, payload: bytes) -> None:
        waiting = WaitingSend(current_task(), opcode, payload)
        self._open_backlog().add_send(waiting)

        def abort(_: object) -> Abort:
            if self._waiting is not None:
                self._waiting.remove_send(waiting)
                # Whoever waited behind a message too large for the room there is may fit now.
                self._made_room()
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    # Closing

    @trio.lowlevel.enable_ki_protection
    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection: Close frame, the peer's Close frame, the orderly end of TCP.

        Calling it again, or on a connection that the peer has closed, waits for the end and is no error.
        Messages that were not received, and broadcasts that wait for room, are dropped. Bounded by
        `Timeouts.close`.

        Args:
            code: 1000 to 1003, 1007 to 1014, or 3000 to 4999.
            reason: at most 123 bytes of UTF-8.

        Raises:
            ValueError: the code or the reason may not be sent.
            WrongThread: this is not the server's thread.

        Cancellation:
            The closing handshake has been started and is seen through without the caller: the peer gets the
            Close frame if its socket can take it, and ours is released within `Timeouts.close`.

        Source: RFC 6455 §7.1.2, §7.4.
        """
        if get_ident() != self._thread:
            raise WrongThread("ws.aclose")
        check_close(code, reason)
        self._start_close(CloseFrame(code, reason))
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until the connection is closed and its socket released, whoever closes it.

        Raises:
            WrongThread: this is not the server's thread.

        Cancellation: nothing is left behind.
        """
        if get_ident() != self._thread:
            raise WrongThread("ws.wait_closed")
        if self._is_finished:
            await trio.lowlevel.checkpoint()
            return
        if self._closed_event is None:
            self._closed_event = trio.Event()
        await self._closed_event.wait()

    # The host's side

    def _begin(self, session: SessionHooks) -> None:
        """Start the handler's time."""
        self._session = session
        if self._ended:
            session.connection_ended()

    def _deliver(self, message: str | bytes) -> None:
        """Take a message that arrived: to the waiting receiver, or to the inbox."""
        self._messages_received += 1
        receiver = self._receiver
        if receiver is not None:
            self._receiver = None
            self._handed = True
            reschedule(receiver, Handed(message))
            return
        if self._closing:
            return  # "an endpoint [that sent Close] MAY discard any further data received" (RFC 6455 §1.4)
        if self._inbox is None:
            self._inbox = deque()
        self._inbox.append(message)
        # `_memory_of`, without the call.
        self._unread_bytes += (
            len(message) + _HEADER_BYTES
            if type(message) is bytes or message.isascii()
            else getsizeof(message)
        )
        if self._unread_bytes > self._limits.unread_bytes and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _deliver_pong(self, payload: bytes) -> None:
        """Wake the ping that this pong answers, and all before it (RFC 6455 §5.5.3)."""
        round_trip = None if self._pings is None else self._pings.answer(payload)
        if round_trip is not None:
            self._round_trip = round_trip

    def _made_room(self) -> None:
        """Commit what waits, first come first served, while the outbox has room."""
        backlog = self._waiting
        if backlog is None:
            return
        transport = self._transport
        while (first := backlog.first()) is not None:
            outbox = transport.outbox_bytes
            if outbox and outbox + first.size > self._outbox_limit:
                transport.room_wanted = True
                return
            backlog.pop()
            if type(first) is WaitingSend:
                if first.opcode != _PING:
                    self._messages_sent += 1
                transport.send(first.opcode, first.payload)
                reschedule(first.task)
            else:
                assert type(first) is WaitingBroadcast
                self._messages_sent += 1
                transport.send_encoded(first.message)
        self._waiting = None
        if not backlog.is_timed:
            self._backlog = None

    def _offer(self, message: EncodedMessage, size: int) -> bool:
        """Commit a broadcast message of `size` payload bytes if the outbox has room for it now."""
        # `_has_room`, without the call: this is the path of every delivery.
        transport = self._transport
        outbox = transport.outbox_bytes
        if (
            (outbox and outbox + size > self._outbox_limit)
            or self._waiting is not None
            or self._closed is not None
        ):
            return False
        self._messages_sent += 1
        transport.send_encoded(message)
        return True

    def _open_backlog(self) -> Backlog:
        """Return the line that waits for room, for something that gets in line now."""
        if self._waiting is None:
            if self._backlog is None:
                self._backlog = Backlog(self)
            self._waiting = self._backlog
            self._transport.room_wanted = True
        return self._waiting

    @property
    def _has_unread(self) -> bool:
        # A message that was handed over counts until its task has run: it cannot have been answered yet.
        return self._handed or bool(self._inbox)

    @property
    def _messages_taken(self) -> int:
        return self._messages_received - (len(self._inbox) if self._inbox else 0)

    def _call_when_idle(self, callback: Callable[[], None]) -> None:
        """Call back once every message that arrived was received and the handler asks for another."""
        if self._receiver is not None:
            callback()
        else:
            self._on_idle = callback

    def _start_close(self, frame: CloseFrame, cause: str = "") -> None:
        """Start the closing handshake, unless the connection is already closing or over."""
        if self._closing or self._ended:
            return
        self._closing = True
        self._closed = Closed(sent=frame, received=None, sent_first=True, cause=cause)
        if self._inbox is not None:
            self._inbox = None
            self._unread_bytes = 0
        if self._paused:
            # The peer's Close frame is behind the messages that nobody will receive.
            self._paused = False
            self._transport.resume_reading()
        self._wake_waiters()
        self._transport.close(frame)

    def _end(self, closed: Closed) -> None:
        """End the connection for its handler: the peer closed it, broke the protocol or was lost."""
        self._closed = closed
        if self._ended:
            return
        self._ended = True
        self._on_idle = None
        self._wake_waiters()
        if self._session is not None:
            self._session.connection_ended()

    def _finish(self, closed: Closed) -> None:
        """Report that the transport has released its socket."""
        self._end(closed)
        # Nothing refers in circles any more, so the connection's memory is free at once; the collector would
        # stop the server for tens of milliseconds now and then under a reconnect storm.
        self._transport = GONE
        self._parked = NEVER_PARKED
        if self._closed_event is not None:
            self._closed_event.set()
        if self._session is not None:
            self._session.connection_closed()

    @property
    def _is_finished(self) -> bool:
        """Whether the transport has released its socket."""
        return self._transport is GONE

    def _wake_waiters(self) -> None:
        closed = self._closed
        assert closed is not None
        if self._receiver is not None:
            receiver, self._receiver = self._receiver, None
            # No exception: the loop that nearly every handler is would only throw it away.
            reschedule(receiver, Handed(None))
        backlog, self._backlog, self._waiting = self._backlog, None, None
        if backlog is not None:
            for task in backlog.end():
                reschedule(task, outcome.Error(ConnectionClosed(closed)))
        # A pong may still come while only our side is closing.
        if self._ended and self._pings is not None:
            self._pings.fail(lambda: ConnectionClosed(closed))

    def _cancel_handler(self) -> None:
        """Cancel the handler without any grace: the server's hard deadline."""
        if self._session is not None:
            self._session.cancel()

    def _drain(self) -> None:
        """Tell the handler that the server is stopping."""
        event, self._draining = self._draining, True
        if isinstance(event, trio.Event):
            event.set()
